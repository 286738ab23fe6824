//! Proposals, epochs, and what is written back after a loss.

use super::{
    Bench, Entry, SECOND, about, counts, delta, forced, forced_for, proposal, propose, rules, seconds,
    streak, want,
};
use crate::snapshot::State;
use crate::store::{Delta, MAX_EPOCH, MAX_REASON, MAX_SPAN_US, Position, Proposal, Record};

rules! {
    transition_starts_a_new_epoch_with_zero_counts
    one_of_many_proposals_wins
    proposal_without_the_known_epoch_is_refused
    open_becomes_half_open_only_when_its_time_is_over
    manual_override_is_left_only_after_its_expiry
    override_always_wins_unless_it_would_change_nothing
    remaining_times_are_made_to_fit_the_state
    long_reason_is_cut_between_two_characters
    lost_state_is_written_back
    written_back_state_starts_with_zero_counts
    older_record_changes_nothing
    implausible_record_is_ignored
    closed_state_does_not_end_a_younger_open_one
    open_state_that_a_written_back_closed_one_ends_is_announced
    lost_state_does_not_end_a_younger_override
    open_state_that_begins_in_the_future_is_timed_anew
    open_state_beyond_its_reset_timeout_is_timed_anew
    override_that_ends_beyond_its_span_is_timed_anew
    remaining_time_of_an_override_is_at_most_its_span
    unused_state_lapses_an_hour_after_it_was_due
    use_prolongs_a_state
    override_without_an_expiry_is_durable
}

async fn transition_starts_a_new_epoch_with_zero_counts(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let counting = Delta { counts: counts(1, 4), ..streak(None, &[(SECOND, 4)]) };
    let closed = a.say(Entry { delta: counting.clone(), ..about("x") }).await;
    assert_eq!((closed.counts, closed.streak), (counts(1, 4), 4));
    let mut opening = proposal(State::Open);
    opening.to.attempt = 7;
    let view = a.say(Entry { delta: counting, ..propose("x", &closed.record, opening) }).await;
    assert!(view.won);
    let expected = Record {
        epoch: 1,
        state: State::Open,
        reason: "test".into(),
        originator: "a".into(),
        actor: String::new(),
        remaining_us: Some(30 * SECOND),
        since_us: 0,
        reset_timeout_us: 30 * SECOND,
        attempt: 7,
    };
    assert_eq!((view.record, view.counts, view.streak), (expected.clone(), counts(0, 0), 0));
    bench.pass(seconds(10));
    let later = Record { remaining_us: Some(20 * SECOND), since_us: 10 * SECOND, ..expected };
    assert_eq!(bench.instance("b").ask("x").await.record, later);
    assert_eq!(bench.store.load().await.unwrap().held, [("x".into(), Ok(later))]);
}

async fn one_of_many_proposals_wins(bench: &Bench<'_>) {
    let known = bench.instance("z").ask("x").await.record;
    let mut won = Vec::new();
    for name in ["a", "b", "c"] {
        let view = bench.instance(name).say(propose("x", &known, proposal(State::Open))).await;
        assert_eq!((view.record.epoch, view.record.originator.as_str()), (1, "a"));
        won.push(view.won);
    }
    assert_eq!(won, [true, false, false]);
    assert_eq!(bench.events().await.len(), 1);
}

async fn proposal_without_the_known_epoch_is_refused(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let view = a.say(Entry { proposal: Some(proposal(State::Open)), ..about("x") }).await;
    assert!(!view.won);
    let old = view.record;
    a.force("x", State::Closed, "anew").await;
    let view = a.say(propose("x", &old, proposal(State::Open))).await;
    assert!(!view.won);
    assert_eq!((view.record.epoch, view.record.state), (1, State::Closed));
}

async fn open_becomes_half_open_only_when_its_time_is_over(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let closed = a.ask("x").await.record;
    let open = a.say(propose("x", &closed, proposal(State::Open))).await.record;
    bench.pass(std::time::Duration::from_micros(30 * SECOND - 1));
    let view = a.say(propose("x", &open, proposal(State::HalfOpen))).await;
    assert_eq!((view.won, view.record.remaining_us), (false, Some(1)));
    bench.pass(std::time::Duration::from_micros(1));
    let view = a.say(propose("x", &open, proposal(State::HalfOpen))).await;
    assert_eq!((view.won, view.record.state, view.record.remaining_us), (true, State::HalfOpen, None));
    // Anything else may follow an open state at once.
    let open = a.say(propose("x", &view.record, proposal(State::Open))).await.record;
    assert!(a.say(propose("x", &open, proposal(State::Closed))).await.won);
}

async fn manual_override_is_left_only_after_its_expiry(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for state in [State::ForcedOpen, State::Disabled, State::MetricsOnly] {
        let name = state.as_str();
        let held = a.force(name, state, "for ever").await.record;
        assert_eq!(held.remaining_us, None);
        bench.pass(seconds(1_000_000));
        assert!(!a.say(propose(name, &held, proposal(State::Closed))).await.won);
        let expiring = forced_for(Some(60 * SECOND), 0, state, "for a minute");
        let held = a.say(Entry { proposal: Some(expiring), ..about(name) }).await.record;
        assert_eq!(held.remaining_us, Some(60 * SECOND));
        bench.pass(seconds(59));
        assert!(!a.say(propose(name, &held, proposal(State::Closed))).await.won);
        bench.pass(seconds(2));
        assert_eq!(a.ask(name).await.record.remaining_us, Some(0));
        assert!(a.say(propose(name, &held, proposal(State::Closed))).await.won);
    }
}

async fn override_always_wins_unless_it_would_change_nothing(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    assert!(a.force("x", State::ForcedOpen, "because").await.won);
    assert!(!a.force("x", State::ForcedOpen, "because").await.won);
    assert!(a.force("x", State::ForcedOpen, "for another reason").await.won);
    let expiring = forced_for(Some(SECOND), 0, State::ForcedOpen, "for another reason");
    for _ in 0..2 {
        assert!(a.say(Entry { proposal: Some(expiring.clone()), ..about("x") }).await.won);
    }
    assert!(a.force("x", State::ForcedOpen, "for another reason").await.won, "takes the expiry away");
    let view = a.force("x", State::Closed, "released").await;
    assert_eq!((view.won, view.record.epoch), (true, 6));
    // Whatever it knows.
    let old = Record { epoch: 2, ..view.record };
    assert!(a.say(propose("x", &old, forced(State::Open, "again"))).await.won);

    // Closing what is closed changes something as long as something has been counted.
    assert!(a.force("y", State::Closed, "reset").await.won);
    assert!(!a.force("y", State::Closed, "reset").await.won);
    let known = Some(a.ask("y").await.record);
    a.say(Entry { known: known.clone(), delta: delta(1, 0), ..about("y") }).await;
    assert!(a.force("y", State::Closed, "reset").await.won);
    let known = Some(a.ask("y").await.record);
    a.say(Entry { known, delta: streak(None, &[(0, 1)]), ..about("y") }).await;
    assert!(a.force("y", State::Closed, "reset").await.won);
    assert_eq!(a.ask("y").await.streak, 0);
}

async fn remaining_times_are_made_to_fit_the_state(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for (i, (to, given, reset_timeout_us, made)) in [
        (State::Closed, Some(SECOND), SECOND, None),
        (State::HalfOpen, Some(SECOND), SECOND, None),
        (State::Open, None, SECOND, Some(0)),
        (State::Open, Some(2 * SECOND), SECOND, Some(SECOND)),
        (State::Open, Some(SECOND), 2 * SECOND, Some(SECOND)),
        (State::Open, Some(SECOND), 0, Some(SECOND)),
        (State::Open, Some(u64::MAX), u64::MAX, Some(MAX_SPAN_US)),
        (State::ForcedOpen, Some(2 * SECOND), SECOND, Some(SECOND)),
        (State::Disabled, Some(u64::MAX), 0, Some(MAX_SPAN_US)),
        (State::MetricsOnly, None, SECOND, None),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("x{i}");
        let forcing = forced_for(given, reset_timeout_us, to, "test");
        let view = a.say(Entry { proposal: Some(forcing), ..about(&name) }).await;
        assert_eq!(view.record.remaining_us, made, "{to} {given:?} {reset_timeout_us}");
        assert_eq!(view.record.reset_timeout_us, reset_timeout_us.min(MAX_SPAN_US));
        // A written-back record is adjusted in the same way.
        let name = format!("y{i}");
        let known = Record { remaining_us: given, reset_timeout_us, ..view.record.clone() };
        let view = a.say(Entry { known: Some(known), ..about(&name) }).await;
        assert_eq!(view.record.remaining_us, made, "{to} {given:?} {reset_timeout_us}");
    }
}

async fn long_reason_is_cut_between_two_characters(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let long = format!("{}ß and more", "a".repeat(MAX_REASON - 1));
    let view = a.force("x", State::Open, &long).await;
    assert_eq!(view.record.reason, "a".repeat(MAX_REASON - 1));
    assert!(
        !a.say(Entry { proposal: Some(forced(State::HalfOpen, &long)), ..about("x") })
            .await
            .record
            .reason
            .is_empty()
    );
    let odd = "quote \" backslash \\ newline \n nul \u{0} percent %s {} ß \u{1f980}";
    assert_eq!(a.force("y", State::Open, odd).await.record.reason, odd);
    assert_eq!(a.ask("y").await.record.reason, odd);
}

async fn lost_state_is_written_back(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.force("x", State::Open, "first").await;
    let open = a.force("x", State::Open, "second").await.record;
    let held = a.force("y", State::ForcedOpen, "by hand").await.record;
    let closed = a.force("z", State::Closed, "well").await.record;
    let before = bench.store.load().await.unwrap().position;
    assert_eq!(before.number, 4);
    (bench.lose_everything)();
    bench.pass(seconds(5));

    assert_eq!(bench.instance("b").ask("x").await.record.epoch, 0);
    let mut c = bench.instance("c");
    let knows = |name: &str, record: &Record| Entry { known: Some(record.clone()), ..about(name) };
    let answer = c.exchange(vec![knows("x", &open), knows("y", &held), knows("z", &closed)]).await;
    assert_ne!(answer.position.incarnation, before.incarnation);
    let start = Position { number: 0, id: "0-0".into(), ..answer.position.clone() };
    let received = bench.watch(start, std::time::Duration::ZERO).await;
    let received: Vec<_> =
        received.iter().map(|event| (&*event.name, event.from, event.record.state)).collect();
    assert_eq!(
        received,
        [("x", None, State::Open), ("y", None, State::ForcedOpen)],
        "and not that z is closed"
    );
    for (view, record) in answer.views.into_iter().zip([&open, &held, &closed]) {
        assert_eq!(view.unwrap().record, *record, "as the event had it, from now on");
    }
    let load = bench.store.load().await.unwrap();
    assert_eq!(load.position, answer.position);
    assert_eq!(load.held, [("x".into(), Ok(open.clone())), ("y".into(), Ok(held))]);
    // And it goes on from there.
    bench.pass(seconds(30));
    assert_eq!(c.say(propose("x", &open, proposal(State::HalfOpen))).await.record.epoch, 3);
}

async fn written_back_state_starts_with_zero_counts(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let half_open = a.force("x", State::HalfOpen, "test").await.record;
    let known = Entry { known: Some(half_open.clone()), ..about("x") };
    let view = a.say(Entry { delta: delta(2, 1), leases: want(&[1, 2], 2), ..known.clone() }).await;
    assert_eq!((view.counts, view.granted), (counts(2, 1), vec![1, 2]));
    (bench.lose_everything)();
    bench.instance("b").say(Entry { delta: delta(0, 9), ..about("x") }).await;
    let view = a.say(Entry { delta: delta(1, 0), leases: want(&[3, 4], 2), ..known }).await;
    assert_eq!((view.record, view.counts), (half_open, counts(1, 0)), "but its own delta is merged");
    assert_eq!(view.granted, [3, 4]);
}

async fn older_record_changes_nothing(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let open = a.force("x", State::Open, "test").await.record;
    let closed = a.force("x", State::Closed, "test").await.record;
    for known in [open, Record { reason: "another".into(), ..closed.clone() }] {
        let view = bench.instance("b").say(Entry { known: Some(known), ..about("x") }).await;
        assert_eq!(view.record, closed);
    }
}

async fn implausible_record_is_ignored(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let open = a.force("x", State::Open, "test").await.record;
    (bench.lose_everything)();
    let beyond = Entry { known: Some(Record { epoch: MAX_EPOCH + 1, ..open.clone() }), ..about("x") };
    assert_eq!(a.say(Entry { delta: delta(1, 1), ..beyond }).await.record.epoch, 0);
    assert_eq!(a.ask("x").await.counts, counts(1, 1));
    let largest = Record { epoch: MAX_EPOCH, ..open };
    assert_eq!(a.say(Entry { known: Some(largest.clone()), ..about("x") }).await.record, largest);
}

async fn open_state_that_a_written_back_closed_one_ends_is_announced(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let open = a.force("x", State::Open, "test").await.record;
    bench.pass(seconds(5));
    let closed = a.force("x", State::Closed, "well").await.record;
    (bench.lose_everything)();
    let knows = |record: &Record| Entry { known: Some(record.clone()), ..about("x") };
    assert_eq!(bench.instance("b").say(knows(&open.aged(5 * SECOND))).await.record.state, State::Open);
    assert_eq!(a.say(knows(&closed)).await.record, closed);
    let received: Vec<_> = bench.events().await.into_iter().map(|event| (event.from, event.record)).collect();
    assert_eq!(received.len(), 2, "{received:?}");
    assert_eq!(
        (received[1].0, received[1].1.state, received[1].1.epoch),
        (Some(State::Open), State::Closed, 2)
    );
}

async fn closed_state_does_not_end_a_younger_open_one(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.force("x", State::Open, "first").await;
    a.force("x", State::Open, "second").await;
    let closed = a.force("x", State::Closed, "well").await.record;
    bench.pass(seconds(10));
    let idle = |age: u64| Entry { known: Some(closed.clone().aged(age * SECOND)), ..about("x") };
    (bench.lose_everything)();
    let mut b = bench.instance("b");
    let unknown = b.ask("x").await.record;
    let open = b.say(propose("x", &unknown, proposal(State::Open))).await.record;
    assert_eq!(open.epoch, 1);
    bench.pass(seconds(5));
    let view = bench.instance("c").say(idle(15)).await;
    let stands = Record { epoch: closed.epoch + 1, ..open.clone().aged(5 * SECOND) };
    assert_eq!(view.record, stands);
    let event = bench.events().await.pop().unwrap();
    assert_eq!((event.from, event.record.epoch, event.record.state), (None, 4, State::Open));

    // One that is younger has ended the open one: the store has lost that, and nothing else.
    (bench.lose_everything)();
    let unknown = b.ask("x").await.record;
    b.say(propose("x", &unknown, proposal(State::Open))).await;
    bench.pass(seconds(5));
    assert_eq!(bench.instance("c").say(idle(4)).await.record.state, State::Closed);
}

async fn lost_state_does_not_end_a_younger_override(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.force("x", State::Open, "first").await;
    let open = a.force("x", State::Open, "second").await.record;
    let claim = |age: u64| Entry { known: Some(open.clone().aged(age * SECOND)), ..about("x") };
    bench.pass(seconds(10));
    (bench.lose_everything)();
    let mut b = bench.instance("b");
    let disabled = b.force("x", State::Disabled, "for now").await.record;
    assert_eq!(disabled.epoch, 1);
    bench.pass(seconds(5));
    let stands = Record { epoch: open.epoch + 1, ..disabled.aged(5 * SECOND) };
    assert_eq!(bench.instance("c").say(claim(15)).await.record, stands);
    let event = bench.events().await.pop().unwrap();
    assert_eq!((event.from, event.record.epoch, event.record.state), (None, 3, State::Disabled));

    // An older override has ended: the store has lost that.
    (bench.lose_everything)();
    b.force("x", State::Disabled, "for now").await;
    bench.pass(seconds(5));
    assert_eq!(bench.instance("c").say(claim(4)).await.record.state, State::Open);
}

async fn open_state_that_begins_in_the_future_is_timed_anew(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let open = a.force("x", State::Open, "test").await.record;
    bench.hands.set_back(seconds(600));
    let known = open.aged(10 * SECOND);
    let view = a.say(Entry { known: Some(known.clone()), ..about("x") }).await;
    assert_eq!(view.record, known);
    bench.pass(seconds(20));
    assert!(a.say(propose("x", &known, proposal(State::HalfOpen))).await.won);
}

async fn open_state_beyond_its_reset_timeout_is_timed_anew(bench: &Bench<'_>) {
    let opening = forced_for(Some(30 * SECOND), 30 * SECOND, State::Open, "test");
    state_that_ends_late_is_timed_anew(bench, opening, State::HalfOpen).await;
}

async fn override_that_ends_beyond_its_span_is_timed_anew(bench: &Bench<'_>) {
    let expiring = forced_for(Some(30 * SECOND), 30 * SECOND, State::Disabled, "for half a minute");
    state_that_ends_late_is_timed_anew(bench, expiring, State::Closed).await;
}

/// `begins`: a state that ends after 30 s. `next`: the state that follows it.
async fn state_that_ends_late_is_timed_anew(bench: &Bench<'_>, begins: Proposal, next: State) {
    let mut a = bench.instance("a");
    let begun = a.say(Entry { proposal: Some(begins), ..about("x") }).await.record;
    (bench.lose_everything)();
    // After a clock has been set ahead, its age is greater than what of its time has passed.
    let known = Record { since_us: 1200 * SECOND, ..begun };
    let claim = |record: &Record| Entry { known: Some(record.clone()), ..about("x") };
    assert_eq!(a.say(claim(&known)).await.record, known);
    bench.hands.set_back(seconds(600));
    let known = known.aged(10 * SECOND);
    assert_eq!(a.say(claim(&known)).await.record, known);
    bench.pass(seconds(20));
    assert!(a.say(propose("x", &known, proposal(next))).await.won);
}

async fn remaining_time_of_an_override_is_at_most_its_span(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let expiring = forced_for(Some(30 * SECOND), 30 * SECOND, State::ForcedOpen, "for half a minute");
    a.say(Entry { proposal: Some(expiring), ..about("x") }).await;
    bench.hands.set_back(seconds(600));
    // What an instance claims that has learned of the override just now.
    let known = bench.instance("b").ask("x").await.record;
    assert_eq!(known.remaining_us, Some(30 * SECOND));
    a.say(Entry { known: Some(known.clone()), ..about("x") }).await;
    bench.pass(seconds(30));
    assert!(a.say(propose("x", &known, proposal(State::Closed))).await.won);
}

async fn unused_state_lapses_an_hour_after_it_was_due(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.force("open", State::Open, "for half a minute").await;
    a.force("half-open", State::HalfOpen, "now").await;
    let expiring = forced_for(Some(30 * SECOND), 0, State::ForcedOpen, "for half a minute");
    a.say(Entry { proposal: Some(expiring), ..about("expiring") }).await;
    bench.pass(seconds(3599));
    let held = async || -> Vec<_> {
        let load = bench.store.load().await.unwrap();
        load.held.into_iter().map(|(name, record)| (name.to_string(), record.unwrap().state)).collect()
    };
    let expected = [("expiring", State::ForcedOpen), ("half-open", State::HalfOpen), ("open", State::Open)];
    assert_eq!(held().await, expected.map(|(name, state)| (name.to_owned(), state)));
    bench.pass(seconds(2));
    assert_eq!(held().await.len(), 2, "half-open has lapsed");
    bench.pass(seconds(30));
    assert_eq!((held().await, bench.fleet().await), (vec![], vec![]));
    // The next call meets a clean slate.
    for name in ["open", "half-open", "expiring"] {
        let view = a.say(Entry { delta: delta(0, 1), ..about(name) }).await;
        assert_eq!((view.record.state, view.record.epoch, view.counts), (State::Closed, 0, counts(0, 1)));
        assert_eq!(a.force(name, State::Open, "again").await.record.epoch, 1);
    }
    assert_eq!(held().await.len(), 3);
}

async fn use_prolongs_a_state(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.force("leased", State::HalfOpen, "now").await;
    let open = a.force("led", State::Open, "now").await.record;
    a.force("asked after", State::HalfOpen, "now").await;
    let role = Some(crate::store::LeaderRequest { want: true, term_us: SECOND });
    for _ in 0..4 {
        bench.pass(seconds(3000));
        a.say(Entry { leases: want(&[1], 1), ..about("leased") }).await;
        a.say(Entry { role, known: Some(open.clone()), ..about("led") }).await;
        a.ask("asked after").await;
    }
    let load = bench.store.load().await.unwrap();
    let held: Vec<_> = load.held.iter().map(|(name, _)| &**name).collect();
    assert_eq!(held, ["leased", "led"]);
}

async fn override_without_an_expiry_is_durable(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for state in [State::ForcedOpen, State::Disabled, State::MetricsOnly] {
        a.force(state.as_str(), state, "until released").await;
    }
    bench.pass(seconds(1_000_000));
    bench.instance("b").ask("another").await;
    assert_eq!(bench.store.load().await.unwrap().held.len(), 3);
}
