//! Many breakers in one process: keyed breakers, and the memory of a breaker.

mod common;

use std::time::Duration;

use cb_runtime::State;
use cb_testkit::{RedisServer, Reply};
use serde_json::json;

use common::protocol::{Act, Calls, Ended, ErrorReport, Function, Request};
use common::{Instance, T, within, within_t};

/// The default limit of keyed breakers.
const MAX_KEYED: usize = 10_000;
/// The limit of one breaker's memory, in bytes.
const BREAKER: u64 = 10 * 1024;
/// The limit of other growth: results for the test, buffers, and the allocator's reserves.
const SLACK: u64 = 24 * 1024 * 1024;

const OTHER: &str = "orders";

/// The resident memory of an instance, in bytes.
fn memory(instance: &Instance) -> u64 {
    let pid = instance.pid().to_string();
    let output = std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid]).output();
    let output = output.expect("ps can be run; install procps");
    let kilobytes = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>();
    kilobytes.expect("ps prints the resident set's size") * 1024
}

fn registered(instance: &Instance) -> usize {
    instance.ask(&Request::Registered)
}

/// Calls the function for the n-th thousand tenants.
fn call_a_thousand(instance: &Instance, thousand: u64) {
    let (function, act) = (Function::Tenant, Act::Succeed(None));
    let calls: Calls = instance.ask(&Request::Each { function, first: thousand * 1000, count: 1000, act });
    assert_eq!((calls.ran, calls.ended.len()), (1000, 1000));
    assert!(calls.ended.iter().all(|ended| *ended == Ended::Value(None)));
}

/// Asserts that a transition of each instance reaches the other.
fn assert_transitions_propagate(a: &Instance, b: &Instance) {
    assert!(a.fail(OTHER, 3).ran == 3 && a.call(OTHER, Act::Succeed(None), 1).all_rejected());
    within_t("B is open", || b.is(OTHER, State::Open));
    b.steer(OTHER, &common::protocol::Override::Reset);
    within_t("A is closed", || a.is(OTHER, State::Closed));
}

#[test]
fn hundred_thousand_names_exhaust_no_memory_and_delay_no_other_breaker() {
    let redis = RedisServer::start();
    let [a, b] = [(); 2].map(|()| {
        let instance = Instance::on(&redis.url());
        instance.create(OTHER, json!({"failure_threshold": 3, "reset_timeout": "1h"}));
        instance
    });
    let empty = memory(&a);
    let mut full = 0;
    // Keys of names that only succeeded: there must be none.
    let keys = || -> Vec<String> {
        let keys = redis.command(&["KEYS", "*tenant*"]).items();
        keys.iter().map(Reply::text).collect()
    };
    for number in 0..100 {
        // At a rate at which names are reported and evicted in time, all calls are guarded.
        within_t("there is room for more", || registered(&a) <= MAX_KEYED - 1000);
        call_a_thousand(&a, number);
        if number % 10 == 9 {
            assert_transitions_propagate(&a, &b);
        }
        if number == 19 {
            full = memory(&a);
        }
    }
    assert_eq!(keys(), [""; 0]);
    // On a busy machine an exchange may time out, which is reported.
    let others = |trouble: &ErrorReport| !trouble.is_store;
    assert_eq!(a.errors().into_iter().filter(others).collect::<Vec<_>>(), []);

    // At a higher rate, calls beyond the limit are unguarded.
    for number in 100..140 {
        call_a_thousand(&a, number);
        if number % 10 == 9 {
            assert_transitions_propagate(&a, &b);
        }
        assert!(registered(&a) <= MAX_KEYED + 1, "{}", registered(&a));
    }
    let end = memory(&a);
    eprintln!("memory: {empty} without names, {full} after 20,000, {end} after 140,000");
    assert!(full - empty < MAX_KEYED as u64 * BREAKER, "{empty} → {full}");
    // On a busy machine, `full` may have been measured while few breakers were registered.
    let most = empty + MAX_KEYED as u64 * BREAKER + SLACK;
    assert!(end < most, "{empty} → {full} → {end}");
    within(5 * T, "there is room again", || registered(&a) <= MAX_KEYED - 1000);
    let tenant = |act| a.run(Function::Tenant, 1_000_000, act);
    for _ in 0..5 {
        assert_eq!(tenant(Act::Fail), Ended::Failed);
    }
    assert!(tenant(Act::Fail).is_rejected());
}

#[test]
fn breaker_takes_less_than_ten_kilobytes() {
    let count = 3000;
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    let config = json!({"failure_rate_threshold": 0.5, "window": "60s", "minimum_calls": 1000});
    let used = |number: u64| {
        let name = format!("b{number}");
        a.create(&name, config.clone());
        a.succeed(&name, 3);
        a.fail(&name, 3);
    };
    // Memory that the process needs once.
    (0..100).for_each(used);
    let before = memory(&a);
    (100..100 + count).for_each(used);
    within_t("the store knows all", || {
        redis.cli(&["ZCARD", "cb1:{tests}:names"]) == (100 + count).to_string()
    });
    let each = memory(&a).saturating_sub(before) / count;
    eprintln!("{each} bytes per breaker");
    assert!(each < BREAKER, "{each} bytes per breaker");
}

#[test]
fn thousand_idle_breakers_expire_from_the_store() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    // One that only succeeded has no key of its own.
    let failing = Request::Each { function: Function::Tenant, first: 0, count: 1000, act: Act::Fail };
    assert_eq!(a.ask::<Calls>(&failing).ran, 1000);
    within_t("the store knows all", || redis.cli(&["ZCARD", "cb1:{tests}:names"]) == "1000");
    let left = |key: &str| match redis.command(&["PTTL", key]) {
        Reply::Number(left) => left,
        other => panic!("{other:?}"),
    };
    let keys = redis.cli(&["KEYS", "cb1:{tests}:b:*"]);
    let ends: Vec<_> = keys.lines().map(|key| (key, left(key))).collect();
    assert_eq!(ends.len(), 1000);
    assert!(ends.iter().all(|(_, left)| (1..=3_600_000).contains(left)), "{ends:?}");
    // An idle instance's heartbeat does not extend their TTL.
    let (first, at) = ends[0];
    let heartbeat = Duration::from_secs(6);
    within(heartbeat, "a heartbeat later", || left(first) + 6000 < at);
    for (key, before) in &ends {
        assert!(left(key) + 5000 < *before, "the TTL of {key} was extended");
    }
    let hour = 3_600_000;
    for key in redis.cli(&["KEYS", "*"]).lines() {
        // `meta` tells for a week that the rest has expired, and was not lost.
        let longest = if key.ends_with(":meta") { 7 * 24 * hour + hour } else { hour };
        assert!((1..=longest).contains(&left(key)), "{key} has no TTL");
    }
}
