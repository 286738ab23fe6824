//! Probes: their shared budget, their leases, and the transitions they cause.

mod common;

use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::{Breaker, BreakerConfig, Registry, State};
use cb_testkit::{RedisServer, wait_until};
use serde_json::{Value, json};

use common::protocol::{Act, Ended, Override};
use common::{Instance, PATIENCE, T, all, patient_instances as instances, within, within_t};

const NAME: &str = "orders";
/// A probe's lease expires this long after its last renewal.
const LEASE: Duration = Duration::from_secs(2);

fn good() -> Act {
    Act::Succeed(None)
}

/// One failure opens; a probe is due after 200 ms.
fn config(budget: u32, successes: u32) -> Value {
    json!({
        "failure_threshold": 1,
        "reset_timeout": "200ms",
        "half_open_max_calls": budget,
        "success_threshold": successes,
    })
}

/// Opens the circuit, and returns once every instance knows that a probe is due.
#[track_caller]
fn open_until_due(instances: &[Instance]) {
    instances[0].fail(NAME, 1);
    due(instances);
}

#[track_caller]
fn due(instances: &[Instance]) {
    within(Duration::from_millis(200) + T, "all are open and due for a probe", || {
        instances.iter().all(|instance| {
            let seen = instance.look(NAME);
            seen.state == State::Open && seen.retry_after_us == Some(0)
        })
    });
}

/// Makes one successful probe. Retries, because another probe's lease may still be on its way back.
#[track_caller]
fn probe(instance: &Instance) {
    within_t("a probe is admitted", || instance.call(NAME, good(), 1).ended == [Ended::Value(None)]);
}

#[test]
fn thousand_callers_run_exactly_the_budget_with_few_commands() {
    let redis = RedisServer::start();
    let fleet: [Instance; 1] = instances(&redis, NAME, &config(3, 10));
    let a = &fleet[0];
    open_until_due(&fleet);

    let (group, commands) = redis.client_commands(|| {
        let group = a.hold(NAME, 1000);
        within_t("every call runs or is rejected", || {
            let calls = a.progress(group);
            calls.ran + calls.ended.len() == 1000
        });
        group
    });
    let calls = a.progress(group);
    assert_eq!((calls.ran, calls.rejected()), (3, 997));
    assert!(commands < 60, "{commands} commands");
}

#[test]
fn ten_instances_share_one_budget_with_few_commands() {
    let redis = RedisServer::start();
    let fleet: [Instance; 10] = instances(&redis, NAME, &config(3, 10));
    open_until_due(&fleet);

    let (groups, commands) = redis.client_commands(|| {
        let groups = fleet.each_ref().map(|instance| instance.hold(NAME, 20));
        within_t("every call runs or is rejected", || {
            let decided = |(instance, group): (&Instance, &usize)| {
                let calls = instance.progress(*group);
                calls.ran + calls.ended.len()
            };
            fleet.iter().zip(&groups).map(decided).sum::<usize>() == 200
        });
        groups
    });
    let calls = fleet.iter().zip(&groups).map(|(instance, group)| instance.progress(*group));
    let (ran, rejected) = calls.fold((0, 0), |(a, b), calls| (a + calls.ran, b + calls.rejected()));
    assert_eq!((ran, rejected), (3, 197));
    assert!(commands < 60, "{commands} commands");
}

#[test]
fn success_threshold_closes_the_fleet() {
    let redis = RedisServer::start();
    let fleet: [Instance; 3] = instances(&redis, NAME, &config(1, 3));
    open_until_due(&fleet);

    probe(&fleet[0]);
    all(NAME, &fleet, State::HalfOpen);
    probe(&fleet[1]);
    within_t("two successes are counted", || fleet[1].fleet(NAME).successes == 2);
    // Every instance has counted two successes and is still half-open.
    for instance in &fleet {
        assert_eq!(instance.fleet(NAME).state, State::HalfOpen);
    }
    probe(&fleet[2]);
    all(NAME, &fleet, State::Closed);
    assert_eq!(fleet[0].fleet(NAME).epoch, 3);
}

#[test]
fn failed_probe_reopens_and_resets_the_success_count() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(1, 3));
    let [a, b] = &fleet;
    open_until_due(&fleet);

    probe(a);
    probe(b);
    within_t("a probe fails", || a.fail(NAME, 1).failed() == 1);
    assert_eq!(a.state(NAME), State::Open);
    due(&fleet);
    within_t("A knows the epoch", || a.look(NAME).epoch == 3);

    probe(a);
    within_t("the success is counted", || a.fleet(NAME).successes == 1);
    probe(b);
    within_t("two successes are counted", || b.fleet(NAME).successes == 2);
    assert_eq!((a.fleet(NAME).state, b.fleet(NAME).state), (State::HalfOpen, State::HalfOpen));
    probe(a);
    all(NAME, &fleet, State::Closed);
}

#[test]
fn killed_holders_lease_expires_under_rejected_traffic() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, NAME, &config(1, 1));
    open_until_due(std::slice::from_ref(&a));
    let _probe = a.hold_one(NAME);
    all(NAME, std::slice::from_ref(&b), State::HalfOpen);

    let traffic = b.traffic(NAME, good(), Duration::from_millis(10));
    // A living holder renews its lease beyond the first term.
    let calls = || b.progress(traffic).ended.len();
    wait_until(LEASE * 2 + PATIENCE, "300 calls have been made", || calls() >= 300);
    let events = || redis.cli(&["XRANGE", "cb1:{tests}:events", "-", "+"]);
    assert_eq!(b.progress(traffic).ran, 0, "{}", events());
    a.kill();
    within(LEASE + T, "a new probe runs", || b.progress(traffic).ran > 0);
    within_t("it closes the circuit", || b.is(NAME, State::Closed));
    b.finish(traffic, good());
}

#[test]
fn dropped_probe_returns_its_lease() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(1, 1));
    let [a, b] = &fleet;
    open_until_due(&fleet);

    for round in 1..=3 {
        let held = a.hold_one(NAME);
        within_t("B is half-open", || b.is(NAME, State::HalfOpen));
        assert!(b.call(NAME, good(), 1).all_rejected());
        assert!(a.call(NAME, good(), 1).all_rejected());
        a.drop_calls(held);
        assert_eq!(a.look(NAME).cancelled, round);
    }
    within_t("B's probe runs", || b.call(NAME, good(), 1).ran == 1);
    all(NAME, &fleet, State::Closed);
    let counts = a.fleet(NAME);
    assert_eq!((counts.epoch, counts.failures), (3, 0), "a dropped probe is neither failure nor success");
}

#[test]
fn caller_dropped_while_waiting_holds_no_lease() {
    let redis = RedisServer::start();
    let fleet: [Instance; 1] = instances(&redis, NAME, &config(2, 1));
    let a = &fleet[0];
    open_until_due(&fleet);
    // Redis does not answer, so the callers are dropped while they wait.
    redis.freeze();
    let group = a.hold(NAME, 10);
    let calls = a.drop_calls(group);
    redis.thaw();
    assert_eq!(calls.ran, 0);
    within(2 * T, "a probe runs", || a.call(NAME, good(), 1).ran == 1);
    all(NAME, &fleet, State::Closed);
}

#[test]
fn panicking_probe_reopens() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(1, 1));
    let [a, b] = &fleet;
    open_until_due(&fleet);
    assert_eq!(a.call(NAME, Act::Panic, 1).ended, [Ended::Panicked]);
    assert_eq!(a.look(NAME).state, State::Open);
    within_t("the fleet is open again", || b.look(NAME).epoch == 3);
    due(&fleet);
    probe(b);
    all(NAME, &fleet, State::Closed);
}

#[test]
fn call_from_the_closed_state_is_late_while_open() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 2, "reset_timeout": "1h"});
    let [a, b] = instances(&redis, NAME, &config);
    let (well, badly) = (a.hold_one(NAME), a.hold_one(NAME));
    a.fail(NAME, 2);
    within_t("B is open", || b.is(NAME, State::Open));
    within_t("A knows that the fleet is open", || !a.look(NAME).local);
    let before = a.look(NAME);

    assert_eq!(a.finish(well, good()).ended, [Ended::Value(None)]);
    assert_eq!(a.finish(badly, Act::Fail).ended, [Ended::Failed]);
    let counts = a.fleet(NAME);
    assert_eq!((counts.state, counts.epoch, counts.failures, counts.successes), (State::Open, 1, 0, 0));
    let after = a.look(NAME);
    assert_eq!((after.state, after.epoch, after.late), (State::Open, 1, 2));
    // The remaining time is updated with each answer of the store, up to the answer's travel time.
    let travel = 100_000;
    assert!(after.retry_after_us.unwrap() <= before.retry_after_us.unwrap() + travel, "{before:?} {after:?}");
    assert_eq!(b.transitions(NAME).len(), 1);
}

#[test]
fn call_from_the_closed_state_is_late_while_half_open() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, NAME, &config(1, 2));
    let (well, badly) = (a.hold_one(NAME), a.hold_one(NAME));
    a.fail(NAME, 1);
    due(std::slice::from_ref(&a));
    let probe = a.hold_one(NAME);
    within_t("B is half-open", || b.is(NAME, State::HalfOpen));

    a.finish(badly, Act::Fail);
    a.finish(well, good());
    let counts = a.fleet(NAME);
    assert_eq!((counts.state, counts.epoch, counts.failures, counts.successes), (State::HalfOpen, 2, 0, 0));
    assert_eq!(a.look(NAME).late, 2);
    // The probe still holds the only lease: the late calls did not return one.
    assert!(a.call(NAME, good(), 1).all_rejected());
    a.finish(probe, good());
    within_t("one success is counted", || a.fleet(NAME).successes == 1);
    assert_eq!(a.state(NAME), State::HalfOpen);
}

#[test]
fn outcome_of_an_earlier_epoch_is_not_counted() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(2, 1));
    let [a, b] = &fleet;
    let from_closed = a.hold_one(NAME);
    open_until_due(&fleet);
    let (first, from_half_open) = (a.hold_one(NAME), a.hold_one(NAME));
    a.finish(first, good());
    all(NAME, &fleet, State::Closed);

    a.finish(from_closed, Act::Fail);
    a.finish(from_half_open, Act::Fail);
    let counts = b.fleet(NAME);
    assert_eq!((counts.state, counts.epoch, counts.failures, counts.streak), (State::Closed, 3, 0, 0));
    let counts = a.fleet(NAME);
    assert_eq!((counts.state, counts.epoch, counts.failures, counts.streak), (State::Closed, 3, 0, 0));
}

#[test]
fn probe_of_an_earlier_half_open_state_is_late() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(2, 1));
    let [a, b] = &fleet;
    open_until_due(&fleet);
    let old = a.hold_one(NAME);
    let bad = b.hold_one(NAME);
    b.finish(bad, Act::Fail);
    all(NAME, &fleet, State::Open);
    due(&fleet);
    let new = b.hold_one(NAME);
    all(NAME, &fleet, State::HalfOpen);
    a.finish(old, good());
    let counts = a.fleet(NAME);
    assert_eq!((counts.state, counts.epoch, counts.successes), (State::HalfOpen, 4, 0));
    b.finish(new, good());
    all(NAME, &fleet, State::Closed);
}

#[tokio::test]
async fn one_call_a_minute_closes() {
    let (clock, hands) = Clock::manual();
    let registry = Registry::builder().clock(clock).build().unwrap();
    let breaker = registry.get_or_create(NAME, BreakerConfig::default());
    for _ in 0..5 {
        assert!(call(&breaker, false).await);
    }
    assert_eq!(breaker.state(), State::Open);
    for minute in 1..=3 {
        hands.advance(Duration::from_secs(60));
        registry.fleet().await.unwrap();
        assert!(call(&breaker, true).await, "minute {minute}: {:?}", breaker.snapshot());
        registry.fleet().await.unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test]
async fn probe_is_granted_before_the_opening_is_confirmed() {
    let (clock, hands) = Clock::manual();
    let registry = Registry::builder().clock(clock).build().unwrap();
    for round in 0..200 {
        let config = BreakerConfig::default().failure_threshold(1).success_threshold(1);
        let breaker = registry.get_or_create(&format!("breaker {round}"), config);
        call(&breaker, false).await;
        assert!(!call(&breaker, true).await);
        // The coordinator has had no time to report the opening.
        hands.advance(Duration::from_secs(30));
        assert!(call(&breaker, true).await, "round {round}: {:?}", breaker.snapshot());
        assert_eq!(breaker.state(), State::Closed);
    }
}

/// Makes a call and returns whether the guarded code ran.
async fn call(breaker: &Breaker, success: bool) -> bool {
    let mut made = false;
    let result = breaker
        .call(async || {
            made = true;
            if success { Ok(()) } else { Err("broken") }
        })
        .await;
    drop(result);
    made
}

#[test]
fn calls_further_apart_than_a_lease_close() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(1, 2));
    open_until_due(&fleet);
    probe(&fleet[0]);
    all(NAME, &fleet, State::HalfOpen);
    // The test needs real time to pass.
    std::thread::sleep(LEASE + Duration::from_millis(500));
    for instance in &fleet {
        assert_eq!(instance.state(NAME), State::HalfOpen);
    }
    assert_eq!(fleet[1].call(NAME, good(), 1).ran, 1, "the only call since the first probe is admitted");
    all(NAME, &fleet, State::Closed);
}

#[test]
fn new_instance_respects_the_budget_of_a_half_open_circuit() {
    let redis = RedisServer::start();
    let fleet: [Instance; 1] = instances(&redis, NAME, &config(1, 2));
    let a = &fleet[0];
    open_until_due(&fleet);
    let held = a.hold_one(NAME);

    let [c] = instances(&redis, NAME, &config(1, 2));
    assert!(c.call(NAME, good(), 20).all_rejected());
    assert_eq!(c.state(NAME), State::HalfOpen);
    a.finish(held, good());
    within_t("the new instance's probe runs", || c.call(NAME, good(), 1).ran == 1);
    within_t("both are closed", || a.is(NAME, State::Closed) && c.is(NAME, State::Closed));
}

#[test]
fn store_restarted_empty_during_a_probe_converges_to_closed() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(1, 1));
    let [a, b] = &fleet;
    open_until_due(&fleet);
    let held = a.hold_one(NAME);
    all(NAME, &fleet, State::HalfOpen);

    redis.stop();
    let rejected = b.call(NAME, Act::Fail, 20);
    assert!(rejected.ran <= 1, "without the store, an instance has a budget of its own: {rejected:?}");
    assert_eq!(a.finish(held, good()).ended, [Ended::Value(None)]);
    redis.restart();

    // Whatever each instance did locally, they converge, and successful calls close the circuit.
    within(Duration::from_secs(5), "both are closed", || {
        a.succeed(NAME, 1);
        b.succeed(NAME, 1);
        a.is(NAME, State::Closed) && b.is(NAME, State::Closed) && !a.look(NAME).local && !b.look(NAME).local
    });
    within_t("they agree", || a.look(NAME).epoch == b.look(NAME).epoch);
}

#[test]
fn reset_makes_a_running_probe_late() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &config(1, 1));
    let [a, b] = &fleet;
    open_until_due(&fleet);
    let held = a.hold_one(NAME);
    b.steer(NAME, &Override::Reset);
    all(NAME, &fleet, State::Closed);
    a.finish(held, Act::Fail);
    let counts = a.fleet(NAME);
    assert_eq!((counts.state, counts.failures), (State::Closed, 0));
}
