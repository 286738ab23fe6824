//! Time windows.

use super::{Bench, Entry, SECOND, StoreClient, about, counts, delta, proposal, propose, rules, seconds};
use crate::snapshot::State;
use crate::store::{Counts, Delta, View, WindowRequest, WindowView};

rules! {
    buckets_of_all_instances_are_added
    buckets_older_than_the_window_are_neither_merged_nor_answered
    window_slides_over_more_than_its_own_length
    only_requested_buckets_are_answered
    every_epoch_has_a_window_of_its_own
    windows_of_different_lengths_do_not_mix
    without_a_window_buckets_go_nowhere
    invalid_window_is_an_error_and_the_entry_has_no_effect
    bucket_may_be_the_whole_window
    buckets_from_before_the_clock_was_set_back_are_not_answered
}

const TEN: WindowRequest = WindowRequest { length_us: 10 * SECOND, width_us: SECOND, since: 0 };

fn calls(buckets: &[(u64, Counts)]) -> Delta {
    let mut all = Counts::default();
    for (_, counts) in buckets {
        all = all.plus(*counts);
    }
    Delta { counts: all, buckets: buckets.to_vec(), ..Delta::default() }
}

async fn say(instance: &mut StoreClient<'_>, ask: WindowRequest, delta: Delta) -> View {
    instance.say(Entry { window: Some(ask), delta, ..about("x") }).await
}

/// The window's buckets by their age in buckets.
async fn seen(bench: &Bench<'_>, ask: WindowRequest) -> Vec<(u64, Counts)> {
    let mut reader = bench.instance("reader");
    let current = reader.exchange(vec![]).await.now_us / ask.width_us;
    let WindowView { buckets } = say(&mut reader, ask, Delta::default()).await.window.unwrap();
    assert!(buckets.is_sorted_by_key(|(bucket, _)| *bucket));
    buckets.into_iter().rev().map(|(bucket, counts)| (current - bucket, counts)).collect()
}

async fn buckets_of_all_instances_are_added(bench: &Bench<'_>) {
    let slow = Counts { successes: 2, failures: 1, slow: 3 };
    let mut a = bench.instance("a");
    say(&mut a, TEN, calls(&[(SECOND, slow), (0, counts(1, 0)), (0, counts(0, 0))])).await;
    say(&mut bench.instance("b"), TEN, calls(&[(0, counts(0, 5)), (SECOND, counts(4, 0))])).await;
    let one_ago = Counts { successes: 6, failures: 1, slow: 3 };
    assert_eq!(seen(bench, TEN).await, [(0, counts(1, 5)), (1, one_ago)]);
}

async fn buckets_older_than_the_window_are_neither_merged_nor_answered(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let view = say(&mut a, TEN, calls(&[(10 * SECOND, counts(1, 0)), (9 * SECOND, counts(2, 0))])).await;
    assert_eq!(view.counts, counts(3, 0), "the epoch's totals have no age");
    assert_eq!(seen(bench, TEN).await, [(9, counts(2, 0))]);
    bench.pass(seconds(1));
    assert_eq!(seen(bench, TEN).await, []);
}

async fn window_slides_over_more_than_its_own_length(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for second in 0..35 {
        say(&mut a, TEN, calls(&[(0, counts(second, 1))])).await;
        let buckets = seen(bench, TEN).await;
        let expected: Vec<_> = (0..=second.min(9)).map(|ago| (ago, counts(second - ago, 1))).collect();
        assert_eq!(buckets, expected, "second {second}");
        bench.pass(seconds(1));
    }
}

async fn only_requested_buckets_are_answered(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let all = [(4 * SECOND, counts(4, 0)), (2 * SECOND, counts(2, 0)), (0, counts(9, 0))];
    say(&mut a, TEN, calls(&all)).await;
    let current = a.exchange(vec![]).await.now_us / SECOND;
    for (since, expected) in
        [(0, 3), (current - 4, 3), (current - 3, 2), (current, 1), (current + 1, 0), (u64::MAX, 0)]
    {
        let view = say(&mut a, WindowRequest { since, ..TEN }, Delta::default()).await;
        assert_eq!(view.window.unwrap().buckets.len(), expected, "since {since}, now {current}");
    }
    // What is merged need not be what is asked for.
    let view =
        say(&mut a, WindowRequest { since: current, ..TEN }, calls(&[(5 * SECOND, counts(5, 0))])).await;
    assert_eq!(view.window.unwrap().buckets, [(current, counts(9, 0))]);
    assert_eq!(seen(bench, TEN).await.len(), 4);
}

async fn every_epoch_has_a_window_of_its_own(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let closed = say(&mut a, TEN, calls(&[(3 * SECOND, counts(0, 5))])).await.record;
    let opening = propose("x", &closed, proposal(State::Open));
    let view = a.say(Entry { window: Some(TEN), delta: calls(&[(0, counts(0, 1))]), ..opening }).await;
    assert_eq!(view.window, Some(WindowView::default()));
    let late =
        Entry { known: Some(closed), window: Some(TEN), delta: calls(&[(0, counts(0, 1))]), ..about("x") };
    assert_eq!(a.say(late).await.window.unwrap().buckets, []);
    let timely = Entry {
        known: Some(view.record),
        window: Some(TEN),
        delta: calls(&[(0, counts(0, 1))]),
        ..about("x")
    };
    assert_eq!(a.say(timely).await.window.unwrap().buckets.len(), 1);
}

async fn windows_of_different_lengths_do_not_mix(bench: &Bench<'_>) {
    let minute = WindowRequest { length_us: 60 * SECOND, width_us: SECOND, since: 0 };
    let coarse = WindowRequest { length_us: 10 * SECOND, width_us: 5 * SECOND, since: 0 };
    let mut a = bench.instance("a");
    say(&mut a, TEN, calls(&[(0, counts(1, 0))])).await;
    say(&mut a, minute, calls(&[(0, counts(2, 0))])).await;
    say(&mut a, coarse, calls(&[(0, counts(3, 0))])).await;
    for (ask, expected) in [(TEN, 1), (minute, 2), (coarse, 3)] {
        assert_eq!(seen(bench, ask).await, [(0, counts(expected, 0))]);
    }
}

async fn without_a_window_buckets_go_nowhere(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let buckets = Delta { counts: counts(0, 0), ..calls(&[(0, counts(1, 0))]) };
    let view = a.say(Entry { delta: buckets, ..about("x") }).await;
    assert_eq!((view.counts, view.window), (counts(0, 0), None));
    assert!(bench.fleet().await.is_empty());
}

async fn invalid_window_is_an_error_and_the_entry_has_no_effect(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for (length_us, width_us) in [(0, SECOND), (SECOND, 0), (65 * SECOND, SECOND), (64 * SECOND + 1, SECOND)]
    {
        let ask = WindowRequest { length_us, width_us, since: 0 };
        let impossible = Entry { window: Some(ask), delta: delta(1, 1), ..about("x") };
        let possible = Entry { window: Some(TEN), delta: delta(1, 1), ..about("y") };
        let views = a.exchange(vec![possible.clone(), impossible, possible]).await.views;
        assert!(views[1].as_ref().unwrap_err().contains("window"), "{views:?}");
        assert!(views[0].is_ok() && views[2].is_ok(), "{views:?}");
    }
    assert_eq!(a.ask("x").await.counts, counts(0, 0));
    assert_eq!(a.ask("y").await.counts, counts(8, 8));
}

async fn bucket_may_be_the_whole_window(bench: &Bench<'_>) {
    for ask in [
        WindowRequest { length_us: SECOND, width_us: SECOND, since: 0 },
        WindowRequest { length_us: SECOND / 3, width_us: SECOND, since: 0 },
    ] {
        let mut a = bench.instance(&format!("{}", ask.length_us));
        let view = say(&mut a, ask, calls(&[(0, counts(1, 0)), (SECOND, counts(2, 0))])).await;
        assert_eq!(view.window.unwrap().buckets.iter().map(|b| b.1).collect::<Vec<_>>(), [counts(1, 0)]);
    }
}

async fn buckets_from_before_the_clock_was_set_back_are_not_answered(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    say(&mut a, TEN, calls(&[(0, counts(1, 0))])).await;
    bench.hands.set_back(seconds(600));
    say(&mut a, TEN, calls(&[(0, counts(0, 2))])).await;
    assert_eq!(seen(bench, TEN).await, [(0, counts(0, 2))]);
}
