//! The instances that report failures, and the time of the latest success.

use super::{Bench, Entry, SECOND, about, counts, delta, proposal, propose, rules, seconds, streak};
use crate::snapshot::State;
use crate::store::{Batch, Delta, MAX_FAILING, Streak};

rules! {
    age_of_the_latest_success_is_answered
    other_failing_instances_are_answered_by_latest_failure
    failure_without_a_time_counts_as_now
    older_failure_reported_later_changes_nothing
    failing_instances_are_per_epoch
    late_or_repeated_report_adds_no_failing_instance
    number_of_failing_instances_is_bounded
    failing_instances_are_kept_only_on_request
    failing_instances_of_one_node_count_once
    instance_that_leaves_takes_its_node_off_the_list
}

const NOBODY: [u64; 0] = [];

fn quorum(name: &str) -> Entry {
    Entry { failing: true, ..about(name) }
}

async fn failing(bench: &Bench<'_>, reader: &str) -> Vec<u64> {
    let batch = Batch { instance: reader.into(), entries: vec![quorum("x")], ..Batch::default() };
    bench.store.exchange(batch).await.unwrap().views.remove(0).unwrap().failing
}

async fn age_of_the_latest_success_is_answered(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    assert_eq!(a.ask("x").await.success_age_us, None);
    let view = a.say(Entry { delta: streak(None, &[(SECOND, 1)]), ..quorum("x") }).await;
    assert_eq!(view.success_age_us, None);
    let view = a.say(Entry { delta: streak(Some(3 * SECOND), &[]), ..quorum("x") }).await;
    assert_eq!(view.success_age_us, Some(3 * SECOND));
    bench.pass(seconds(2));
    let mut b = bench.instance("b");
    let view = b.say(Entry { delta: streak(Some(9 * SECOND), &[]), ..quorum("x") }).await;
    assert_eq!(view.success_age_us, Some(5 * SECOND), "an older one changes nothing");
    let open = b.say(propose("x", &view.record, proposal(State::Open))).await;
    assert_eq!(open.success_age_us, None, "success times are per epoch");
}

async fn other_failing_instances_are_answered_by_latest_failure(bench: &Bench<'_>) {
    let (mut a, mut b) = (bench.instance("a {odd} *"), bench.instance("b"));
    let view = a.say(Entry { delta: streak(None, &[(7 * SECOND, 2), (4 * SECOND, 1)]), ..quorum("x") }).await;
    assert_eq!(view.failing, NOBODY, "an instance is not among its own others");
    bench.pass(seconds(1));
    let failed = Delta { counts: counts(2, 1), ..streak(Some(0), &[(SECOND, 0), (3 * SECOND, 1)]) };
    assert_eq!(b.say(Entry { delta: failed, ..quorum("x") }).await.failing, [5 * SECOND]);
    bench.instance("c").say(Entry { delta: delta(5, 0), ..quorum("x") }).await;
    assert_eq!(failing(bench, "c").await, [3 * SECOND, 5 * SECOND], "newest first");
    assert_eq!(failing(bench, "b").await, [5 * SECOND]);
    bench.pass(seconds(1));
    assert_eq!(failing(bench, "a {odd} *").await, [4 * SECOND]);
    a.say(Entry { delta: streak(None, &[(SECOND, 1)]), ..quorum("x") }).await;
    assert_eq!(failing(bench, "c").await, [SECOND, 4 * SECOND]);
    assert_eq!(bench.instance("c").say(quorum("y")).await.failing, NOBODY);
}

async fn failure_without_a_time_counts_as_now(bench: &Bench<'_>) {
    bench.instance("a").say(Entry { delta: delta(0, 1), ..quorum("x") }).await;
    bench.pass(seconds(2));
    assert_eq!(failing(bench, "b").await, [2 * SECOND]);
}

async fn older_failure_reported_later_changes_nothing(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    a.say(Entry { delta: streak(None, &[(SECOND, 1)]), ..quorum("x") }).await;
    a.say(Entry { delta: streak(None, &[(9 * SECOND, 1)]), ..quorum("x") }).await;
    assert_eq!(failing(bench, "b").await, [SECOND]);
}

async fn failing_instances_are_per_epoch(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let closed = a.say(Entry { delta: streak(None, &[(SECOND, 1)]), ..quorum("x") }).await.record;
    let open = a.say(propose("x", &closed, proposal(State::Open))).await.record;
    assert_eq!(failing(bench, "b").await, NOBODY);
    // The next epoch starts without failing instances.
    let streak = Streak { success: None, failures: vec![(5 * SECOND, 1)] };
    let delta = Delta { streak, ..Delta::default() };
    a.say(Entry { known: Some(open), delta, ..quorum("x") }).await;
    assert_eq!(failing(bench, "b").await, [5 * SECOND]);
}

async fn late_or_repeated_report_adds_no_failing_instance(bench: &Bench<'_>) {
    let mut a = bench.instance("a");
    let closed = a.ask("x").await.record;
    let open = a.force("x", State::Open, "test").await.record;
    let late = Entry { known: Some(closed), delta: delta(0, 1), ..quorum("x") };
    a.say(late).await;
    assert_eq!(failing(bench, "b").await, NOBODY);
    let retry = Batch {
        instance: "a".into(),
        seq: 1,
        entries: vec![Entry { known: Some(open), delta: delta(0, 1), ..quorum("x") }],
        ..Batch::default()
    };
    bench.store.exchange(retry).await.unwrap();
    assert_eq!(failing(bench, "b").await, NOBODY);
}

async fn number_of_failing_instances_is_bounded(bench: &Bench<'_>) {
    let many = MAX_FAILING as u64 + 3;
    for i in 1..=many {
        let mut reporter = bench.instance(&format!("instance {i}"));
        reporter.say(Entry { delta: streak(None, &[(i * SECOND, 1)]), ..quorum("x") }).await;
    }
    let seen = failing(bench, "reader").await;
    assert_eq!(seen, (1..=MAX_FAILING as u64).map(|i| i * SECOND).collect::<Vec<_>>());
    assert_eq!(failing(bench, "instance 1").await.len(), MAX_FAILING - 1);
}

async fn failing_instances_are_kept_only_on_request(bench: &Bench<'_>) {
    bench.instance("a").say(Entry { delta: delta(0, 1), ..quorum("x") }).await;
    assert_eq!(bench.instance("b").say(Entry { delta: delta(0, 1), ..about("x") }).await.failing, NOBODY);
    assert_eq!(failing(bench, "c").await, [0], "only a");
}

/// What an instance of this node sends after another one.
fn on_node(node: &str, instance: &str, entry: Entry) -> Batch {
    Batch { instance: instance.into(), node: node.into(), seq: 1, entries: vec![entry], ..Batch::default() }
}

fn failed() -> Entry {
    let calls = [(crate::store::OutcomeKind { failed: true, slow: false }, 1)].into_iter().collect();
    let last = Some(crate::store::CountWindowRequest { calls: 10, since: 0 });
    let delta = Delta { calls, ..streak(None, &[(0, 1)]) };
    Entry { delta, last, ..quorum("x") }
}

/// The nodes that have failed, besides the asking one: by time, and by place.
async fn others(bench: &Bench<'_>, node: &str) -> (usize, usize) {
    let last = Some(crate::store::CountWindowRequest { calls: 10, since: 0 });
    let batch = on_node(node, "reader", Entry { last, ..quorum("x") });
    let view = bench.store.exchange(batch).await.unwrap().views.remove(0).unwrap();
    (view.failing.len(), view.last.unwrap().failing.len())
}

async fn failing_instances_of_one_node_count_once(bench: &Bench<'_>) {
    for instance in ["first", "second", "third"] {
        bench.store.exchange(on_node("bad *", instance, failed())).await.unwrap();
        assert_eq!(others(bench, "another").await, (1, 1));
        assert_eq!(others(bench, "bad *").await, (0, 0));
    }
    bench.store.exchange(on_node("worse", "fourth", failed())).await.unwrap();
    assert_eq!(others(bench, "another").await, (2, 2));
    assert_eq!(others(bench, "bad *").await, (1, 1));
}

async fn instance_that_leaves_takes_its_node_off_the_list(bench: &Bench<'_>) {
    bench.store.exchange(on_node("bad", "a", failed())).await.unwrap();
    bench.store.exchange(on_node("worse", "b", failed())).await.unwrap();
    let leaving = Entry { leaves: true, ..failed() };
    bench.store.exchange(on_node("bad", "c", leaving)).await.unwrap();
    assert_eq!(others(bench, "another").await, (1, 1));
    assert_eq!(others(bench, "worse").await, (0, 0));
}
