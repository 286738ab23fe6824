//! Merging of totals and streaks.

use std::time::Duration;

use super::{Bench, Entry, SECOND, about, counts, delta, proposal, propose, rules, seconds, streak};
use crate::snapshot::State;
use crate::store::{Batch, Delta, IDLE, MAX_COUNT, MAX_STREAK, Record, Streak};

rules! {
    unknown_breaker_is_closed
    deltas_of_all_instances_add_up
    breakers_are_independent
    retry_is_merged_once_and_answered_again
    delta_of_another_epoch_is_dropped
    delta_of_a_new_instance_counts_only_in_counting_states
    sums_saturate_at_the_largest_exact_integer
    success_ends_only_earlier_failures
    streaks_merge_in_any_order
    failure_at_the_time_of_a_success_stays
    long_streak_keeps_its_sum
    a_streak_keeps_apart_as_many_failures_as_its_limit_needs
    ages_use_the_instances_clock_estimate_if_it_is_credible
    clock_that_is_set_back_hides_no_later_failure
}

async fn unknown_breaker_is_closed(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let view = a.ask("x").await;
    assert_eq!(view.record.state, State::Closed);
    assert_eq!((view.record.epoch, view.record.since_us, view.record.remaining_us), (0, 0, None));
    assert_eq!((view.record.reason.as_str(), view.record.originator.as_str()), ("", ""));
    assert_eq!((view.counts, view.streak, view.won), (counts(0, 0), 0, false));
    assert!(bench.fleet().await.is_empty(), "a request does not create a breaker");
}

async fn deltas_of_all_instances_add_up(bench: &Bench<'_>) {
    for (name, successes, failures) in [("a", 3, 1), ("b", 0, 2), ("c", 5, 0)] {
        let mut instance = bench.instance(name);
        instance.say(Entry { delta: delta(successes, failures), ..about("x") }).await;
    }
    assert_eq!(bench.instance("d").ask("x").await.counts, counts(8, 3));
    let fleet = bench.fleet().await;
    let (_, fleet_counts, _) = fleet[0].view.clone().unwrap();
    assert_eq!((fleet.len(), &*fleet[0].name, fleet_counts), (1, "x", counts(8, 3)));
}

async fn breakers_are_independent(bench: &Bench<'_>) {
    let names =
        ["x", "y", "", "x:y", "{x}", "%7bx%7d", "two words", "line\nbreak", "größe \u{1f980}", "\u{0}"];
    let mut a = bench.instance("a {odd} instance\n");
    for (i, name) in names.iter().enumerate() {
        a.say(Entry { delta: delta(0, i as u64 + 1), ..about(name) }).await;
    }
    a.force("y", State::Open, "test").await;
    for (i, name) in names.iter().enumerate() {
        let view = a.ask(name).await;
        let expected = if *name == "y" { 0 } else { i as u64 + 1 };
        assert_eq!(view.counts.failures, expected, "{name:?}");
        assert_eq!(view.record.state == State::Open, *name == "y", "{name:?}");
    }
    let fleet = bench.fleet().await;
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(fleet.iter().map(|row| &*row.name).collect::<Vec<_>>(), sorted);
    let load = bench.store.load().await.unwrap();
    assert_eq!(load.held.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["y"]);
}

async fn retry_is_merged_once_and_answered_again(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let known = a.say(Entry { delta: delta(1, 1), ..about("x") }).await.record;
    let entry = Entry { delta: delta(0, 2), ..propose("x", &known, proposal(State::Open)) };
    let unasked = Batch { instance: "a".into(), seq: 2, entries: vec![about("x")], ..Batch::default() };
    bench.store.exchange(unasked).await.unwrap();
    for seq in [2, 1] {
        let counting = Entry { proposal: None, ..entry.clone() };
        let retry = Batch { instance: "a".into(), seq, entries: vec![counting], ..Batch::default() };
        let view = bench.store.exchange(retry).await.unwrap().views.remove(0).unwrap();
        assert_eq!(view.counts, counts(1, 1), "seq {seq}");
    }
    let retry = Batch { instance: "a".into(), seq: 1, entries: vec![entry.clone()], ..Batch::default() };
    let view = bench.store.exchange(retry).await.unwrap().views.remove(0).unwrap();
    assert!(view.won, "a proposal depends on its epoch, not on the sequence number");
    // Lower sequence numbers do not reset the store's latest one.
    let counting = Entry { known: Some(view.record), proposal: None, ..entry };
    let again = Batch { instance: "a".into(), seq: 2, entries: vec![counting], ..Batch::default() };
    let view = bench.store.exchange(again).await.unwrap().views.remove(0).unwrap();
    assert_eq!(view.counts, counts(0, 0));
    // Sequence numbers are per instance.
    assert_eq!(
        bench
            .instance("b")
            .say(Entry { known: Some(view.record), delta: delta(1, 0), ..about("x") })
            .await
            .counts,
        counts(1, 0)
    );
}

async fn delta_of_another_epoch_is_dropped(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let closed = a.say(Entry { delta: delta(0, 1), ..about("x") }).await.record;
    let open = a.say(propose("x", &closed, proposal(State::Open))).await.record;
    let late = Delta { streak: Streak { success: Some(0), failures: vec![(0, 3)] }, ..delta(5, 5) };
    let view = a.say(Entry { known: Some(closed), delta: late.clone(), ..about("x") }).await;
    assert_eq!((view.counts, view.streak), (counts(0, 0), 0));
    let view = a.say(Entry { known: Some(open), delta: late, ..about("x") }).await;
    assert_eq!((view.counts, view.streak), (counts(5, 5), 3));
}

async fn delta_of_a_new_instance_counts_only_in_counting_states(bench: &Bench<'_>) {
    let mut newcomer = bench.instance("b");
    for (state, counted) in [
        (State::Closed, true),
        (State::Open, false),
        (State::HalfOpen, false),
        (State::ForcedOpen, false),
        (State::Disabled, false),
        (State::MetricsOnly, true),
    ] {
        bench.instance("a").force(state.as_str(), state, "test").await;
        let view = newcomer.say(Entry { delta: delta(0, 2), ..about(state.as_str()) }).await;
        assert_eq!(view.counts.failures == 2, counted, "{state}");
    }
}

async fn sums_saturate_at_the_largest_exact_integer(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let much = Delta {
        streak: Streak { success: None, failures: vec![(2, MAX_COUNT - 1), (1, 1)] },
        ..delta(0, MAX_COUNT - 1)
    };
    for expected in [MAX_COUNT - 1, MAX_COUNT, MAX_COUNT] {
        let view = a.say(Entry { delta: much.clone(), ..about("x") }).await;
        assert_eq!((view.counts.failures, view.streak), (expected, MAX_COUNT));
    }
}

async fn success_ends_only_earlier_failures(bench: &Bench<'_>) {
    bench
        .instance("a")
        .say(Entry { delta: streak(None, &[(9 * SECOND, 4), (SECOND, 2)]), ..about("x") })
        .await;
    let view = bench.instance("b").say(Entry { delta: streak(Some(5 * SECOND), &[]), ..about("x") }).await;
    assert_eq!(view.streak, 2);
    let view = bench
        .instance("c")
        .say(Entry { delta: streak(Some(8 * SECOND), &[(7 * SECOND, 9)]), ..about("x") })
        .await;
    assert_eq!(view.streak, 2, "an older success changes nothing, nor do failures before the latest success");
    bench.pass(seconds(1));
    let view = bench.instance("d").say(Entry { delta: streak(Some(0), &[(0, 1)]), ..about("x") }).await;
    assert_eq!(view.streak, 1);
}

async fn streaks_merge_in_any_order(bench: &Bench<'_>) {
    let reports = [
        streak(Some(5 * SECOND), &[(4 * SECOND, 1)]),
        streak(None, &[(6 * SECOND, 2), (3 * SECOND, 4)]),
        streak(Some(7 * SECOND), &[(7 * SECOND, 8), (5 * SECOND, 16), (SECOND, 32)]),
    ];
    for (i, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].iter().enumerate() {
        let name = format!("x{i}");
        let mut a = bench.instance("a");
        a.seq = 10 * i as u64;
        for &which in order {
            a.say(Entry { delta: reports[which].clone(), ..about(&name) }).await;
        }
        assert_eq!(a.ask(&name).await.streak, 1 + 4 + 16 + 32, "{order:?}");
    }
}

async fn failure_at_the_time_of_a_success_stays(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.say(Entry { delta: streak(None, &[(SECOND, 1)]), ..about("x") }).await;
    let view = a.say(Entry { delta: streak(Some(SECOND), &[(SECOND, 1)]), ..about("x") }).await;
    assert_eq!(view.streak, 2);
}

async fn long_streak_keeps_its_sum(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for i in 0..3 * MAX_STREAK as u64 {
        bench.pass(seconds(1));
        let view = a.say(Entry { delta: streak(None, &[(0, 1)]), ..about("x") }).await;
        assert_eq!(view.streak, i + 1);
    }
    // Merged failures have the age of the latest, so a success between them ends none.
    let single = MAX_STREAK as u64 - 1;
    let before_all = Some(single * SECOND + 1);
    assert_eq!(
        a.say(Entry { delta: streak(before_all, &[]), ..about("x") }).await.streak,
        3 * MAX_STREAK as u64
    );
    let after_the_oldest = Some(single * SECOND - 1);
    assert_eq!(a.say(Entry { delta: streak(after_the_oldest, &[]), ..about("x") }).await.streak, single);
}

async fn ages_use_the_instances_clock_estimate_if_it_is_credible(bench: &Bench<'_>) {
    let now = bench.instance("z").exchange(vec![]).await.now_us;
    // A failure half a second ago, and a success just before it that is reported half a second later.
    let mut cases = Vec::new();
    for (name, as_of_us, counted) in [
        ("when sent", Some(now), true),
        ("a second ago", Some(now - SECOND / 2), true),
        ("earlier than that", Some(now - SECOND / 2 - 1), false),
        ("now", Some(now + SECOND / 2), false),
        ("in the future", Some(now + SECOND / 2 + 1), false),
        ("unknown", None, false),
    ] {
        let failing = Entry { delta: streak(None, &[(SECOND / 2, 1)]), ..about(name) };
        bench.instance(name).say(failing).await;
        let success = Entry { delta: streak(Some(SECOND * 6 / 10), &[]), ..about(name) };
        cases.push((
            Batch { node: "".into(), instance: name.into(), seq: 9, as_of_us, entries: vec![success] },
            counted,
        ));
    }
    bench.pass(Duration::from_millis(500));
    for (batch, counted) in cases {
        let name = batch.instance.clone();
        let view = bench.store.exchange(batch).await.unwrap().views.remove(0).unwrap();
        assert_eq!(view.streak == 1, counted, "{name}");
    }
}

async fn clock_that_is_set_back_hides_no_later_failure(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    // The state that an instance knows makes no difference, nor does the length of the step.
    for (name, known, step) in [("new", None, 600), ("known", Some(Record::closed()), 60)] {
        let entry = |delta| Entry { known: known.clone(), delta, ..about(name) };
        a.say(entry(streak(Some(0), &[]))).await;
        a.say(entry(streak(None, &[(0, 1)]))).await;
        bench.hands.set_back(seconds(step));
        for (count, later) in [(2, 1), (3, step), (4, 0)] {
            let view = a.say(entry(streak(None, &[(0, 1)]))).await;
            assert_eq!(view.streak, count, "{name}");
            bench.pass(seconds(later));
        }
    }
}

/// Not one of the rules: Redis expires keys by its own clock, see `redis::tests::expiry`.
#[tokio::test]
async fn idle_closed_breaker_is_forgotten_and_a_used_one_is_not() {
    let bench = Bench::memory();
    let mut a = bench.instance("a");
    for name in ["idle", "used"] {
        a.say(Entry { delta: delta(1, 0), ..about(name) }).await;
    }
    a.force("disabled", State::Disabled, "test").await;
    for _ in 0..30 {
        bench.pass(IDLE / 20);
        a.ask("used").await;
    }
    let names: Vec<_> = bench.fleet().await.into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["disabled".into(), "used".into()] as [std::sync::Arc<str>; 2]);
}

async fn a_streak_keeps_apart_as_many_failures_as_its_limit_needs(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    bench.pass(seconds(100));
    let failures = [5, 4, 3, 2, 1].map(|age| (age * SECOND, 1)).to_vec();
    let merged = Delta { streak: Streak { success: None, failures }, ..Delta::default() };
    let view = a.say(Entry { delta: merged, streak_pairs: 3, ..about("x") }).await;
    assert_eq!(view.streak, 5, "the sum stays");
    let success =
        |age| Delta { streak: Streak { success: Some(age), failures: Vec::new() }, ..Delta::default() };
    let view = a.say(Entry { delta: success(4 * SECOND + 1), ..about("x") }).await;
    assert_eq!(view.streak, 5, "the three latest came after it, and the limit is three");
    let view = a.say(Entry { delta: success(2 * SECOND + 1), ..about("x") }).await;
    assert_eq!(view.streak, 2, "exact below the limit");
    // The state that an instance knows makes no difference; a limit of one keeps the latest time.
    for (name, known) in [("new", None), ("known", Some(Record::closed()))] {
        let entry = |delta: Delta| Entry { delta, known: known.clone(), streak_pairs: 1, ..about(name) };
        let failed =
            |age| Delta { streak: Streak { success: None, failures: vec![(age, 1)] }, ..Delta::default() };
        a.say(entry(failed(5 * SECOND))).await;
        a.say(entry(failed(3 * SECOND))).await;
        assert_eq!(a.say(entry(success(4 * SECOND))).await.streak, 2, "{name}");
        for age in [3, 2] {
            a.say(Entry { streak_pairs: 3, ..entry(failed(age * SECOND - 1)) }).await;
        }
        assert_eq!(a.say(entry(success(4 * SECOND))).await.streak, 4, "{name}");
        let view = a.say(entry(success(3 * SECOND - 1))).await;
        assert_eq!(view.streak, 2, "{name}: successes alone join no failures");
    }
}
