//! Combinations of features: trip rules, ways to recover and overrides together with store outages, restarts
//! and each other.

mod common;

use std::array;

use cb_runtime::State;
use cb_testkit::{Proxy, RedisServer};
use serde_json::{Value, json};

use common::protocol::{Act, Ended, Event, Function, Override, Request};
use common::{Instance, all, all_due, instances, within_t};

const NAME: &str = "orders";

#[track_caller]
fn reported(instance: &Instance, calls: u64) {
    within_t("the fleet has counted all", || {
        let fleet = instance.fleet(NAME);
        fleet.failures + fleet.successes == calls
    });
}

#[track_caller]
fn all_lose_redis(instances: &[Instance]) {
    within_t("all notice the loss", || {
        instances.iter().all(|instance| instance.events().contains(&Event::StoreLost))
    });
}

/// Waits until every instance has its store back after the latest loss.
#[track_caller]
fn all_are_back(instances: &[Instance]) {
    let last = |events: &[Event], wanted: &Event| events.iter().rposition(|event| event == wanted);
    within_t("all have Redis again", || {
        instances.iter().all(|instance| {
            let events = instance.events();
            last(&events, &Event::StoreRestored) > last(&events, &Event::StoreLost)
        })
    });
}

#[test]
fn count_window_keeps_outcomes_of_an_isolated_instance() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = Instance::on(&proxy.url());
    let b = Instance::on(&redis.url());
    let config = json!({"failure_rate_threshold": 0.5, "window_calls": 8, "minimum_calls": 8});
    for i in [&a, &b] {
        i.create(NAME, config.clone());
    }
    b.succeed(NAME, 4);
    reported(&b, 4);
    a.fail(NAME, 2);
    reported(&a, 6);
    proxy.cut();
    within_t("A notices the loss", || a.events().contains(&Event::StoreLost));
    a.fail(NAME, 2);
    assert_eq!(a.state(NAME), State::Open, "four of eight calls failed");
    proxy.heal();
    within_t("both are open", || a.is(NAME, State::Open) && b.is(NAME, State::Open));
}

#[test]
fn slow_rate_counts_slow_successes_and_timeouts() {
    let redis = RedisServer::start();
    let config = json!({"slow_call_duration": "500ms", "slow_call_rate_threshold": 0.6, "minimum_calls": 5, "call_timeout": "5s"});
    let [a, b] = instances(&redis, NAME, &config);
    a.succeed(NAME, 2);
    assert_eq!(a.call(NAME, Act::After(550, Box::new(Act::Succeed(None))), 2).ended.len(), 2);
    assert_eq!(a.state(NAME), State::Closed);
    assert_eq!(a.call(NAME, Act::After(60_000, Box::new(Act::Succeed(None))), 1).ended, [Ended::TimedOut]);
    within_t("both are open", || a.is(NAME, State::Open) && b.is(NAME, State::Open));
    assert_eq!(a.look(NAME).slow, 3);
}

#[test]
fn slow_calls_trip_during_ramp_up() {
    let redis = RedisServer::start();
    let config = json!({"slow_call_duration": "500ms", "slow_call_rate_threshold": 0.5, "minimum_calls": 2, "failure_threshold": 1,
        "success_threshold": 1, "reset_timeout": "100ms", "ramp_up": "1h", "backoff": {"factor": 600}});
    let [a] = instances(&redis, NAME, &config);
    a.fail(NAME, 1);
    all_due(NAME, std::slice::from_ref(&a));
    a.probe(NAME, &Act::Succeed(None), 1);
    assert_eq!(a.state(NAME), State::Closed);
    let calls = a.call(NAME, Act::After(550, Box::new(Act::Succeed(None))), 20);
    assert!((2..20).contains(&calls.ran), "{calls:?}");
    within_t("it is open", || a.is(NAME, State::Open));
    // The last one may have ended after the transition.
    assert!((2..=calls.ran as u64).contains(&a.look(NAME).slow), "{calls:?}");
    within_t("opened", || a.transitions(NAME).last().unwrap().open_for_ms == Some(60_000));
}

#[test]
fn isolated_opening_stays_local_across_a_store_outage() {
    let redis = RedisServer::start();
    let config = json!({"failure_rate_threshold": 0.5, "minimum_calls": 4, "min_failing_instances": 2, "reset_timeout": "1h"});
    let fleet: [Instance; 3] = instances(&redis, NAME, &config);
    let [a, b, c] = fleet.each_ref();
    b.succeed(NAME, 10);
    c.succeed(NAME, 10);
    a.fail(NAME, 3);
    reported(a, 23);
    assert_eq!(a.state(NAME), State::Closed);
    a.fail(NAME, 1);
    // A rate that rests on other instances' counts waits for their latest reports.
    within_t("A is open locally", || {
        let seen = a.look(NAME);
        (seen.state, seen.local) == (State::Open, true)
    });
    redis.stop();
    all_lose_redis(&fleet);
    assert_eq!(a.state(NAME), State::Open);
    assert_eq!(b.state(NAME), State::Closed);
    redis.restart();
    all_are_back(&fleet);
    let seen = a.look(NAME);
    assert_eq!((seen.state, seen.local), (State::Open, true), "{seen:?}");
    assert_eq!(b.state(NAME), State::Closed);
    assert_eq!(b.fleet(NAME).state, State::Closed);
    a.steer(NAME, &Override::Reset);
    within_t("A is closed", || a.is(NAME, State::Closed));
}

#[test]
fn backoff_continues_across_restarts_and_an_emptied_store() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 1, "success_threshold": 1, "reset_timeout": "100ms", "backoff": {"factor": 2, "cap": "10s"}});
    let [a, b] = instances(&redis, NAME, &config);
    a.fail(NAME, 1);
    within_t("B is open", || b.is(NAME, State::Open));
    a.kill();
    let fleet = [b, {
        let c = Instance::on(&redis.url());
        c.create(NAME, config.clone());
        c
    }];
    all_due(NAME, &fleet);
    fleet[1].probe(NAME, &Act::Fail, 1);
    within_t("opened", || fleet[0].transitions(NAME).last().is_some_and(|c| c.open_for_ms == Some(200)));
    redis.cli(&["FLUSHALL"]);
    all_due(NAME, &fleet);
    fleet[0].probe(NAME, &Act::Fail, 1);
    within_t("opened", || fleet[0].transitions(NAME).last().is_some_and(|c| c.open_for_ms == Some(400)));
    within_t("opened", || fleet[1].transitions(NAME).last().is_some_and(|c| c.open_for_ms == Some(400)));
    all_due(NAME, &fleet);
    fleet[1].probe(NAME, &Act::Succeed(None), 1);
    all(NAME, &fleet, State::Closed);
    fleet[0].fail(NAME, 1);
    within_t("opened", || fleet[1].transitions(NAME).last().is_some_and(|c| c.open_for_ms == Some(100)));
}

#[test]
fn cancelled_probes_are_not_in_the_recovery_rate() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 1, "reset_timeout": "100ms", "half_open_max_calls": 2, "success_threshold": 5, "recovery_rate": 0.6});
    let fleet: [Instance; 2] = instances(&redis, NAME, &config);
    fleet[0].fail(NAME, 1);
    all_due(NAME, &fleet);
    for _ in 0..3 {
        let group = fleet[0].hold_one(NAME);
        fleet[0].drop_calls(group);
    }
    all(NAME, &fleet, State::HalfOpen);
    fleet[0].probe(NAME, &Act::Fail, 1);
    fleet[1].probe(NAME, &Act::Fail, 1);
    all(NAME, &fleet, State::HalfOpen);
    let mut n = 0;
    while n < 3 {
        n += fleet[n % 2].succeed(NAME, 1).ran;
    }
    all(NAME, &fleet, State::Closed);
}

#[test]
fn ramp_up_and_backoff_continue_without_the_store() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 1, "success_threshold": 1, "reset_timeout": "100ms", "ramp_up": "1h", "backoff": {"factor": 1000}});
    let fleet: [Instance; 2] = instances(&redis, NAME, &config);
    fleet[0].fail(NAME, 1);
    all_due(NAME, &fleet);
    fleet[0].probe(NAME, &Act::Succeed(None), 1);
    all(NAME, &fleet, State::Closed);
    redis.stop();
    all_lose_redis(&fleet);
    for i in &fleet {
        assert!(i.succeed(NAME, 100).ran <= 12);
    }
    let calls = fleet[0].fail(NAME, 20);
    assert_eq!(calls.ran, 1, "{calls:?}");
    let seen = fleet[0].look(NAME);
    assert_eq!(seen.state, State::Open);
    assert!(seen.retry_after_us > Some(30_000_000), "the backoff applies: {seen:?}");
    redis.restart();
    all_are_back(&fleet);
    within_t("all agree", || fleet[0].state(NAME) == fleet[1].state(NAME));
}

#[test]
fn new_instance_ramps_up_after_the_store_is_emptied() {
    let redis = RedisServer::start();
    let config =
        json!({"failure_threshold": 1, "success_threshold": 1, "reset_timeout": "100ms", "ramp_up": "1h"});
    let fleet: [Instance; 1] = instances(&redis, NAME, &config);
    fleet[0].fail(NAME, 1);
    all_due(NAME, &fleet);
    fleet[0].probe(NAME, &Act::Succeed(None), 1);
    all(NAME, &fleet, State::Closed);
    redis.cli(&["FLUSHALL"]);
    within_t("the epoch is written back", || {
        fleet[0].succeed(NAME, 10);
        fleet[0].fleet(NAME).epoch > 0
    });
    let [n] = instances(&redis, NAME, &config);
    within_t("the new instance has the epoch", || n.look(NAME).epoch == fleet[0].look(NAME).epoch);
    assert!(n.succeed(NAME, 100).ran <= 13);
}

#[test]
fn reset_and_release_end_a_ramp_up() {
    let redis = RedisServer::start();
    let config =
        json!({"failure_threshold": 1, "success_threshold": 1, "reset_timeout": "100ms", "ramp_up": "1h"});
    let fleet: [Instance; 2] = instances(&redis, NAME, &config);
    for word in [Override::Reset, Override::Release] {
        fleet[0].fail(NAME, 20);
        all_due(NAME, &fleet);
        fleet[0].probe(NAME, &Act::Succeed(None), 1);
        all(NAME, &fleet, State::Closed);
        assert!(fleet[1].succeed(NAME, 50).ran < 10);
        if matches!(word, Override::Release) {
            fleet[1].steer(NAME, &Override::ForceOpen("x".into()));
            all(NAME, &fleet, State::ForcedOpen);
        }
        fleet[1].steer(NAME, &word);
        within_t("all run", || fleet.iter().all(|i| i.succeed(NAME, 20).ran == 20));
    }
}

#[test]
fn open_for_applies_to_probes_and_during_ramp_up() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    let b = Instance::on(&redis.url());
    for i in [&a, &b] {
        i.configure(Function::Obedient, json!({"failure_threshold": 50, "success_threshold": 2, "reset_timeout": "100ms", "recovery_rate": 0.5, "ramp_up": "1h"}));
    }
    b.run(Function::Obedient, 1, Act::Succeed(None));
    a.run(Function::Obedient, 1, Act::RetryAfter(150));
    within_t("B is open", || b.is("obedient", State::Open));
    within_t("a probe is due", || b.look("obedient").retry_after_us == Some(0));
    within_t("the probe runs", || b.run(Function::Obedient, 1, Act::RetryAfter(400)) == Ended::Failed);
    assert_eq!(b.state("obedient"), State::Open);
    let seen = b.look("obedient");
    assert!(seen.reason.contains("400ms"), "{seen:?}");
    within_t("A has the transition", || a.look("obedient").reason == seen.reason);
    within_t("a probe is due", || a.look("obedient").retry_after_us == Some(0));
    for _ in 0..2 {
        within_t("the probe runs", || a.run(Function::Obedient, 1, Act::Succeed(None)) == Ended::Value(None));
    }
    within_t("both are closed", || b.is("obedient", State::Closed) && a.is("obedient", State::Closed));
    assert_eq!(b.run(Function::Obedient, 1, Act::RetryAfter(60_000)), Ended::Failed);
    within_t("A is open", || a.is("obedient", State::Open));
    assert!(a.look("obedient").retry_after_us > Some(50_000_000));
}

#[test]
fn unregistered_breaker_can_be_released_and_reset() {
    let redis = RedisServer::start();
    let [a] = instances(&redis, NAME, &json!({}));
    let b = Instance::on(&redis.url());
    a.steer(NAME, &Override::ForceOpen("x".into()));
    within_t("B knows the breaker", || b.try_ask::<Value>(&Request::Look { breaker: NAME.into() }).is_ok());
    b.steer(NAME, &Override::Release);
    within_t("A is closed", || a.is(NAME, State::Closed));
    a.steer(NAME, &Override::Disable("x".into()));
    within_t("B is disabled", || b.is(NAME, State::Disabled));
    let () = b.ask(&Request::ResetAll);
    within_t("A is closed", || a.is(NAME, State::Closed));
}

#[test]
fn any_breaker_name_is_shared() {
    let redis = RedisServer::start();
    let long = "x".repeat(100_000);
    let names = ["a b{c}", "ünï😀", "new\nline\0nul", "*?[", "%41", "A", ":", "}{", " ", &long];
    let [a, b] = array::from_fn(|_| Instance::on(&redis.url()));
    for i in [&a, &b] {
        for n in names {
            i.create(n, json!({"failure_threshold": 2}));
        }
    }
    for n in names {
        a.fail(n, 1);
        b.fail(n, 1);
    }
    for n in names {
        within_t("both are open", || a.is(n, State::Open) && b.is(n, State::Open));
    }
    let c = Instance::on(&redis.url());
    for n in names {
        c.create(n, json!({"failure_threshold": 2}));
        assert_eq!(c.state(n), State::Open);
    }
    let damaged = |instance: &Instance| instance.errors().into_iter().any(|trouble| trouble.is_data);
    assert!(!damaged(&a) && !damaged(&b));
}

#[test]
fn differing_settings_are_reported_once_per_instance() {
    let redis = RedisServer::start();
    let fleet: [Instance; 3] = array::from_fn(|n| {
        let i = Instance::on(&redis.url());
        i.create(NAME, json!({"failure_threshold": 10 + n}));
        i
    });
    let conflicts =
        |i: &Instance| i.errors().into_iter().filter(|t| t.is_conflict).map(|t| t.text).collect::<Vec<_>>();
    within_t("each instance reports the difference", || {
        for i in &fleet {
            i.succeed(NAME, 1);
        }
        fleet.iter().all(|i| !conflicts(i).is_empty())
    });
    for _ in 0..10 {
        for i in &fleet {
            i.succeed(NAME, 1);
            i.fleet(NAME);
        }
    }
    for i in &fleet {
        assert_eq!(conflicts(i).len(), 1, "{:?}", conflicts(i));
    }
}
