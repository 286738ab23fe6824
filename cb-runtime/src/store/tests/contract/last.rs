//! Count windows: the last N calls.

use super::{Bench, Entry, StoreClient, about, delta, proposal, rules};
use crate::snapshot::State;
use crate::store::{
    Batch, CountWindowRequest, CountWindowView, Counts, Delta, IDLE, MAX_COUNT, MAX_FAILING, MAX_LAST,
    OutcomeKind, View,
};

rules! {
    count_window_is_in_the_order_of_exchanges
    count_window_is_bounded
    answer_begins_after_the_requested_place
    count_windows_of_different_lengths_are_separate
    count_windows_are_per_epoch
    retry_appends_nothing
    entry_without_a_count_window_appends_nothing
    invalid_length_is_an_error_without_effects
    longest_count_window_is_kept
    places_saturate_at_the_largest_exact_integer
    failing_instances_are_answered_by_latest_place
    number_of_failing_instances_is_bounded
    failing_instances_are_kept_only_on_request
    requested_count_window_does_not_expire
    successes_before_the_first_failure_are_in_the_count_window
    successes_of_entries_without_a_count_window_are_not_in_it
    count_windows_of_successes_alone_expire_after_their_last_use
}

const S: OutcomeKind = OutcomeKind { failed: false, slow: false };
const F: OutcomeKind = OutcomeKind { failed: true, slow: false };
const SLOW: OutcomeKind = OutcomeKind { failed: false, slow: true };
const SLOW_F: OutcomeKind = OutcomeKind { failed: true, slow: true };

const NOTHING: CountWindowView = CountWindowView { place: 0, outcomes: vec![], failing: vec![] };

fn asking(calls: u32, since: u64) -> Entry {
    Entry { failing: true, last: Some(CountWindowRequest { calls, since }), ..about("x") }
}

fn appending(calls: u32, outcomes: &[(OutcomeKind, u64)]) -> Entry {
    Entry {
        delta: Delta { calls: outcomes.iter().copied().collect(), ..Delta::default() },
        ..asking(calls, 0)
    }
}

async fn append(
    instance: &mut StoreClient<'_>,
    calls: u32,
    outcomes: &[(OutcomeKind, u64)],
) -> CountWindowView {
    last(&instance.say(appending(calls, outcomes)).await)
}

fn last(view: &View) -> CountWindowView {
    view.last.clone().unwrap()
}

async fn count_window_is_in_the_order_of_exchanges(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    assert_eq!(last(&a.say(asking(10, 0)).await), NOTHING);
    assert!(bench.fleet().await.is_empty(), "a request does not create a breaker");
    append(&mut a, 10, &[(S, 2), (F, 1)]).await;
    append(&mut b, 10, &[(F, 1), (SLOW, 1), (SLOW_F, 2)]).await;
    let view = append(&mut a, 10, &[(SLOW_F, 1), (S, 0), (SLOW_F, 1)]).await;
    let expected = vec![(S, 2), (F, 2), (SLOW, 1), (SLOW_F, 4)];
    assert_eq!((view.place, view.outcomes), (9, expected), "calls of one kind are merged");
}

async fn count_window_is_bounded(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let view = append(&mut a, 3, &[(F, 2), (S, 2), (SLOW, 1_000_000), (F, 1)]).await;
    assert_eq!((view.place, view.outcomes), (1_000_005, vec![(SLOW, 2), (F, 1)]));
    let view = append(&mut a, 3, &[(S, 1)]).await;
    assert_eq!((view.place, view.outcomes), (1_000_006, vec![(SLOW, 1), (F, 1), (S, 1)]));
    let view = append(&mut a, 3, &[(S, 7)]).await;
    assert_eq!((view.place, view.outcomes), (1_000_013, vec![(S, 3)]));
}

async fn answer_begins_after_the_requested_place(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    append(&mut a, 4, &[(F, 3), (S, 2), (F, 1)]).await;
    for (since, expected) in [
        (0, vec![(F, 1), (S, 2), (F, 1)]),
        (1, vec![(F, 1), (S, 2), (F, 1)]),
        (2, vec![(F, 1), (S, 2), (F, 1)]),
        (3, vec![(S, 2), (F, 1)]),
        (4, vec![(S, 1), (F, 1)]),
        (5, vec![(F, 1)]),
        (6, vec![]),
        (7, vec![(F, 1), (S, 2), (F, 1)]),
        (u64::MAX, vec![(F, 1), (S, 2), (F, 1)]),
    ] {
        let view = last(&a.say(asking(4, since)).await);
        assert_eq!((view.place, view.outcomes), (6, expected), "since {since}");
    }
}

async fn count_windows_of_different_lengths_are_separate(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    append(&mut a, 2, &[(F, 5)]).await;
    append(&mut b, 20, &[(S, 5)]).await;
    assert_eq!(append(&mut b, 2, &[]).await.outcomes, [(F, 2)]);
    assert_eq!(append(&mut a, 20, &[]).await.outcomes, [(S, 5)]);
    assert_eq!(append(&mut a, 21, &[]).await, NOTHING);
}

async fn count_windows_are_per_epoch(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let closed = a.say(appending(10, &[(F, 5)])).await.record;
    let opening = Entry { known: Some(closed.clone()), ..appending(10, &[(F, 1)]) };
    let view = a.say(Entry { proposal: Some(proposal(State::Open)), ..opening }).await;
    assert!(view.won);
    assert_eq!(last(&view), NOTHING);
    let late = Entry { known: Some(closed), ..appending(10, &[(F, 1)]) };
    assert_eq!(last(&a.say(late).await), NOTHING);
    let timely = Entry { known: Some(view.record), ..appending(10, &[(S, 1)]) };
    let view = last(&a.say(timely).await);
    assert_eq!((view.place, view.outcomes), (1, vec![(S, 1)]));
    // Failures of the last epoch are not part of this one.
    assert!(last(&bench.instance("b").say(asking(10, 0)).await).failing.is_empty());
}

async fn retry_appends_nothing(bench: &Bench<'_>) {
    let batch = || Batch {
        node: "".into(),
        instance: "a".into(),
        seq: 5,
        as_of_us: None,
        entries: vec![appending(10, &[(F, 1), (S, 2)])],
    };
    for _ in 0..2 {
        let view = bench.store.exchange(batch()).await.unwrap().views.remove(0).unwrap();
        assert_eq!((last(&view).place, last(&view).outcomes), (3, vec![(F, 1), (S, 2)]));
    }
}

async fn entry_without_a_count_window_appends_nothing(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let view = a.say(Entry { last: None, ..appending(10, &[(F, 1)]) }).await;
    assert_eq!(view.last, None);
    assert_eq!(last(&a.say(asking(10, 0)).await), NOTHING);
    assert!(bench.fleet().await.is_empty());
    append(&mut a, 10, &[(F, 0)]).await;
    assert!(bench.fleet().await.is_empty(), "an empty list has no effect");
    append(&mut a, 10, &[(F, 1)]).await;
    assert_eq!(bench.fleet().await.len(), 1);
}

async fn invalid_length_is_an_error_without_effects(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for calls in [0, MAX_LAST + 1, u32::MAX] {
        let impossible = Entry { delta: delta(1, 1), ..asking(calls, 0) };
        let views = a.exchange(vec![impossible, about("y")]).await.views;
        assert!(views[0].as_ref().unwrap_err().contains("count window"), "{views:?}");
        assert!(views[1].is_ok());
    }
    assert!(bench.fleet().await.is_empty());
}

async fn longest_count_window_is_kept(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let most = u64::from(MAX_LAST);
    append(&mut a, MAX_LAST, &[(F, 3), (S, most - 1)]).await;
    let view = append(&mut a, MAX_LAST, &[]).await;
    assert_eq!((view.place, view.outcomes), (most + 2, vec![(F, 1), (S, most - 1)]));
    // Adjacent outcomes differ, so that none are merged.
    let mixed: Vec<_> = (0..MAX_LAST).map(|i| ([S, F, SLOW][i as usize % 3], 1)).collect();
    assert_eq!(append(&mut a, MAX_LAST, &mixed).await.outcomes, mixed);
}

async fn places_saturate_at_the_largest_exact_integer(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for outcomes in [[(F, 1), (S, MAX_COUNT - 2)], [(S, 1), (F, 1)], [(F, u64::MAX), (S, 1)]] {
        append(&mut a, 2, &outcomes).await;
    }
    let view = last(&bench.instance("b").say(asking(2, MAX_COUNT - 1)).await);
    assert_eq!((view.place, view.outcomes, view.failing), (MAX_COUNT, vec![(S, 1)], vec![MAX_COUNT]));
    assert_eq!(append(&mut a, 2, &[]).await.outcomes, [(F, 1), (S, 1)]);
}

async fn failing_instances_are_answered_by_latest_place(bench: &Bench<'_>) {
    let mut names = ["a", "b {odd} *", "c/1"].map(|name| bench.instance(name));
    append(&mut names[0], 10, &[(F, 1), (S, 3), (F, 2), (S, 1)]).await;
    append(&mut names[1], 10, &[(S, 9)]).await;
    append(&mut names[2], 10, &[(SLOW, 2), (SLOW_F, 1)]).await;
    assert_eq!(append(&mut names[0], 10, &[]).await.failing, [19]);
    assert_eq!(append(&mut names[1], 10, &[]).await.failing, [19, 6]);
    assert_eq!(append(&mut names[1], 10, &[(F, 1)]).await.failing, [19, 6]);
    assert_eq!(append(&mut names[0], 10, &[(F, 1), (S, 1)]).await.failing, [20, 19]);
    assert_eq!(append(&mut names[2], 10, &[]).await.failing, [21, 20]);
    // These outcomes have left the window.
    assert_eq!(append(&mut names[2], 10, &[(S, 100)]).await.failing, [21, 20]);
}

async fn number_of_failing_instances_is_bounded(bench: &Bench<'_>) {
    let many = MAX_FAILING as u64 + 3;
    for i in 1..=many {
        append(&mut bench.instance(&i.to_string()), 10, &[(F, 1)]).await;
    }
    let view = append(&mut bench.instance("reader"), 10, &[]).await;
    assert_eq!(view.failing, (4..=many).rev().collect::<Vec<_>>());
    let mut latest = bench.instance(&many.to_string());
    latest.seq = 1;
    assert_eq!(append(&mut latest, 10, &[]).await.failing, (4..many).rev().collect::<Vec<_>>());
}

async fn failing_instances_are_kept_only_on_request(bench: &Bench<'_>) {
    append(&mut bench.instance("a"), 10, &[(F, 1)]).await;
    let view = bench.instance("b").say(Entry { failing: false, ..appending(10, &[(F, 1)]) }).await;
    assert_eq!((last(&view).failing, last(&view).outcomes), (vec![], vec![(F, 2)]));
    assert_eq!(append(&mut bench.instance("c"), 10, &[]).await.failing, [1], "only a");
}

async fn requested_count_window_does_not_expire(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let known = a.say(appending(10, &[(F, 1)])).await.record;
    for _ in 0..4 {
        bench.pass(IDLE / 2);
        assert_eq!(last(&a.say(Entry { known: Some(known.clone()), ..asking(10, 0) }).await).place, 1);
    }
}

/// In Redis, its key expires: `count_window_expires_an_hour_after_its_last_use`.
#[tokio::test]
async fn count_window_that_is_not_requested_expires_in_memory() {
    let bench = Bench::memory();
    let mut a = bench.instance("a");
    append(&mut a, 10, &[(F, 1)]).await;
    for _ in 0..3 {
        bench.pass(IDLE / 2);
        append(&mut a, 20, &[(S, 1)]).await;
    }
    assert_eq!(append(&mut a, 20, &[]).await.place, 3);
    assert_eq!(append(&mut a, 10, &[]).await, NOTHING);
}

/// These calls, as an instance reports them.
fn counted(calls: u32, outcomes: &[(OutcomeKind, u64)]) -> Entry {
    let entry = appending(calls, outcomes);
    let sum = |failed| outcomes.iter().filter(|(kind, _)| kind.failed == failed).map(|(_, n)| n).sum();
    let counts = Counts { successes: sum(false), failures: sum(true), slow: 0 };
    Entry { delta: Delta { counts, ..entry.delta }, ..entry }
}

/// Redis makes a key for the window only then.
async fn successes_before_the_first_failure_are_in_the_count_window(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    for (successes, place) in [(2, 2), (1, 3), (4, 7)] {
        let view = last(&a.say(counted(5, &[(S, successes)])).await);
        assert_eq!((view.place, view.outcomes), (place, vec![(S, place.min(5))]));
    }
    assert_eq!(last(&b.say(asking(5, 6)).await).outcomes, [(S, 1)], "the calls after the sixth");
    let view = b.say(counted(5, &[(S, 1), (F, 1)])).await;
    assert_eq!((view.counts.successes, view.counts.failures), (8, 1));
    assert_eq!((last(&view).place, last(&view).outcomes), (9, vec![(S, 4), (F, 1)]));
    let view = last(&a.say(counted(5, &[(S, 2)])).await);
    assert_eq!((view.place, view.outcomes), (11, vec![(S, 2), (F, 1), (S, 2)]));
    assert_eq!(last(&a.say(asking(3, 0)).await), NOTHING, "another length begins anew");
    // Two entries of one batch.
    let entry = |outcome| Entry { name: "y".into(), ..counted(5, &[(outcome, 1)]) };
    let views = a.exchange(vec![entry(S), entry(S), entry(F), entry(S)]).await.views;
    let places: Vec<_> = views.iter().map(|view| last(view.as_ref().unwrap()).place).collect();
    assert_eq!(places, [1, 2, 3, 4]);
    assert_eq!(last(views[3].as_ref().unwrap()).outcomes, [(S, 2), (F, 1), (S, 1)]);
}

async fn successes_of_entries_without_a_count_window_are_not_in_it(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    a.say(counted(5, &[(S, 2)])).await;
    b.say(Entry { delta: delta(3, 0), ..about("x") }).await;
    assert_eq!(last(&a.say(counted(5, &[(S, 1)])).await).place, 3);
    // Another entry gives the breaker a key.
    let view = b.say(Entry { delta: delta(0, 1), ..about("x") }).await;
    assert_eq!((view.counts.successes, view.counts.failures), (6, 1));
    let view = last(&a.say(counted(5, &[(S, 1)])).await);
    assert_eq!((view.place, view.outcomes), (4, vec![(S, 4)]));
    assert_eq!(last(&a.say(counted(5, &[(F, 1)])).await).outcomes, [(S, 4), (F, 1)]);
}

async fn count_windows_of_successes_alone_expire_after_their_last_use(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.say(counted(10, &[(S, 1)])).await;
    for _ in 0..4 {
        bench.pass(IDLE / 2);
        // Other breakers are in use all the while.
        a.say(Entry { name: "y".into(), ..counted(10, &[(S, 1)]) }).await;
        assert_eq!(last(&a.say(asking(10, 0)).await).place, 1);
    }
    for _ in 0..3 {
        bench.pass(IDLE / 2);
        a.say(Entry { name: "y".into(), ..counted(10, &[(S, 1)]) }).await;
    }
    assert_eq!(last(&a.say(asking(10, 0)).await), NOTHING);
}
