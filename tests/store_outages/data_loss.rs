//! Redis loses its data, or its scripts.

use std::array;

use cb_runtime::State;
use cb_testkit::RedisServer;

use crate::common::protocol::Override;
use crate::common::{Instance, within_t};
use crate::{NAME, all, instance, instances, threshold};

#[test]
fn open_state_survives_an_emptied_store() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.fail(NAME, 2);
    all(&[&a, &b], State::Open);

    for round in 1..=3 {
        redis.cli(&["FLUSHALL"]);
        // This instance never saw the epoch before the loss.
        within_t("a new instance finds it open", || {
            let c = instance(&redis.url(), &threshold(2));
            let seen = c.look(NAME);
            seen.state == State::Open && seen.epoch == 1 && c.succeed(NAME, 1).all_rejected()
        });
        for instance in [&a, &b] {
            let seen = instance.look(NAME);
            assert_eq!((seen.state, seen.epoch, seen.local), (State::Open, 1, false), "round {round}");
            assert!(seen.retry_after_us.unwrap() > 3_500_000_000, "{seen:?}");
            assert!(instance.succeed(NAME, 1).all_rejected());
        }
    }
    // Later transitions arrive although the stream was lost, too.
    b.steer(NAME, &Override::Reset);
    all(&[&a, &b], State::Closed);
    assert_eq!(a.look(NAME).epoch, 2);
    b.fail(NAME, 2);
    all(&[&a, &b], State::Open);
}

#[test]
fn forced_open_state_survives_an_emptied_store() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.steer(NAME, &Override::ForceOpen("maintenance".into()));
    all(&[&a, &b], State::ForcedOpen);
    redis.cli(&["FLUSHALL"]);
    within_t("a new instance finds it forced open", || {
        let seen = instance(&redis.url(), &threshold(2)).look(NAME);
        seen.state == State::ForcedOpen && seen.reason == "maintenance"
    });
    assert_eq!((a.state(NAME), b.state(NAME)), (State::ForcedOpen, State::ForcedOpen));
}

#[test]
fn open_state_survives_a_store_that_restarts_empty() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.fail(NAME, 2);
    all(&[&a, &b], State::Open);
    redis.restart();
    within_t("a new instance finds it open", || {
        instance(&redis.url(), &threshold(2)).look(NAME).state == State::Open
    });
    all(&[&a, &b], State::Open);
    assert_eq!((a.look(NAME).epoch, b.look(NAME).epoch), (1, 1));
}

#[test]
fn counting_continues_after_the_store_is_emptied() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(3));
    a.fail(NAME, 2);
    assert_eq!(a.fleet(NAME).streak, 2);
    redis.cli(&["FLUSHALL"]);
    a.fail(NAME, 3);
    assert_eq!(a.state(NAME), State::Open);
    all(&[&a, &b], State::Open);
}

#[test]
fn flushed_scripts_are_reloaded_without_an_error() {
    let redis = RedisServer::start();
    // A busy machine must not look like a lost store.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cb.toml");
    std::fs::write(&file, "response_timeout = \"2s\"").expect("it is written");
    let [a, b]: [Instance; 2] = array::from_fn(|_| {
        let instance = Instance::configured(&redis.url(), &file, &[]);
        instance.create(NAME, threshold(4));
        instance
    });
    for failures in 1..=3 {
        redis.cli(&["SCRIPT", "FLUSH"]);
        a.fail(NAME, 1);
        assert_eq!(a.fleet(NAME).streak, failures);
    }
    redis.cli(&["SCRIPT", "FLUSH"]);
    b.fail(NAME, 1);
    all(&[&a, &b], State::Open);
    for instance in [&a, &b] {
        let errors = instance.errors();
        assert!(!errors.iter().any(|error| error.text.contains("NOSCRIPT")), "{errors:?}");
    }
}
