//! Reports: counts of closed breakers that are far from every limit.

use super::{
    Bench, Entry, SECOND, StoreClient, about, counts, delta, forced, proposal, propose, rules, seconds,
    streak,
};
use crate::snapshot::State;
use crate::store::{Acknowledged, Counts, Delta, MAX_COUNT, Record, Report, Reported, WindowRequest};

rules! {
    reported_counts_add_up_with_exchanged_ones
    retried_report_counts_once_and_numbers_are_shared_with_batches
    report_of_another_epoch_or_state_is_dropped_with_a_notice
    reported_success_ends_a_streak_and_the_reporter_is_told_to_exchange
    older_reported_success_leaves_later_failures
    failures_that_a_reported_success_has_ended_do_not_return_when_the_clock_is_set_back
    of_two_reported_successes_the_later_one_is_the_latest
    reported_buckets_are_part_of_the_window
    new_epoch_starts_without_earlier_reports
    breaker_that_only_succeeded_is_part_of_the_fleet
    reported_sums_stop_at_the_largest_whole_number
    answer_to_a_report_has_the_streams_position
}

fn reported(name: &str, successes: u64, failures: u64) -> Reported {
    Reported {
        name: name.into(),
        counts: counts(successes, failures),
        by_streak: true,
        ..Reported::default()
    }
}

async fn report(instance: &mut StoreClient<'_>, entries: Vec<Reported>) -> Acknowledged {
    instance.seq += 1;
    again(instance, entries).await
}

/// Under the number that was used last.
async fn again(instance: &StoreClient<'_>, entries: Vec<Reported>) -> Acknowledged {
    let report = Report { instance: instance.name.clone(), seq: instance.seq, as_of_us: None, entries };
    instance.bench.store.report(report).await.unwrap()
}

async fn reported_counts_add_up_with_exchanged_ones(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let answer = report(&mut a, vec![reported("x", 3, 1), reported("y {odd} %", 1, 0)]).await;
    assert_eq!((answer.exchange, answer.warnings), (vec![], vec![]));
    report(&mut b, vec![reported("x", 2, 0)]).await;
    report(&mut b, vec![reported("x", 1, 1)]).await;
    assert_eq!(a.ask("x").await.counts, counts(6, 2));
    a.say(Entry { delta: delta(1, 1), ..about("x") }).await;
    report(&mut b, vec![reported("x", 1, 0)]).await;
    a.say(Entry { delta: delta(1, 1), ..about("x") }).await;
    assert_eq!(b.ask("x").await.counts, counts(9, 4));
    assert_eq!(b.ask("y {odd} %").await.counts, counts(1, 0));
    let fleet = bench.fleet().await;
    let figures: Vec<_> = fleet.iter().map(|row| (&*row.name, row.view.clone().unwrap().1)).collect();
    assert_eq!(figures, [("x", counts(9, 4)), ("y {odd} %", counts(1, 0))]);
}

async fn retried_report_counts_once_and_numbers_are_shared_with_batches(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let window = WindowRequest { length_us: 10 * SECOND, width_us: SECOND, since: 0 };
    let entry = Reported { window: Some(window), buckets: vec![(0, counts(3, 1))], ..reported("x", 3, 1) };
    report(&mut a, vec![entry.clone()]).await;
    again(&a, vec![entry.clone()]).await;
    let view = a.say(Entry { window: Some(window), ..about("x") }).await;
    assert_eq!((view.counts, view.window.unwrap().buckets.len()), (counts(3, 1), 1));
    again(&a, vec![entry]).await;
    assert_eq!(a.ask("x").await.counts, counts(3, 1), "the batch has had that number");
}

async fn report_of_another_epoch_or_state_is_dropped_with_a_notice(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    report(&mut a, vec![reported("x", 1, 0)]).await;
    let closed = a.ask("x").await.record;
    let open = a.say(propose("x", &closed, proposal(State::Open))).await.record;
    let of = |epoch| Reported { epoch, ..reported("x", 5, 5) };
    let answer = report(&mut a, vec![reported("y", 1, 0), of(0), of(open.epoch), of(9)]).await;
    assert_eq!(answer.exchange, [1, 2, 3]);
    assert_eq!(a.ask("x").await.counts, counts(0, 0));
    let closed = a.force("x", State::Closed, "test").await.record;
    let answer = report(&mut a, vec![of(closed.epoch), of(0), of(closed.epoch + 1)]).await;
    assert_eq!(answer.exchange, [1, 2]);
    assert_eq!(a.ask("x").await.counts, counts(5, 5));
    let held = a.force("x", State::MetricsOnly, "test").await.record;
    assert_eq!(report(&mut a, vec![of(held.epoch)]).await.exchange, [0], "not closed");
}

async fn reported_success_ends_a_streak_and_the_reporter_is_told_to_exchange(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let view = a.say(Entry { delta: streak(None, &[(0, 2)]), ..about("x") }).await;
    assert_eq!(view.streak, 2);
    bench.pass(seconds(1));
    let success = Reported { success_age_us: Some(SECOND / 2), ..reported("x", 1, 0) };
    let by_rate = Reported { by_streak: false, success_age_us: None, ..success.clone() };
    assert_eq!(report(&mut b, vec![by_rate, success.clone()]).await.exchange, [1]);
    let view = a.ask("x").await;
    assert_eq!((view.streak, view.success_age_us), (0, Some(SECOND / 2)));
    assert_eq!(report(&mut b, vec![success]).await.exchange, [0_usize; 0], "there is none any more");
}

async fn older_reported_success_leaves_later_failures(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    bench.pass(seconds(10));
    // Before anything is known of a streak: a failure that is told later, but was earlier, does not count.
    let success = Reported { success_age_us: Some(5 * SECOND), ..reported("x", 1, 0) };
    report(&mut b, vec![success.clone()]).await;
    let failures = streak(None, &[(6 * SECOND, 4), (5 * SECOND, 1), (4 * SECOND, 2)]);
    assert_eq!(a.say(Entry { delta: failures, ..about("x") }).await.streak, 3);
    let older = Reported { success_age_us: Some(8 * SECOND), ..success };
    report(&mut b, vec![older]).await;
    assert_eq!(a.ask("x").await.streak, 3);
}

async fn failures_that_a_reported_success_has_ended_do_not_return_when_the_clock_is_set_back(
    bench: &Bench<'_>,
) {
    let mut a = bench.instance("a");
    for (name, known) in [("new", None), ("known", Some(Record::closed()))] {
        let entry = |delta| Entry { known: known.clone(), delta, ..about(name) };
        a.say(entry(streak(None, &[(5 * SECOND, 2), (3 * SECOND, 1)]))).await;
        report(&mut a, vec![Reported { success_age_us: Some(4 * SECOND), ..reported(name, 1, 0) }]).await;
        assert_eq!(a.say(entry(Delta::default())).await.streak, 1, "{name}");
        bench.hands.set_back(seconds(60));
        assert_eq!(a.say(entry(Delta::default())).await.streak, 1, "{name}");
    }
}

async fn of_two_reported_successes_the_later_one_is_the_latest(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a"), bench.instance("b"));
    let aged = |seconds| Reported { success_age_us: Some(seconds * SECOND), ..reported("x", 1, 0) };
    report(&mut a, vec![aged(8)]).await;
    report(&mut b, vec![aged(5)]).await;
    assert_eq!(a.ask("x").await.success_age_us, Some(5 * SECOND));
    report(&mut a, vec![aged(6)]).await;
    assert_eq!(b.ask("x").await.success_age_us, Some(5 * SECOND));
}

async fn reported_buckets_are_part_of_the_window(bench: &Bench<'_>) {
    let window = WindowRequest { length_us: 10 * SECOND, width_us: SECOND, since: 0 };
    let mut a = bench.instance("a");
    let slow = Counts { successes: 2, failures: 1, slow: 3 };
    let buckets =
        vec![(10 * SECOND, counts(9, 9)), (9 * SECOND, counts(1, 0)), (SECOND, slow), (0, counts(4, 0))];
    let entry = Reported { window: Some(window), buckets, ..reported("x", 7, 1) };
    report(&mut a, vec![entry.clone(), reported("y", 1, 0)]).await;
    let other = WindowRequest { width_us: 2 * SECOND, ..window };
    report(&mut a, vec![Reported { window: Some(other), ..entry.clone() }]).await;
    report(&mut a, vec![Reported { window: None, ..entry }]).await;
    let exchanged = crate::store::Delta { buckets: vec![(0, counts(1, 1))], ..delta(1, 1) };
    let view = a.say(Entry { window: Some(window), delta: exchanged, ..about("x") }).await;
    let seen: Vec<_> = view.window.unwrap().buckets.into_iter().map(|(_, counts)| counts).collect();
    assert_eq!(seen, [counts(1, 0), slow, counts(5, 1)]);
}

async fn new_epoch_starts_without_earlier_reports(bench: &Bench<'_>) {
    let window = WindowRequest { length_us: 10 * SECOND, width_us: SECOND, since: 0 };
    let mut a = bench.instance("a");
    let entry = Reported { window: Some(window), buckets: vec![(0, counts(3, 1))], ..reported("x", 3, 1) };
    report(&mut a, vec![entry.clone()]).await;
    let closed = a.say(Entry { proposal: Some(forced(State::Closed, "reset")), ..about("x") }).await.record;
    let view = a.say(Entry { window: Some(window), ..about("x") }).await;
    assert_eq!((view.counts, view.window.unwrap().buckets.len()), (counts(0, 0), 0));
    report(&mut a, vec![Reported { epoch: closed.epoch, ..entry }]).await;
    let view = a.say(Entry { window: Some(window), known: Some(closed), ..about("x") }).await;
    assert_eq!((view.counts, view.window.unwrap().buckets.len()), (counts(3, 1), 1));
}

async fn breaker_that_only_succeeded_is_part_of_the_fleet(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    report(&mut a, vec![reported("reported", 1, 0)]).await;
    a.say(Entry { delta: delta(1, 0), ..about("exchanged") }).await;
    a.ask("asked after").await;
    let names: Vec<_> = bench.fleet().await.into_iter().map(|row| row.name).collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["exchanged", "reported"]);
    assert_eq!(bench.store.load().await.unwrap().held, []);
}

async fn reported_sums_stop_at_the_largest_whole_number(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    for _ in 0..3 {
        report(&mut a, vec![reported("x", MAX_COUNT - 1, 1)]).await;
    }
    assert_eq!(a.ask("x").await.counts, counts(MAX_COUNT, 3));
}

async fn answer_to_a_report_has_the_streams_position(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let position = report(&mut a, vec![]).await.position;
    assert_eq!(position.number, 0);
    a.force("x", State::Open, "test").await;
    let after = report(&mut a, vec![]).await;
    assert_eq!((after.position.number, &after.position.incarnation), (1, &position.incarnation));
    (bench.lose_everything)();
    let reborn = report(&mut a, vec![reported("x", 1, 0)]).await.position;
    assert_eq!(reborn.number, 0);
    assert_ne!(reborn.incarnation, position.incarnation);
}
