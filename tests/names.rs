//! Very many breakers in one process: names that are made of arguments, and what a breaker costs.

mod common;

use std::time::Duration;

use cb_runtime::State;
use cb_testkit::{RedisServer, Reply};
use serde_json::json;

use common::protocol::{Act, Calls, Ended, ErrorReport, Function, Request};
use common::{Instance, T, within, within_t};

/// As many breakers with names made of arguments as a registry has by default.
const PLACES: usize = 10_000;
/// What one breaker may take of a process' memory.
const BREAKER: u64 = 10 * 1024;
/// What else may grow meanwhile: results on their way to the test, buffers, the allocator's reserves.
const SLACK: u64 = 24 * 1024 * 1024;

const OTHER: &str = "orders";

/// Bytes of a process that are in memory.
fn memory(instance: &Instance) -> u64 {
    let pid = instance.pid().to_string();
    let said = std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid]).output();
    let said = said.expect("ps can be run; install procps");
    let kilobytes = String::from_utf8_lossy(&said.stdout).trim().parse::<u64>();
    kilobytes.expect("ps prints the resident set's size") * 1024
}

fn registered(instance: &Instance) -> usize {
    instance.ask(&Request::Registered)
}

/// Calls the function for a thousand tenants.
fn thousand(instance: &Instance, thousand: u64) {
    let (function, act) = (Function::Tenant, Act::Succeed(None));
    let calls: Calls = instance.ask(&Request::Each { function, first: thousand * 1000, count: 1000, act });
    assert_eq!((calls.ran, calls.ended.len()), (1000, 1000));
    assert!(calls.ended.iter().all(|ended| *ended == Ended::Value(None)));
}

/// What A finds out, B learns, and what B is told, A.
fn heard_by_each_other(a: &Instance, b: &Instance) {
    assert!(a.fail(OTHER, 3).ran == 3 && a.call(OTHER, Act::Succeed(None), 1).all_rejected());
    within_t("B is open", || b.is(OTHER, State::Open));
    b.steer(OTHER, &common::protocol::Override::Reset);
    within_t("A is closed", || a.is(OTHER, State::Closed));
}

#[test]
fn a_hundred_thousand_names_neither_exhaust_memory_nor_slow_other_breakers() {
    let redis = RedisServer::start();
    let [a, b] = [(); 2].map(|()| {
        let instance = Instance::on(&redis.url());
        instance.create(OTHER, json!({"failure_threshold": 3, "reset_timeout": "1h"}));
        instance
    });
    let empty = memory(&a);
    let mut full = 0;
    let told = |names: u64| {
        redis.cli(&["ZCOUNT", "cb1:{tests}:names", "-inf", "+inf"]).parse::<u64>().unwrap() >= names
    };
    for number in 0..100 {
        // As fast as they can be told to the store: all are guarded.
        within_t("the store knows every name", || told(number * 1000));
        within_t("there are places for more", || registered(&a) <= PLACES - 1000);
        thousand(&a, number);
        if number % 10 == 9 {
            heard_by_each_other(&a, &b);
        }
        if number == 19 {
            full = memory(&a);
        }
    }
    within_t("the store knows every name", || told(100_001));
    // On a busy machine an exchange may take too long, and is told again.
    let others = |trouble: &ErrorReport| !trouble.is_store;
    assert_eq!(a.errors().into_iter().filter(others).collect::<Vec<_>>(), []);

    // And faster than that.
    for number in 100..140 {
        thousand(&a, number);
        if number % 10 == 9 {
            heard_by_each_other(&a, &b);
        }
        assert!(registered(&a) <= PLACES + 1, "{}", registered(&a));
    }
    let end = memory(&a);
    eprintln!("memory: {empty} without names, {full} after 20,000, {end} after 140,000");
    assert!(full - empty < PLACES as u64 * BREAKER, "{empty} → {full}");
    assert!(end < full + SLACK, "{full} → {end}");
    within(5 * T, "there are places again", || registered(&a) <= PLACES - 1000);
    let tenant = |act| a.run(Function::Tenant, 1_000_000, act);
    for _ in 0..5 {
        assert_eq!(tenant(Act::Fail), Ended::Failed);
    }
    assert!(tenant(Act::Fail).is_rejected());
}

#[test]
fn a_breaker_takes_less_than_ten_kilobytes() {
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
    // What the process takes for itself.
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
fn a_thousand_idle_breakers_are_all_about_to_leave_the_store() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    thousand(&a, 0);
    within_t("the store knows all", || redis.cli(&["ZCARD", "cb1:{tests}:names"]) == "1000");
    let left = |key: &str| match redis.command(&["PTTL", key]) {
        Reply::Number(left) => left,
        other => panic!("{other:?}"),
    };
    let keys = redis.cli(&["KEYS", "cb1:{tests}:b:*"]);
    let ends: Vec<_> = keys.lines().map(|key| (key, left(key))).collect();
    assert_eq!(ends.len(), 1000);
    assert!(ends.iter().all(|(_, left)| (1..=3_600_000).contains(left)), "{ends:?}");
    // An instance that has nothing to say of them, and lives, does not prolong their lives.
    let (first, at) = ends[0];
    let heartbeat = Duration::from_secs(6);
    within(heartbeat, "a heartbeat later", || left(first) + 6000 < at);
    for (key, before) in &ends {
        assert!(left(key) + 5000 < *before, "{key} lives on");
    }
    for key in redis.cli(&["KEYS", "*"]).lines() {
        assert!((1..=3_600_000).contains(&left(key)), "{key} has no end");
    }
}
