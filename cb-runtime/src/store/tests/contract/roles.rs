//! The role of the one instance that makes health checks.

use super::{
    Batch, Bench, Entry, SECOND, StoreClient, about, counts, delta, forced, proposal, propose, rules, seconds,
};
use crate::snapshot::State;
use crate::store::{IDLE, LeaderRequest, LeaderView, MAX_ROLE_TERM_US, MAX_SPAN_US, Proposal, Record};

rules! {
    one_instance_has_the_leader_lease
    renewal_keeps_the_token
    lapsed_lease_is_taken_under_a_larger_token
    lease_that_ends_beyond_the_longest_term_is_free
    released_lease_is_free_at_once
    lease_of_another_instance_cannot_be_released
    late_release_does_not_end_a_later_lease
    leader_lease_survives_new_epochs
    proposal_with_a_token_wins_only_while_the_lease_has_that_token
    proposal_is_fenced_by_the_lease_that_its_entry_renews_or_releases
    override_with_a_token_is_fenced_too
    tokens_grow_even_over_lost_data
    leader_lease_alone_keeps_a_breaker
    terms_are_bounded
    roles_of_breakers_are_apart
}

const TERM: u64 = 10 * SECOND;

fn wanting(term_us: u64) -> Entry {
    Entry { role: Some(LeaderRequest { want: true, term_us }), ..about("x") }
}

fn giving_up() -> Entry {
    Entry { role: Some(LeaderRequest { want: false, term_us: 0 }), ..about("x") }
}

async fn say(instance: &mut StoreClient<'_>, entry: Entry) -> LeaderView {
    instance.say(entry).await.role.unwrap()
}

fn theirs(token: u64, remaining_us: u64) -> LeaderView {
    LeaderView { mine: false, token, remaining_us }
}

fn mine(token: u64, remaining_us: u64) -> LeaderView {
    LeaderView { mine: true, token, remaining_us }
}

async fn one_instance_has_the_leader_lease(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a {odd}"), bench.instance("b"));
    assert_eq!(a.ask("x").await.role, None, "who does not ask is not told");
    assert_eq!(say(&mut a, giving_up()).await, theirs(0, 0));
    assert!(bench.fleet().await.is_empty());
    let answer = a.exchange(vec![wanting(TERM)]).await;
    let role = answer.views[0].as_ref().unwrap().role.unwrap();
    assert_eq!((role.mine, role.remaining_us), (true, TERM));
    assert!(role.token > 0 && role.token >= answer.now_us);
    bench.pass(seconds(4));
    assert_eq!(say(&mut b, wanting(99 * SECOND)).await, theirs(role.token, 6 * SECOND));
    assert_eq!(say(&mut b, giving_up()).await, theirs(role.token, 6 * SECOND));
}

async fn renewal_keeps_the_token(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let LeaderView { token, .. } = say(&mut a, wanting(TERM)).await;
    for _ in 0..3 {
        bench.pass(seconds(9));
        assert_eq!(say(&mut a, wanting(TERM)).await, mine(token, TERM));
    }
    assert_eq!(say(&mut a, wanting(SECOND)).await, mine(token, SECOND), "earlier, too");
    assert_eq!(say(&mut b, wanting(TERM)).await, theirs(token, SECOND));
}

async fn lapsed_lease_is_taken_under_a_larger_token(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let first = say(&mut a, wanting(TERM)).await.token;
    bench.pass(std::time::Duration::from_micros(TERM - 1));
    assert_eq!(say(&mut b, wanting(TERM)).await, theirs(first, 1));
    bench.pass(std::time::Duration::from_micros(1));
    assert_eq!(say(&mut a, giving_up()).await, theirs(first, 0));
    let second = say(&mut b, wanting(TERM)).await;
    assert!(second.mine && second.token > first);
    // An instance that has let its own lease lapse starts anew, too: another one may have acted in between.
    bench.pass(seconds(10));
    let third = say(&mut b, wanting(TERM)).await;
    assert!(third.mine && third.token > second.token);
}

async fn lease_that_ends_beyond_the_longest_term_is_free(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let token = say(&mut a, wanting(TERM)).await.token;
    bench.hands.set_back(seconds(1));
    assert_eq!(say(&mut b, wanting(TERM)).await, mine(token + 1, TERM));
}

async fn released_lease_is_free_at_once(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let first = say(&mut a, wanting(TERM)).await.token;
    for _ in 0..2 {
        assert_eq!(say(&mut a, giving_up()).await, theirs(first, 0));
    }
    // Within one microsecond, even.
    let second = say(&mut b, wanting(TERM)).await;
    assert_eq!(second, mine(first + 1, TERM));
    say(&mut b, giving_up()).await;
    assert_eq!(say(&mut b, wanting(TERM)).await, mine(first + 2, TERM));
}

async fn lease_of_another_instance_cannot_be_released(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let token = say(&mut a, wanting(TERM)).await.token;
    say(&mut b, giving_up()).await;
    assert_eq!(say(&mut b, wanting(TERM)).await, theirs(token, TERM));
}

async fn late_release_does_not_end_a_later_lease(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let release = Batch { instance: "a".into(), seq: 1, entries: vec![giving_up()], ..Batch::default() };
    a.seq = 1;
    let token = say(&mut a, wanting(TERM)).await.token;
    let answer = bench.store.exchange(release).await.unwrap();
    assert_eq!(answer.views[0].as_ref().unwrap().role, Some(mine(token, TERM)));
    assert_eq!(say(&mut b, wanting(TERM)).await, theirs(token, TERM));
}

async fn leader_lease_survives_new_epochs(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let token = say(&mut a, wanting(TERM)).await.token;
    for state in State::ALL {
        a.force("x", state, "test").await;
        assert_eq!(say(&mut bench.instance(state.as_str()), wanting(TERM)).await, theirs(token, TERM));
    }
    assert_eq!(say(&mut a, wanting(TERM)).await, mine(token, TERM));
}

async fn proposal_with_a_token_wins_only_while_the_lease_has_that_token(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let open = a.force("x", State::Open, "test").await.record;
    let deciding = |token| {
        let checked = Proposal { token: Some(token), ..proposal(State::Closed) };
        propose("x", &open, checked)
    };
    assert!(!a.say(deciding(0)).await.won, "nobody has it");
    let first = say(&mut a, wanting(TERM)).await.token;
    assert!(!b.say(deciding(first)).await.won, "another has it");
    assert!(!a.say(deciding(first - 1)).await.won && !a.say(deciding(first + 1)).await.won);
    bench.pass(seconds(10));
    assert!(!a.say(deciding(first)).await.won, "it has lapsed");
    let second = say(&mut a, wanting(TERM)).await.token;
    assert!(!a.say(deciding(first)).await.won, "it is a new one");
    let stale = Entry { known: Some(Record { epoch: 0, ..open.clone() }), ..deciding(second) };
    assert!(!a.say(stale).await.won, "the epoch counts as ever");
    assert!(a.say(deciding(second)).await.won);
}

async fn proposal_is_fenced_by_the_lease_that_its_entry_renews_or_releases(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let open = a.force("x", State::Open, "test").await.record;
    let token = say(&mut a, wanting(TERM)).await.token;
    let deciding = |to, known: &Record, asking: Entry| {
        let checked = Proposal { token: Some(token), ..proposal(to) };
        Entry { known: Some(known.clone()), proposal: Some(checked), ..asking }
    };
    let view = a.say(deciding(State::Open, &open, wanting(TERM))).await;
    assert_eq!((view.won, view.role), (true, Some(mine(token, TERM))));
    let view = a.say(deciding(State::Closed, &view.record, giving_up())).await;
    assert_eq!((view.won, view.role), (true, Some(theirs(token, 0))));
    // Taken anew, it is under another token.
    let view = a.say(deciding(State::Open, &view.record, wanting(TERM))).await;
    assert_eq!((view.won, view.role), (false, Some(mine(token + 1, TERM))));
}

async fn override_with_a_token_is_fenced_too(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let ordered = Proposal { token: Some(7), ..forced(State::Open, "test") };
    assert!(!a.say(Entry { proposal: Some(ordered), ..about("x") }).await.won);
}

async fn tokens_grow_even_over_lost_data(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let before = say(&mut a, wanting(TERM)).await.token;
    let known = a.force("x", State::Open, "test").await.record;
    bench.pass(std::time::Duration::from_micros(1));
    (bench.lose_everything)();
    let checked = Proposal { token: Some(before), ..proposal(State::Closed) };
    let view = a
        .say(Entry {
            role: Some(LeaderRequest { want: true, term_us: TERM }),
            ..propose("x", &known, checked)
        })
        .await;
    assert!(!view.won && view.role.unwrap().mine && view.role.unwrap().token > before, "{view:?}");
    assert_eq!(view.record, known, "while the state is written back");
}

async fn leader_lease_alone_keeps_a_breaker(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let token = say(&mut a, wanting(MAX_ROLE_TERM_US)).await.token;
    let fleet = bench.fleet().await;
    let (record, sums, _) = fleet[0].view.clone().unwrap();
    assert_eq!((&*fleet[0].name, record.state, record.epoch, sums), ("x", State::Closed, 0, counts(0, 0)));
    for _ in 0..2 * IDLE.as_secs() * SECOND / MAX_ROLE_TERM_US {
        bench.pass(std::time::Duration::from_micros(MAX_ROLE_TERM_US - 1));
        assert_eq!(say(&mut a, wanting(MAX_ROLE_TERM_US)).await.token, token);
    }
    // And it counts as any other does.
    let view = a.say(Entry { delta: delta(1, 1), ..about("x") }).await;
    assert_eq!((view.record.epoch, view.counts), (0, counts(1, 1)));
}

async fn terms_are_bounded(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let token = say(&mut a, wanting(0)).await;
    assert_eq!((token.mine, token.remaining_us), (false, 0), "for no time at all");
    for long in [MAX_ROLE_TERM_US + 1, MAX_SPAN_US, u64::MAX] {
        assert_eq!(say(&mut a, wanting(long)).await.remaining_us, MAX_ROLE_TERM_US);
    }
}

async fn roles_of_breakers_are_apart(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let y = || Entry { name: "y".into(), ..wanting(TERM) };
    let views = a.exchange(vec![wanting(TERM), about("y")]).await.views;
    assert!(views[0].as_ref().unwrap().role.unwrap().mine);
    let views = b.exchange(vec![y(), wanting(TERM)]).await.views;
    let had: Vec<_> = views.iter().map(|view| view.as_ref().unwrap().role.unwrap().mine).collect();
    assert_eq!(had, [true, false]);
}
