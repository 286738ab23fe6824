//! Servers of another make or version than the one that all other tests use.

mod common;

use std::sync::mpsc;
use std::time::Duration;

use cb_runtime::{BreakerConfig, Event, Registry, State};
use cb_testkit::{RedisServer, wait_until};

use common::{PATIENCE, block_on};

/// Every script and every kind of key: all rules, an opening, a probe, an override, a data loss.
fn shares_everything(redis: &RedisServer) {
    let config = BreakerConfig::default()
        .failure_threshold(3)
        .failure_rate_threshold(0.9)
        .window(Duration::from_secs(60))
        .slow_call_duration(Duration::from_secs(1))
        .slow_call_rate_threshold(0.9)
        .min_failing_instances(1)
        .reset_timeout(Duration::from_millis(300))
        .half_open_max_calls(1)
        .success_threshold(1);
    let instance = || {
        let registry = Registry::builder().redis(redis.url()).namespace("make").build().expect("a registry");
        let breaker = registry.get_or_create("orders", config.clone());
        (registry, breaker)
    };
    let ((first, a), (_second, b)) = (instance(), instance());
    let all = |state| wait_until(PATIENCE, "both agree", || a.state() == state && b.state() == state);
    let call = |result: Result<(), ()>| block_on(b.call(async || result));

    block_on(a.call(async || Ok::<(), ()>(()))).expect("closed");
    for _ in 0..3 {
        let _ = call(Err(()));
    }
    all(State::Open);
    redis.cli(&["SCRIPT", "FLUSH"]);
    redis.cli(&["FLUSHALL"]);
    wait_until(PATIENCE, "a probe closes the circuit", || call(Ok(())).is_ok());
    all(State::Closed);
    block_on(a.disable("maintenance")).expect("the store has the override");
    all(State::Disabled);
    block_on(b.release()).expect("the store has the release");
    all(State::Closed);

    let rows = block_on(first.fleet()).expect("the fleet's breakers");
    assert_eq!((rows.len(), rows[0].state), (1, State::Closed));
    let last = rows[0].epoch;
    assert_eq!(last, a.snapshot().epoch);
    assert_eq!(last, b.snapshot().epoch);
}

/// A server without memory refuses writes. An instance that has nothing to write stays connected, and reads.
fn can_be_read_without_memory(redis: &RedisServer) {
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let reader = Registry::builder().redis(redis.url()).namespace("make").build().expect("a registry");
    let mut events = reader.subscribe();
    wait_until(PATIENCE, "the fleet is read", || block_on(reader.fleet()).is_ok_and(|rows| rows.len() == 1));
    let loss = async { while !matches!(events.recv().await, Some(Event::StoreLost(_)) | None) {} };
    // It asks for the store every 0.7 s.
    assert!(block_on(async { tokio::time::timeout(Duration::from_secs(2), loss).await }).is_err());
}

/// A permission that a script lacks is reported with the page that lists the permissions.
fn denial_refers_to_the_documentation(redis: &RedisServer) {
    redis.cli(&["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-publish"]);
    let (sender, errors) = mpsc::channel();
    let registry = Registry::builder()
        .redis(format!("redis://u:p@127.0.0.1:{}", redis.port()))
        .namespace("denied")
        .on_error(move |error| drop(sender.send(error.to_string())))
        .build()
        .expect("a registry");
    block_on(registry.control("orders").force_open("test")).expect("the store has the override");
    let error = errors.recv_timeout(PATIENCE).expect("an error");
    assert!(error.contains("publish") && error.contains("docs/redis.md"), "{error}");
}

/// An instance whose server has become a replica connects anew: its address may lead to the new master.
fn replica_is_left(redis: &RedisServer) {
    let registry = Registry::builder().redis(redis.url()).namespace("make").build().expect("a registry");
    block_on(registry.fleet()).expect("it is connected");
    // A replica of a master that does not answer keeps its data and refuses writes.
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let connections = || redis.info("stats", "total_connections_received");
    let before = connections();
    wait_until(PATIENCE, "it connects anew", || connections() != before);
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
}

#[test]
fn valkey_serves_a_fleet() {
    let redis = RedisServer::start_installed("valkey");
    shares_everything(&redis);
    denial_refers_to_the_documentation(&redis);
    replica_is_left(&redis);
    can_be_read_without_memory(&redis);
}

#[test]
fn redis_6_2_serves_a_fleet() {
    let redis = RedisServer::start_installed("redis-6.2");
    shares_everything(&redis);
    denial_refers_to_the_documentation(&redis);
    replica_is_left(&redis);
    can_be_read_without_memory(&redis);
}
