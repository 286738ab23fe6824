//! Counts of outcomes across instances, and the trips that follow from them.

mod common;

use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::{Breaker, BreakerConfig, Registry, State};
use cb_testkit::RedisServer;
use serde_json::json;

use common::protocol::{Act, Ended, Function};
use common::{Instance, T, instances, within, within_t};

#[test]
fn failures_of_two_instances_add_up() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, "orders", &json!({"failure_threshold": 3}));

    assert_eq!(a.fail("orders", 2).failed(), 2);
    assert_eq!(b.fail("orders", 1).failed(), 1);

    within_t("both are open", || a.is("orders", State::Open) && b.is("orders", State::Open));
    assert!(a.succeed("orders", 1).all_rejected());
    assert!(b.succeed("orders", 1).all_rejected());
    // The instance that trips is open at once and learns the epoch from the store's answer.
    within_t("both know the epoch", || a.look("orders").epoch == 1 && b.look("orders").epoch == 1);
}

#[test]
fn trip_reaches_an_idle_instance_and_a_new_one() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 2});
    let [a, b] = instances(&redis, "orders", &config);

    a.fail("orders", 2);
    within_t("B is open", || b.is("orders", State::Open));

    let c = Instance::on(&redis.url());
    c.create("orders", config);
    assert!(c.succeed("orders", 1).all_rejected(), "C's first call");
}

#[test]
fn annotated_function_is_open_from_its_first_call_in_a_new_instance() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 2});
    let a = Instance::on(&redis.url());
    a.configure(Function::Plain, config.clone());
    assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    assert!(a.run(Function::Plain, 1, Act::Succeed(None)).is_rejected());
    within_t("the fleet knows", || a.fleet("plain").state == State::Open);

    let b = Instance::on(&redis.url());
    b.configure(Function::Plain, config);
    assert!(b.run(Function::Plain, 1, Act::Succeed(None)).is_rejected());
}

#[test]
fn success_ends_the_streak_and_the_call_after_the_trip_is_rejected() {
    let redis = RedisServer::start();
    let [a] = instances(&redis, "orders", &json!({"failure_threshold": 3}));

    a.fail("orders", 2);
    a.succeed("orders", 1);
    a.fail("orders", 2);
    assert_eq!(a.fleet("orders").streak, 2);
    assert_eq!(a.state("orders"), State::Closed);

    // The call after the third failure follows without any wait.
    let calls = a.fail("orders", 2);
    assert_eq!(calls.ended[0], Ended::Failed);
    assert!(calls.ended[1].is_rejected());
    assert_eq!(calls.ran, 1);
}

#[test]
fn success_on_another_instance_ends_the_streak() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, "orders", &json!({"failure_threshold": 3}));

    a.fail("orders", 2);
    assert_eq!(a.fleet("orders").streak, 2);
    // The first one may be too close to the failures: the instances' estimates of the store's time differ.
    within_t("a later success ends the streak", || {
        b.succeed("orders", 1);
        b.fleet("orders").streak == 0
    });
    within(2 * T, "A knows that the streak ended", || a.look("orders").streak == 0);

    a.fail("orders", 2);
    assert_eq!(a.fleet("orders").streak, 2);
    assert_eq!(a.state("orders"), State::Closed);
    a.fail("orders", 1);
    assert_eq!(a.state("orders"), State::Open);
    within_t("B is open", || b.is("orders", State::Open));
}

#[test]
fn success_shortly_after_anothers_failures_ends_the_streak() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, "orders", &json!({"failure_threshold": 1000}));
    for round in 1..=15 {
        a.fail("orders", 2);
        // Shorter than the pace of exchanges, longer than the uncertainty of the clock skew on a busy
        // machine.
        std::thread::sleep(Duration::from_millis(80));
        b.succeed("orders", 1);
        within_t("both have reported", || {
            let (on_a, on_b) = (a.fleet("orders"), b.fleet("orders"));
            on_a == on_b && (on_b.failures, on_b.successes) == (2 * round, round)
        });
        // The first rounds only measure the clock skew to Redis.
        assert!(round <= 5 || a.fleet("orders").streak == 0, "round {round}");
    }
}

#[test]
fn failures_of_five_instances_add_up() {
    let redis = RedisServer::start();
    let fleet: [Instance; 5] = instances(&redis, "orders", &json!({"failure_threshold": 10}));

    for turn in 0..8 {
        fleet[turn % 5].fail("orders", 1);
    }
    within_t("the fleet's count is 8", || fleet.each_ref().map(|i| i.fleet("orders").streak) == [8; 5]);
    for instance in &fleet {
        assert_eq!(instance.state("orders"), State::Closed);
    }
    for turn in 8..10 {
        fleet[turn % 5].fail("orders", 1);
    }
    within_t("all are open", || fleet.iter().all(|i| i.is("orders", State::Open)));
}

#[test]
fn concurrent_failures_are_counted_exactly() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, "orders", &json!({"failure_threshold": 1000}));

    let group = a.hold("orders", 25);
    within_t("25 calls are in flight", || a.progress(group).ran == 25);
    assert_eq!(a.finish(group, Act::Fail).failed(), 25);

    assert_eq!(a.look("orders").failures, 25);
    let fleet = a.fleet("orders");
    assert_eq!((fleet.failures, fleet.streak, fleet.successes), (25, 25, 0));
    assert_eq!(b.fleet("orders"), fleet);
}

#[test]
fn concurrent_failures_trip_exactly_at_the_threshold() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, "orders", &json!({"failure_threshold": 25}));

    let group = a.hold("orders", 24);
    within_t("24 calls are in flight", || a.progress(group).ran == 24);
    a.finish(group, Act::Fail);
    assert_eq!(a.fleet("orders").failures, 24);
    assert_eq!(a.state("orders"), State::Closed);
    b.fail("orders", 1);
    within_t("both are open", || a.is("orders", State::Open) && b.is("orders", State::Open));
}

/// Makes calls with these outcomes, in this order, on the instances in turn.
fn deal(instances: &[Instance], outcomes: &str) {
    for (turn, outcome) in outcomes.chars().enumerate() {
        let instance = &instances[turn % instances.len()];
        match outcome {
            'S' => instance.succeed("orders", 1),
            _ => instance.fail("orders", 1),
        };
    }
}

const RATE: &str = r#"{"failure_rate_threshold": 0.4, "window": "60s", "minimum_calls": 10}"#;

fn rate_opens<const N: usize>(outcomes: &str) {
    let redis = RedisServer::start();
    let fleet: [Instance; N] = instances(&redis, "orders", &serde_json::from_str(RATE).unwrap());
    deal(&fleet, outcomes);
    within_t(&format!("{outcomes} opens all {N}"), || fleet.iter().all(|i| i.is("orders", State::Open)));
    assert!(fleet[0].look("orders").reason.contains("40.0 %"), "{}", fleet[0].look("orders").reason);
}

fn rate_stays_closed<const N: usize>(outcomes: &str) {
    let redis = RedisServer::start();
    let fleet: [Instance; N] = instances(&redis, "orders", &serde_json::from_str(RATE).unwrap());
    deal(&fleet, outcomes);
    let failures = outcomes.matches('F').count() as u64;
    let successes = outcomes.matches('S').count() as u64;
    // After two rounds every instance has reported its counts and received those of all others, so an
    // instance that would trip has tripped.
    for _ in 0..2 {
        for instance in &fleet {
            let _ = instance.fleet("orders");
        }
    }
    for instance in &fleet {
        let counts = instance.fleet("orders");
        assert_eq!((counts.failures, counts.successes), (failures, successes), "{outcomes}");
        assert_eq!((counts.state, counts.epoch), (State::Closed, 0), "{outcomes}");
        assert_eq!(instance.state("orders"), State::Closed, "{outcomes}");
    }
}

#[test]
fn rate_trips_at_its_limit_in_any_order_of_calls() {
    rate_opens::<1>("SSSSSSFFFF");
    rate_opens::<1>("FFFFSSSSSS");
}

#[test]
fn rate_is_evaluated_over_all_instances() {
    rate_opens::<2>("SSSSSSFFFF");
    rate_opens::<2>("FSFSFSFSSS");
}

#[test]
fn rate_below_its_limit_or_minimum_calls_stays_closed() {
    rate_stays_closed::<1>("SSSSSSSFFF");
    rate_stays_closed::<1>("FFFFFFFFF");
    rate_stays_closed::<2>("SSSSSSSFFF");
    rate_stays_closed::<2>("FFFFFFFFF");
}

async fn outcome(breaker: &Breaker, success: bool) -> bool {
    breaker.call(async || if success { Ok(()) } else { Err("broken") }).await.is_ok()
}

#[tokio::test]
async fn outcomes_expire_from_the_time_window() {
    let (clock, hands) = Clock::manual();
    let registry = Registry::builder().clock(clock).build().unwrap();
    let config =
        BreakerConfig::default().failure_rate_threshold(0.5).window(Duration::from_secs(10)).minimum_calls(3);
    let breaker = registry.get_or_create("orders", config);

    outcome(&breaker, false).await;
    outcome(&breaker, false).await;
    hands.advance(Duration::from_secs(11));
    outcome(&breaker, false).await;
    outcome(&breaker, false).await;
    registry.fleet().await.unwrap();
    assert_eq!(breaker.snapshot().window.unwrap().calls, 2);
    assert_eq!(breaker.state(), State::Closed);

    hands.advance(Duration::from_secs(9));
    outcome(&breaker, false).await;
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn outcomes_expire_from_the_shared_time_window_in_real_time() {
    let redis = RedisServer::start();
    let config = json!({"failure_rate_threshold": 0.5, "window": "10s", "minimum_calls": 3});
    let [a, b] = instances(&redis, "orders", &config);

    a.fail("orders", 1);
    b.fail("orders", 1);
    within_t("both failures are reported", || [&a, &b].iter().all(|i| i.fleet("orders").failures == 2));
    // The test needs real time to pass.
    std::thread::sleep(Duration::from_millis(11_100));
    a.fail("orders", 1);
    b.fail("orders", 1);
    for instance in [&a, &b, &a, &b] {
        assert_eq!(instance.fleet("orders").state, State::Closed);
    }
    assert_eq!((a.state("orders"), b.state("orders")), (State::Closed, State::Closed));
    a.fail("orders", 1);
    within_t("both are open", || a.is("orders", State::Open) && b.is("orders", State::Open));
}

#[test]
fn ignored_outcomes_do_not_count_and_do_not_end_a_streak() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    a.configure(Function::Plain, json!({"failure_threshold": 3}));

    for act in [Act::Fail, Act::FailIgnored, Act::Fail, Act::FailIgnored] {
        a.run(Function::Plain, 1, act);
    }
    assert_eq!(a.run(Function::Plain, 1, Act::FailIgnored), Ended::Ignored);
    let fleet = a.fleet("plain");
    assert_eq!((fleet.failures, fleet.successes, fleet.streak), (2, 0, 2));
    assert_eq!(a.state("plain"), State::Closed);

    assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    assert_eq!(a.state("plain"), State::Open);
}

#[test]
fn panic_counts_as_a_failure_and_unwinds() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    a.create("orders", json!({"failure_threshold": 2}));
    assert_eq!(a.call("orders", Act::Panic, 1).ended, [Ended::Panicked]);
    assert_eq!(a.fleet("orders").failures, 1);
    assert_eq!(a.call("orders", Act::Panic, 1).ended, [Ended::Panicked]);
    assert_eq!(a.state("orders"), State::Open);

    a.configure(Function::Plain, json!({"failure_threshold": 1}));
    assert_eq!(a.run(Function::Plain, 1, Act::Panic), Ended::Panicked);
    assert_eq!(a.state("plain"), State::Open);
}

#[test]
fn breakers_and_namespaces_are_independent() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 2});
    let [x, y] = ["x", "y"].map(|namespace| {
        let instance = Instance::in_namespace(&redis.url(), namespace);
        instance.create("a", config.clone());
        instance.create("b", config.clone());
        instance
    });
    let witness = Instance::in_namespace(&redis.url(), "x");
    for name in ["a", "b"] {
        witness.create(name, config.clone());
    }

    x.fail("a", 1);
    x.fail("b", 1);
    y.fail("a", 1);
    assert_eq!(
        [x.fleet("a").streak, x.fleet("b").streak, y.fleet("a").streak, y.fleet("b").streak],
        [1, 1, 1, 0]
    );
    x.fail("a", 1);
    // Once the witness has the transition, y would have it, too.
    within_t("x's a is open", || witness.is("a", State::Open));
    assert_eq!(x.state("b"), State::Closed);
    assert_eq!(witness.state("b"), State::Closed);
    assert_eq!([y.fleet("a").state, y.fleet("b").state], [State::Closed; 2]);
    assert_eq!([y.state("a"), y.state("b")], [State::Closed; 2]);
    assert!(y.events().is_empty(), "{:?}", y.events());
}

#[test]
fn ambiguous_namespace_and_breaker_names_do_not_collide() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 1});
    let pairs = [("x", "a:b"), ("x:a", "b"), ("x}:a", "b"), ("x", "}:a:b"), ("x}", "a:b"), ("{x", "a:b")];
    let fleet = pairs.map(|(namespace, breaker)| {
        let instance = Instance::in_namespace(&redis.url(), namespace);
        instance.create(breaker, config.clone());
        instance
    });
    for (turn, (opener, (_, opened))) in fleet.iter().zip(&pairs).enumerate() {
        opener.fail(opened, 1);
        assert_eq!(opener.fleet(opened).state, State::Open);
        for (instance, (namespace, breaker)) in fleet.iter().zip(&pairs).skip(turn + 1) {
            assert_eq!(instance.fleet(breaker).state, State::Closed, "{namespace}, {breaker}");
        }
    }
}

#[test]
fn trip_is_not_masked_by_constant_successes_elsewhere() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis, "orders", &json!({"failure_threshold": 3, "reset_timeout": "1h"}));
    for round in 1..=20 {
        let traffic = b.traffic("orders", Act::Succeed(None), Duration::from_micros(200));
        within_t("traffic flows", || b.progress(traffic).ended.len() >= 10);
        a.fail("orders", 3);
        assert_eq!(a.state("orders"), State::Open, "round {round}");
        within_t("B is rejected", || b.progress(traffic).rejected() > 0);
        b.finish(traffic, Act::Succeed(None));
        a.steer("orders", &common::protocol::Override::Reset);
        within_t("both are closed", || a.is("orders", State::Closed) && b.is("orders", State::Closed));
    }
    assert_eq!(a.look("orders").epoch, 40);
}
