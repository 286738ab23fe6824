//! Steering breakers by name, from a program that need not have them, on both stores.

mod common;

use std::time::Duration;

use cb_runtime::{BreakerConfig, Event, Registry, RegistryBuilder, State};
use cb_testkit::{PATIENCE, RedisServer, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

fn on(redis: &RedisServer) -> RegistryBuilder {
    Registry::builder().redis(redis.url())
}

fn is(registry: &Registry, name: &str, state: State) {
    let found = || registry.breaker(name).map_or(State::Closed, |breaker| breaker.state()) == state;
    wait_until(PATIENCE, &format!("{name} is {state}"), found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_has_no_breakers_steers_those_of_others() {
    let redis = RedisServer::start();
    let (watching, serving) = (on(&redis).build().unwrap(), on(&redis).build().unwrap());
    serving.get_or_create("orders", BreakerConfig::default().failure_threshold(3));
    let control = watching.control("orders").by("alice").expires_in(HOUR);

    control.force_open("migration").await.unwrap();
    is(&serving, "orders", State::ForcedOpen);
    let snapshot = serving.breaker("orders").unwrap().snapshot();
    assert_eq!((&*snapshot.reason, &*snapshot.actor), ("migration", "alice"));
    assert!(snapshot.retry_after.is_some_and(|left| left <= HOUR));

    control.disable("load test").await.unwrap();
    is(&serving, "orders", State::Disabled);
    control.metrics_only("trial").await.unwrap();
    is(&serving, "orders", State::MetricsOnly);
    control.release().await.unwrap();
    is(&serving, "orders", State::Closed);
    assert!(watching.breakers().is_empty(), "{:?}", watching.breakers());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_is_closed_by_a_reset_and_not_by_a_release() {
    let redis = RedisServer::start();
    let (watching, serving) = (on(&redis).build().unwrap(), on(&redis).build().unwrap());
    let breaker = serving.get_or_create("orders", BreakerConfig::default().failure_threshold(1));
    breaker.call(async || Err::<(), _>(())).await.unwrap_err();
    serving.fleet().await.unwrap();
    watching.control("orders").release().await.unwrap();
    assert_eq!(watching.fleet().await.unwrap()[0].state, State::Open);
    watching.control("orders").reset().await.unwrap();
    is(&serving, "orders", State::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn steering_declares_no_settings() {
    let redis = RedisServer::start();
    let (watching, serving) = (on(&redis).build().unwrap(), on(&redis).build().unwrap());
    let config = BreakerConfig::default().failure_threshold(1).reset_timeout(HOUR);
    let breaker = serving.get_or_create("orders", config);
    let mut events = serving.subscribe();
    for _ in 0..3 {
        watching.control("orders").force_open("now").await.unwrap();
        watching.control("orders").release().await.unwrap();
    }
    wait_until(PATIENCE, "every event has arrived", || breaker.snapshot().epoch == 6);
    // One that is open is also looked at through a handle, which keeps it here.
    breaker.call(async || Err::<(), _>(())).await.unwrap_err();
    serving.fleet().await.unwrap();
    is(&watching, "orders", State::Open);
    let seen = watching.breaker("orders").unwrap();
    watching.fleet().await.unwrap();
    serving.fleet().await.unwrap();
    assert_eq!(seen.state(), State::Open);
    assert_eq!(redis.cli(&["HGET", "cb1:{default}:b:orders", "settings_before"]).trim(), "");
    while let Some(event) = events.try_recv() {
        assert!(!matches!(event, Event::Error(_)), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_steering_fails_at_once() {
    let redis = RedisServer::start();
    let registry = on(&redis).build().unwrap();
    redis.stop();
    let failed = common::bounded(registry.control("orders").force_open("now")).await;
    assert!(failed.unwrap_err().is_store());
    registry.shutdown().await;
    let failed = common::bounded(registry.control("orders").force_open("now")).await;
    failed.unwrap_err();
}

#[tokio::test]
async fn the_memory_store_is_steered_alike() {
    let registry = Registry::builder().build().unwrap();
    let control = registry.control("orders");
    control.disable("off").await.unwrap();
    assert_eq!(registry.fleet().await.unwrap()[0].state, State::Disabled);
    let breaker = registry.get_or_create("orders", BreakerConfig::default().failure_threshold(1));
    assert_eq!(breaker.state(), State::Disabled, "one that is registered later has the fleet's state");
    control.by("bob").reset().await.unwrap();
    assert_eq!((breaker.state(), &*breaker.snapshot().actor), (State::Closed, "bob"));
}

/// No instance has the breaker, which is not looked at, either.
#[tokio::test(flavor = "multi_thread")]
async fn an_override_of_a_breaker_that_no_instance_has_expires() {
    let redis = RedisServer::start();
    for registry in [on(&redis).build().unwrap(), Registry::builder().build().unwrap()] {
        let control = registry.control("nobodys").expires_in(Duration::from_millis(50));
        control.force_open("a moment").await.unwrap();
        let mut history = Vec::new();
        wait_until(PATIENCE, "the override has ended", || {
            let read = tokio::runtime::Handle::current();
            history = tokio::task::block_in_place(|| read.block_on(registry.history(10))).unwrap();
            history.len() == 2
        });
        assert_eq!((history[0].to, &*history[0].reason), (State::Closed, "expired"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_that_redis_has_just_lost_can_be_released() {
    let redis = RedisServer::start();
    let watching = on(&redis).build().unwrap();
    watching.control("orders").force_open("migration").await.unwrap();
    redis.cli(&["FLUSHALL"]);
    watching.control("orders").release().await.unwrap();
    let fleet = watching.fleet().await.unwrap();
    assert_eq!((fleet[0].state, fleet[0].epoch), (State::Closed, 2), "{fleet:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_steers_a_breaker_does_not_judge_it() {
    let redis = RedisServer::start();
    let (watching, serving) = (on(&redis).build().unwrap(), on(&redis).build().unwrap());
    let breaker = serving.get_or_create("orders", BreakerConfig::default().failure_threshold(50));
    // More failures than the default allows.
    for _ in 0..20 {
        breaker.call(async || Err::<(), _>(())).await.unwrap_err();
    }
    serving.fleet().await.unwrap();
    watching.control("orders").release().await.unwrap();
    let fleet = watching.fleet().await.unwrap();
    assert_eq!(fleet[0].state, State::Closed, "{fleet:?}");
    // What it has decided would come before this.
    watching.control("orders").metrics_only("trial").await.unwrap();
    let history = watching.history(10).await.unwrap();
    assert_eq!(history.iter().map(|change| change.to).collect::<Vec<_>>(), [State::MetricsOnly]);
}

#[tokio::test]
async fn a_release_and_a_reset_keep_their_reason() {
    let registry = Registry::builder().build().unwrap();
    let control = registry.control("orders").by("alice");
    control.force_open("migration").await.unwrap();
    control.clone().because("migration is done").release().await.unwrap();
    control.force_open("again").await.unwrap();
    control.clone().because("a false alarm").reset().await.unwrap();
    control.force_open("and again").await.unwrap();
    control.release().await.unwrap();
    let history = registry.history(10).await.unwrap();
    let closed = history.iter().filter(|change| change.to == State::Closed);
    let reasons: Vec<_> = closed.map(|change| (&*change.reason, &*change.actor)).collect();
    assert_eq!(reasons, [("released", "alice"), ("a false alarm", "alice"), ("migration is done", "alice")]);
}

#[tokio::test]
async fn an_empty_name_and_an_expiry_of_zero_are_errors() {
    let registry = Registry::builder().build().unwrap();
    let error = registry.control("").reset().await.unwrap_err();
    assert_eq!(error.field(), Some("name"));
    let error = registry.control("a").expires_in(Duration::ZERO).disable("x").await.unwrap_err();
    assert_eq!(error.field(), Some("expires_in"));
    assert!(registry.fleet().await.unwrap().is_empty(), "nothing has been done");
}

#[tokio::test]
async fn a_clone_is_the_same_instance_and_the_last_one_ends_it() {
    let registry = Registry::builder().build().unwrap();
    let mut events = registry.subscribe();
    let clone = registry.clone();
    clone.get_or_create("orders", BreakerConfig::default());
    assert!(registry.breaker("orders").is_some());
    drop(registry);
    clone.control("orders").reset().await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Transition(_))));
    drop(clone);
    assert!(common::bounded(events.recv()).await.is_none());
}

/// What is awaited here may be spawned.
#[test]
fn futures_are_send() {
    fn is_send<T: Send>(_: T) {}
    let registry = Registry::builder().build().unwrap();
    let control = registry.control("a");
    is_send(control.force_open("b"));
    is_send(registry.reset_all());
    is_send(registry.history(1));
    is_send(registry.fleet());
}
