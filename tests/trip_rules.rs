//! Trip rules beyond consecutive failures and time-based rates: count windows, slow calls, and the quorum.

mod common;

use std::time::Duration;

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::{Value, json};

use common::protocol::{Act, Event};
use common::{Instance, T, all, instances, within, within_t};

const NAME: &str = "orders";

/// Waits until the store has counted this many calls.
#[track_caller]
fn wait_for_calls(instance: &Instance, calls: u64) {
    within_t("the store has counted all calls", || {
        let fleet = instance.fleet(NAME);
        fleet.failures + fleet.successes == calls
    });
}

fn last_ten() -> Value {
    json!({"failure_rate_threshold": 0.5, "window_calls": 10, "minimum_calls": 5})
}

#[test]
fn count_window_rate_trips_from_minimum_calls_on() {
    let redis = RedisServer::start();
    let [a] = instances(&redis, NAME, &last_ten());
    a.fail(NAME, 2);
    a.succeed(NAME, 2);
    wait_for_calls(&a, 4);
    assert_eq!(a.state(NAME), State::Closed);
    a.fail(NAME, 1);
    assert_eq!(a.state(NAME), State::Open);
    assert_eq!(a.look(NAME).reason, "60.0 % of the last 5 calls failed (limit 50.0 %)");
}

#[test]
fn outcomes_expire_from_the_count_window() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, NAME, &last_ten());
    a.fail(NAME, 4);
    wait_for_calls(&a, 4);
    b.succeed(NAME, 9);
    wait_for_calls(&a, 13);
    // One of the last ten calls failed.
    b.fail(NAME, 3);
    wait_for_calls(&a, 16);
    assert_eq!([a.state(NAME), b.state(NAME)], [State::Closed; 2]);
    b.fail(NAME, 2);
    all(NAME, &[a, b], State::Open);
}

fn quorum() -> Value {
    json!({"failure_threshold": 3, "min_failing_instances": 2, "reset_timeout": "2s", "success_threshold": 1})
}

#[test]
fn instance_below_the_quorum_opens_and_recovers_locally() {
    let redis = RedisServer::start();
    let [a, b, c] = instances(&redis, NAME, &quorum());
    // Successes of other instances between its failures do not mask them.
    for round in 1..=3 {
        b.succeed(NAME, 1);
        a.fail(NAME, 1);
        wait_for_calls(&b, round * 2);
    }
    let seen = a.look(NAME);
    assert_eq!((seen.state, seen.local, seen.epoch), (State::Open, true, 0));
    assert!(seen.reason.contains("on this instance only"), "{}", seen.reason);
    assert!(a.succeed(NAME, 1).all_rejected());
    let is_local = |event: &Event| matches!(event, Event::Local(change) if change.to == State::Open);
    assert_eq!(a.events().iter().filter(|event| is_local(event)).count(), 1);

    within(Duration::from_secs(2) + T, "a probe is due", || a.look(NAME).retry_after_us == Some(0));
    a.probe(NAME, &Act::Succeed(None), 1);
    let seen = a.look(NAME);
    assert_eq!((seen.state, seen.local), (State::Closed, false));
    assert_eq!([b.state(NAME), c.state(NAME), b.fleet(NAME).state], [State::Closed; 3]);
    assert!(b.transitions(NAME).is_empty(), "the fleet made no transition");
}

#[test]
fn quorum_of_two_failing_instances_opens_the_fleet() {
    let redis = RedisServer::start();
    let fleet: [Instance; 3] = instances(&redis, NAME, &quorum());
    fleet[0].fail(NAME, 2);
    wait_for_calls(&fleet[0], 2);
    fleet[1].fail(NAME, 1);
    within_t("all are open", || fleet.iter().all(|instance| instance.is(NAME, State::Open)));
    within_t("the state is the fleet's", || fleet.iter().all(|instance| !instance.look(NAME).local));
    let reason = fleet[2].look(NAME).reason;
    assert_eq!(reason, "3 consecutive failures (limit 3), on at least 2 instances");
}

/// An instance on this node that has failed and reported it, so that the store has counted `failures`; with
/// 0, the failure is expected to open the circuit.
fn failing_on(redis: &RedisServer, node: &str, failures: u64) -> Instance {
    let instance = Instance::on_node(&redis.url(), node);
    instance.create(NAME, quorum());
    instance.fail(NAME, 1);
    if failures > 0 {
        wait_for_calls(&instance, failures);
    }
    instance
}

#[test]
fn instance_that_restarts_on_one_node_is_no_quorum() {
    let redis = RedisServer::start();
    let watching = Instance::on_node(&redis.url(), "watching");
    watching.create(NAME, quorum());
    for crash in 1..=4 {
        failing_on(&redis, "bad", crash).kill();
    }
    assert_eq!((watching.fleet(NAME).state, watching.fleet(NAME).streak), (State::Closed, 4));
    assert!(watching.is(NAME, State::Closed) && watching.transitions(NAME).is_empty());
    let second = failing_on(&redis, "worse", 0);
    all(NAME, &[watching, second], State::Open);
}

#[test]
fn instance_that_shuts_down_leaves_the_quorum() {
    let redis = RedisServer::start();
    let bad = failing_on(&redis, "bad", 1);
    bad.fail(NAME, 1);
    wait_for_calls(&bad, 2);
    bad.shut_down();
    let second = failing_on(&redis, "worse", 3);
    assert_eq!((second.fleet(NAME).state, second.look(NAME).epoch), (State::Closed, 0));
    let third = failing_on(&redis, "third", 0);
    all(NAME, &[second, third], State::Open);
}
