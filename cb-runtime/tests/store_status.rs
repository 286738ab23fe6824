//! Whether the store answers: from memory, and as a condition of starting.

mod common;

use std::time::Duration;

use cb_runtime::{Registry, StoreStatus};
use cb_testkit::{PATIENCE, RedisServer, wait_until};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn status_follows_the_store() {
    let redis = RedisServer::start();
    let registry = Registry::builder().redis(redis.url()).build().unwrap();
    let StoreStatus::Connected { since } = registry.store_status() else {
        panic!("{:?}", registry.store_status())
    };
    redis.stop();
    wait_until(PATIENCE, "it is lost", || !registry.store_status().is_up());
    let StoreStatus::Lost { since: lost, error } = registry.store_status() else { panic!("it is lost") };
    assert!(lost >= since && error.is_store(), "{lost:?} {error}");
    let json = serde_json::to_value(registry.store_status()).unwrap();
    assert_eq!((&json["status"], &json["error"]["kind"]), (&"lost".into(), &"store".into()));
    redis.restart();
    wait_until(PATIENCE, "it is back", || registry.store_status().is_up());
    let StoreStatus::Connected { since: back } = registry.store_status() else { panic!("it is back") };
    assert!(back >= lost);
}

#[tokio::test]
async fn registry_that_is_shut_down_has_no_store() {
    let registry = Registry::builder().build().unwrap();
    assert!(matches!(registry.store_status(), StoreStatus::InMemory));
    registry.shutdown().await;
    assert!(!registry.store_status().is_up());
}

#[test]
fn with_a_connect_timeout_a_store_that_does_not_answer_stops_the_start() {
    let redis = RedisServer::start();
    redis.stop();
    let error = Registry::builder().redis(redis.url()).connect_timeout(SECOND).build().unwrap_err();
    assert!(error.is_store(), "{error}");
    // Without it, the registry serves.
    Registry::builder().redis(redis.url()).build().unwrap();
}

#[test]
fn with_a_connect_timeout_a_wrong_password_or_database_stops_the_start() {
    let redis = RedisServer::start();
    redis.cli(&["CONFIG", "SET", "requirepass", "right"]);
    let build =
        |url: String| Registry::builder().redis(url).connect_timeout(PATIENCE.min(2 * SECOND)).build();
    let with = |user: &str, database: &str| format!("redis://{user}127.0.0.1:{}/{database}", redis.port());
    let error = build(with(":wrong@", "0")).unwrap_err();
    assert!(error.is_store() && error.to_string().contains("Password authentication failed"), "{error}");
    let error = build(with(":right@", "99")).unwrap_err();
    assert!(error.is_store() && error.to_string().contains("DB index"), "{error}");
    build(with(":right@", "0")).unwrap();
}

#[test]
fn connect_timeout_of_zero_is_an_error() {
    let error = Registry::builder().connect_timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.field(), Some("connect_timeout"));
}

#[test]
fn node_is_the_given_name_or_the_host() {
    let registry = Registry::builder().node("rack-7").build().unwrap();
    assert_eq!(registry.node(), "rack-7");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(Registry::builder().build().unwrap().node(), host.trim());
}
