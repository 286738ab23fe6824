//! Integration with the application: events, executors, runtimes, shutdown, and connections.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use cb_runtime::{BreakerConfig, CallError, Registry, State};
use cb_testkit::{Proxy, RedisServer, wait_until};
use serde_json::json;

use common::protocol::{Act, Ended, Event, Override, Request};
use common::{Instance, PATIENCE, T, within, within_t};

const NAME: &str = "orders";

fn good() -> Act {
    Act::Succeed(None)
}

/// Asserts that every instance observed each transition exactly once and in the order of epochs, that each
/// begins in the state in which the previous one ended, and that exactly one instance is its originator.
#[track_caller]
fn assert_observed_alike(fleet: &[&Instance], epochs: u64) {
    within_t(&format!("all have observed {epochs} transitions"), || {
        fleet.iter().all(|i| i.transitions(NAME).len() as u64 >= epochs)
    });
    let observed: Vec<_> = fleet.iter().map(|instance| instance.transitions(NAME)).collect();
    for (instance, changes) in fleet.iter().zip(&observed) {
        assert_eq!(changes.iter().map(|c| c.epoch).collect::<Vec<_>>(), (1..=epochs).collect::<Vec<_>>());
        let mut state = State::Closed;
        for change in changes {
            assert_eq!(change.from, state, "{changes:?}");
            assert_eq!(change.own, change.originator == instance.id(), "{change:?}");
            state = change.to;
        }
    }
    for epoch in 0..usize::try_from(epochs).unwrap() {
        let of_epoch: Vec<_> = observed.iter().map(|changes| &changes[epoch]).collect();
        assert_eq!(of_epoch.iter().filter(|c| c.own).count(), 1, "{of_epoch:?}");
        for change in &of_epoch {
            let one = of_epoch[0];
            assert_eq!(
                (change.to, &change.originator, &change.reason),
                (one.to, &one.originator, &one.reason)
            );
        }
    }
}

#[test]
fn every_instance_observes_each_transition_once_in_order() {
    let redis = RedisServer::start();
    let config = json!({
        "failure_threshold": 3, "reset_timeout": "200ms", "half_open_max_calls": 2, "success_threshold": 2
    });
    let fleet: [Instance; 5] = std::array::from_fn(|_| {
        let instance = Instance::on(&redis.url());
        instance.create(NAME, config.clone());
        instance
    });
    let fleet = fleet.each_ref();
    for _ in 0..4 {
        // All fail concurrently, and each instance's failures suffice for a trip.
        let groups = fleet.map(|instance| instance.hold(NAME, 3));
        within_t("all calls are in flight", || fleet.iter().zip(groups).all(|(i, g)| i.progress(g).ran == 3));
        std::thread::scope(|scope| {
            for (instance, group) in fleet.iter().zip(groups) {
                scope.spawn(move || instance.finish(group, Act::Fail));
            }
        });
        within_t("all are open", || fleet.iter().all(|i| i.is(NAME, State::Open)));
        // All instances call until the circuit is closed.
        let traffic = fleet.map(|instance| instance.traffic(NAME, good(), Duration::from_millis(5)));
        within(2 * T, "all are closed", || fleet.iter().all(|i| i.is(NAME, State::Closed)));
        for (instance, group) in fleet.iter().zip(traffic) {
            instance.finish(group, good());
        }
    }
    assert_observed_alike(&fleet, 12);
    for instance in fleet {
        let others: Vec<_> =
            instance.events().into_iter().filter(|event| !matches!(event, Event::Transition(_))).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

#[test]
fn transitions_missed_during_isolation_are_observed_after_it() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let config = json!({"failure_threshold": 1, "reset_timeout": "1h"});
    let [a, b] = [proxy.url(), redis.url()].map(|url| {
        let instance = Instance::on(&url);
        instance.create(NAME, config.clone());
        instance
    });
    b.fail(NAME, 1);
    within_t("A is open", || a.is(NAME, State::Open));
    proxy.cut();
    within_t("A notices the loss", || a.events().contains(&Event::StoreLost));
    for _ in 0..3 {
        b.steer(NAME, &Override::Reset);
        b.fail(NAME, 1);
        within_t("B's transition is confirmed", || !b.look(NAME).local);
    }
    assert_eq!(b.look(NAME).epoch, 7);
    proxy.heal();
    within_t("A has the fleet's epoch", || a.look(NAME).epoch == 7);
    assert_observed_alike(&[&a, &b], 7);
}

#[test]
fn blocked_runtime_does_not_delay_transitions() {
    let redis = RedisServer::start();
    let [a, b] = [(); 2].map(|()| {
        let instance = Instance::on(&redis.url());
        instance.create(NAME, json!({"failure_threshold": 2}));
        instance
    });
    let () = b.ask(&Request::Block);
    a.fail(NAME, 2);
    within_t("B is open", || b.is(NAME, State::Open));
    let () = b.ask(&Request::Unblock);
    assert!(b.call(NAME, good(), 1).all_rejected());
}

#[test]
fn shutdown_reports_all_counts() {
    let redis = RedisServer::start();
    let [a, b] = [(); 2].map(|()| {
        let instance = Instance::on(&redis.url());
        instance.create(NAME, json!({"failure_threshold": 10, "reset_timeout": "1h"}));
        instance
    });
    a.fail(NAME, 3);
    a.succeed(NAME, 1);
    let () = a.ask(&Request::Shutdown);
    let counts = b.fleet(NAME);
    assert_eq!((counts.failures, counts.successes), (3, 1));

    // Later calls are guarded locally.
    assert_eq!(a.call(NAME, good(), 1).ended, [Ended::Value(None)]);
    a.fail(NAME, 10);
    assert!(a.call(NAME, good(), 1).all_rejected());
    assert_eq!(b.fleet(NAME).failures, 3);
    assert!(a.try_steer(NAME, Override::Reset).is_err(), "an override after the shutdown is an error");
    let () = a.ask(&Request::Shutdown);
}

#[test]
fn shutdown_returns_held_probes() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 1, "reset_timeout": "100ms", "half_open_max_calls": 1, "success_threshold": 1});
    let [a, b] = [(); 2].map(|()| {
        let instance = Instance::on(&redis.url());
        instance.create(NAME, config.clone());
        instance
    });
    a.fail(NAME, 1);
    within_t("a probe is due", || a.look(NAME).retry_after_us == Some(0));
    let held = a.hold_one(NAME);
    within_t("B is half-open", || b.is(NAME, State::HalfOpen));
    let () = a.ask(&Request::Shutdown);
    assert_eq!(
        redis.cli(&["ZCARD", "cb1:{tests}:l:orders"]),
        "0",
        "the lease is returned, not left to expire"
    );
    within_t("B's probe runs", || b.call(NAME, good(), 1).ran == 1);
    a.drop_calls(held);
}

/// Runs a future on this thread, without a runtime and without a timer.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}

fn registry(redis: &RedisServer) -> Registry {
    Registry::builder().redis(redis.url()).namespace("tests").build().unwrap()
}

#[test]
fn calls_run_without_tokio() {
    let redis = RedisServer::start();
    let (a, b) = (registry(&redis), registry(&redis));
    // Long enough that the rejected call is made before a probe is due, also on a busy machine.
    let config = || {
        BreakerConfig::default()
            .failure_threshold(2)
            .reset_timeout(Duration::from_secs(5))
            .success_threshold(1)
    };
    let (on_a, on_b) = (a.get_or_create(NAME, config()), b.get_or_create(NAME, config()));
    block_on(async {
        for _ in 0..2 {
            let result: Result<(), CallError<&str>> = on_a.call(async || Err("broken")).await;
            assert_eq!(result.unwrap_err().into_inner(), Some("broken"));
        }
        assert!(on_a.call(async || Ok::<_, &str>(())).await.unwrap_err().is_rejected());
    });
    within_t("B is open", || on_b.state() == State::Open);
    // A probe's round trip to the store works on this executor, too.
    within(Duration::from_secs(5) + T, "B's probe closes", || {
        block_on(on_b.call(async || Ok::<_, &str>(()))).is_ok() && on_b.state() == State::Closed
    });
    within_t("A is closed", || on_a.state() == State::Closed);
    block_on(on_a.force_open("maintenance")).unwrap();
    within_t("B is forced open", || on_b.state() == State::ForcedOpen);
    assert_eq!(block_on(b.fleet()).unwrap()[0].state, State::ForcedOpen);
    block_on(a.shutdown());
}

#[test]
fn call_timeout_ends_a_call_without_tokio() {
    let registry = Registry::builder().build().unwrap();
    let limit = Duration::from_millis(20);
    let breaker = registry.get_or_create(NAME, BreakerConfig::default().call_timeout(limit));
    let start = Instant::now();
    let call = breaker.call(async || std::future::pending::<Result<(), &str>>().await);
    assert!(matches!(block_on(call), Err(CallError::TimedOut(_))));
    assert!(start.elapsed() >= limit);
    assert_eq!(breaker.snapshot().outcomes.failure, 1);
}

#[test]
fn dropped_registry_does_not_disturb_running_calls() {
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (a, b) = (registry(&redis), registry(&redis));
    let config = || BreakerConfig::default().failure_threshold(3);
    let (on_a, on_b) = (a.get_or_create(NAME, config()), b.get_or_create(NAME, config()));
    let mut events = a.subscribe();

    let (go, wait) = tokio::sync::watch::channel(false);
    let running = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..20)
        .map(|turn| {
            let (breaker, mut wait, running) = (on_a.clone(), wait.clone(), running.clone());
            runtime.spawn(async move {
                let call = async || {
                    running.fetch_add(1, Ordering::SeqCst);
                    wait.wait_for(|go| *go).await.expect("the sender lives");
                    if turn % 2 == 0 { Ok(turn) } else { Err(turn) }
                };
                breaker.call(call).await
            })
        })
        .collect();
    within_t("all calls are in flight", || running.load(Ordering::SeqCst) == 20);
    drop(a);
    go.send_replace(true);
    for (turn, call) in calls.into_iter().enumerate() {
        match runtime.block_on(call).expect("no panic") {
            Ok(value) => assert_eq!(value, turn),
            Err(error) => assert_eq!(error.into_inner(), Some(turn)),
        }
    }
    // The handle still guards calls, locally.
    for _ in 0..3 {
        let _failed = runtime.block_on(on_a.call(async || Err::<(), _>("broken")));
    }
    assert_eq!(on_a.state(), State::Open);
    assert!(runtime.block_on(on_a.force_open("nobody there")).is_err());
    runtime.block_on(async {
        let end = tokio::time::timeout(PATIENCE, async { while events.recv().await.is_some() {} });
        end.await.expect("a subscription ends with its registry");
    });

    for _ in 0..3 {
        let _failed = runtime.block_on(on_b.call(async || Err::<(), _>("broken")));
    }
    within_t("B's circuit is open for the fleet", || {
        runtime.block_on(b.fleet()).unwrap().iter().any(|row| row.name == NAME && row.state == State::Open)
    });
}

#[test]
fn exchange_outlives_the_users_runtime() {
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = runtime.block_on(async { (registry(&redis), registry(&redis)) });
    let config = || BreakerConfig::default().failure_threshold(2);
    let (on_a, on_b) = (a.get_or_create(NAME, config()), b.get_or_create(NAME, config()));
    runtime.block_on(async {
        for _ in 0..2 {
            let _failed = on_a.call(async || Err::<(), _>("broken")).await;
        }
    });
    drop(runtime);
    within_t("B is open", || on_b.state() == State::Open);
}

#[test]
fn registries_of_one_process_are_separate_instances() {
    let redis = RedisServer::start();
    let registries: Vec<_> = (0..20).map(|_| registry(&redis)).collect();
    let breakers: Vec<_> = registries
        .iter()
        .map(|registry| registry.get_or_create(NAME, BreakerConfig::default().failure_threshold(20)))
        .collect();
    for breaker in &breakers {
        assert_eq!(breaker.state(), State::Closed);
        let _failed = block_on(breaker.call(async || Err::<(), _>("broken")));
    }
    within_t("all are open", || breakers.iter().all(|breaker| breaker.state() == State::Open));
    // Every registry has two connections.
    wait_until(PATIENCE, "two connections each", || redis.connected_clients() == 40);
    drop(breakers);
    drop(registries);
    wait_until(PATIENCE, "all connections are closed", || redis.connected_clients() == 0);
}

#[test]
fn commands_and_connections_do_not_grow_with_breakers() {
    let redis = RedisServer::start();
    let a = registry(&redis);
    let breakers: Vec<_> = (0..100)
        .map(|n| a.get_or_create(&format!("breaker {n}"), BreakerConfig::default().failure_threshold(1000)))
        .collect();
    block_on(a.fleet()).unwrap();
    let seconds = 2;
    let (calls, commands) = redis.client_commands(|| {
        let begun = std::time::Instant::now();
        let mut calls = 0;
        while begun.elapsed() < Duration::from_secs(seconds) {
            for breaker in &breakers {
                block_on(breaker.call(async || Ok::<_, &str>(()))).unwrap();
                calls += 1;
            }
        }
        calls
    });
    assert!(calls > 1000, "{calls}");
    assert!(commands <= 12 * 2 + 12, "{commands} commands in {seconds} s");
    wait_until(PATIENCE, "two connections", || redis.connected_clients() == 2);
}

#[tokio::test]
async fn subscription_yields_transitions_and_ends_with_the_registry() {
    let registry = Registry::builder().build().unwrap();
    let mut events = registry.subscribe();
    let breaker = registry.get_or_create(NAME, BreakerConfig::default().failure_threshold(1));
    let _failed = breaker.call(async || Err::<(), _>("broken")).await;
    let next = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event in time");
    let Some(cb_runtime::Event::Transition(change)) = next else { panic!("{next:?}") };
    assert_eq!((&*change.breaker, change.from, change.to), (NAME, State::Closed, State::Open));
    assert_eq!((change.epoch, change.own, change.failures), (1, true, 1));
    assert_eq!(change.originator, registry.instance());
    assert_eq!(change.open_for, Some(Duration::from_secs(30)));
    registry.shutdown().await;
    let end = tokio::time::timeout(PATIENCE, events.recv()).await.expect("the end in time");
    assert!(end.is_none(), "{end:?}");
}
