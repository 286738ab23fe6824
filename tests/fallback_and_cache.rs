//! What a caller gets in place of a result, across processes.
//!
//! TTLs, damaged entries, `None` as a result, an absent or frozen store, and the number of writes are tested
//! in `cache` and in `cb-runtime/tests/cache_on_redis.rs`.

mod common;

use std::time::{Duration, Instant};

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::json;

use common::protocol::{Act, Calls, Ended, Event, Function, Request, Target};
use common::{Instance, within_t};

fn good(text: &str) -> Act {
    Act::Succeed(Some(text.into()))
}

/// Two instances that have this function, with this threshold.
fn two(redis: &RedisServer, function: Function, threshold: u32) -> [Instance; 2] {
    [(); 2].map(|()| {
        let instance = Instance::on(&redis.url());
        let config = json!({"failure_threshold": threshold, "reset_timeout": "1h"});
        instance.configure_cached(function, config, Duration::from_secs(600));
        instance
    })
}

/// Waits until the store has what `cached` was given last: writing is off the call path.
fn written(redis: &RedisServer, entries: usize) {
    within_t("the cached results are written", || cache_keys(redis).len() == entries);
}

/// The keys of cached results: the only ones without the namespace as a hash tag.
fn cache_keys(redis: &RedisServer) -> Vec<String> {
    let mut keys = Vec::new();
    for key in redis.command(&["KEYS", "cb1:*"]).items() {
        let key = key.text();
        if !key.starts_with("cb1:{") {
            keys.push(key);
        }
    }
    keys
}

#[test]
fn fallback_gets_the_arguments_and_open_circuit_does_not_run_the_function() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, Function::Shown, 3);

    assert_eq!(a.run(Function::Shown, 7, good("fresh")), Ended::value("fresh"));
    for id in 1..=3 {
        assert_eq!(a.state("shown"), State::Closed);
        let ended = a.run(Function::Shown, id, Act::Fail);
        assert_eq!(ended, Ended::value(&format!("fallback({id}, tag-{id})")));
    }
    assert_eq!(a.state("shown"), State::Open);
    let target = || Target::Function(Function::Shown, 8);
    let calls: Calls = a.ask(&Request::Call { target: target(), act: good("fresh"), times: 5 });
    assert_eq!(calls.ran, 0);
    assert!(calls.ended.iter().all(|ended| *ended == Ended::value("fallback(8, tag-8)")), "{calls:?}");

    within_t("B rejects", || {
        let calls: Calls = b.ask(&Request::Call { target: target(), act: good("fresh"), times: 1 });
        calls.ran == 0 && calls.ended == [Ended::value("fallback(8, tag-8)")]
    });
}

#[test]
fn fallback_may_take_the_reason() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    a.configure(Function::Reasoned, json!({"failure_threshold": 2, "call_timeout": "1s"}));

    assert_eq!(a.run(Function::Reasoned, 1, Act::Fail), Ended::value("fallback(1): failed"));
    let late = Act::After(60_000, Box::new(good("late")));
    assert_eq!(a.run(Function::Reasoned, 2, late), Ended::value("fallback(2): timed out"));
    assert_eq!(a.run(Function::Reasoned, 3, good("fresh")), Ended::value("fallback(3): rejected"));
}

#[test]
fn without_a_fallback_the_caller_gets_the_functions_error_or_the_breakers() {
    let redis = RedisServer::start();
    let [a, b] = [(); 2].map(|()| {
        let instance = Instance::on(&redis.url());
        instance.configure(Function::Plain, json!({"failure_threshold": 2, "reset_timeout": "20s"}));
        instance
    });
    assert_eq!(b.run(Function::Plain, 1, good("fresh")), Ended::value("fresh"));

    let before = Instant::now();
    assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    assert_eq!(a.run(Function::Plain, 1, Act::Fail), Ended::Failed);
    within_t("B is open", || b.is("plain", State::Open));
    for instance in [&a, &b, &a] {
        let Ended::Rejected { retry_after_us: Some(left) } = instance.run(Function::Plain, 1, good("fresh"))
        else {
            panic!("not rejected with a time");
        };
        let left = Duration::from_micros(left);
        let reset = Duration::from_secs(20);
        assert!(left <= reset, "{left:?}");
        // Instances and Redis measure on different clocks; they differ by far less than this.
        assert!(left + before.elapsed() + Duration::from_millis(20) >= reset, "{left:?}");
    }
}

#[test]
fn success_on_one_instance_answers_a_failure_on_another() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, Function::Cached, 100);

    assert_eq!(a.run(Function::Cached, 1, good("one")), Ended::value("one"));
    written(&redis, 1);
    assert_eq!(b.run(Function::Cached, 1, Act::Fail), Ended::value("one"));
    assert!(
        b.events().iter().any(
            |event| matches!(event, Event::CacheHit { breaker, shared: true, .. } if breaker == "cached")
        ),
        "{:?}",
        b.events()
    );
    // Never memoization: a call that can be made is made.
    assert_eq!(b.run(Function::Cached, 1, good("two")), Ended::value("two"));
    assert_eq!(b.fleet("cached").failures, 1);
}

#[test]
fn cached_result_answers_rejected_calls_everywhere() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, Function::Cached, 2);

    assert_eq!(a.run(Function::Cached, 1, good("one")), Ended::value("one"));
    written(&redis, 1);
    b.falls_back(Function::Cached, 2, Act::Fail);
    b.falls_back(Function::Cached, 2, Act::Fail);
    within_t("A is open", || a.is("cached", State::Open));
    for instance in [&a, &b] {
        let target = Target::Function(Function::Cached, 1);
        let calls: Calls = instance.ask(&Request::Call { target, act: good("fresh"), times: 3 });
        assert_eq!(calls.ran, 0);
        assert_eq!(calls.ended, vec![Ended::value("one"); 3]);
        instance.falls_back(Function::Cached, 3, good("fresh"));
    }
    let c = Instance::on(&redis.url());
    assert_eq!(c.run(Function::Cached, 1, good("fresh")), Ended::value("one"), "a newcomer");
}

#[test]
fn arguments_functions_and_receivers_do_not_share_results() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, Function::Cached, 100);
    for instance in [&a, &b] {
        instance.configure(Function::FirstShard, json!({"failure_threshold": 100}));
    }

    a.run(Function::Cached, 1, good("cached 1"));
    a.run(Function::FirstShard, 1, good("shard 1"));
    written(&redis, 2);
    for instance in [&a, &b] {
        instance.falls_back(Function::Cached, 2, Act::Fail);
        instance.falls_back(Function::Twin, 1, Act::Fail);
        instance.falls_back(Function::SecondShard, 1, Act::Fail);
        instance.falls_back(Function::FirstShard, 2, Act::Fail);
        assert_eq!(instance.run(Function::Cached, 1, Act::Fail), Ended::value("cached 1"));
        assert_eq!(instance.run(Function::FirstShard, 1, Act::Fail), Ended::value("shard 1"));
    }
}

#[test]
fn namespaces_do_not_share_results() {
    let redis = RedisServer::start();
    let [x, y] = ["x", "y"].map(|namespace| Instance::in_namespace(&redis.url(), namespace));
    x.run(Function::Cached, 1, good("x's"));
    written(&redis, 1);
    y.falls_back(Function::Cached, 1, Act::Fail);
}

#[test]
fn errors_and_fallback_values_are_never_cached() {
    let redis = RedisServer::start();
    let [a, b] = two(&redis, Function::Cached, 3);
    a.falls_back(Function::Cached, 1, Act::Fail);
    assert_eq!(a.run(Function::Cached, 1, Act::Panic), Ended::Panicked);
    a.falls_back(Function::Cached, 1, Act::Fail);
    assert_eq!(a.state("cached"), State::Open);
    a.falls_back(Function::Cached, 1, good("fresh"));

    // What the queue of writes holds is written before this.
    a.run(Function::FirstShard, 1, good("fence"));
    written(&redis, 1);
    b.falls_back(Function::Cached, 1, Act::Fail);
    a.falls_back(Function::Cached, 1, Act::Fail);
}
