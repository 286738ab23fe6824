//! Guarded work that is no future: permits, and blocking calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use cb_runtime::{Breaker, BreakerConfig, CallError, Registry, State};

const RESET: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

fn breaker(config: BreakerConfig) -> Breaker {
    let registry = Registry::builder().build().unwrap();
    registry.get_or_create("b", config.reset_timeout(RESET).success_threshold(1).half_open_max_calls(1))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("still not: {what}"));
}

#[tokio::test]
async fn permit_counts_what_its_holder_reports() {
    let breaker = breaker(BreakerConfig::default().failure_threshold(100));
    breaker.acquire().await.unwrap().success();
    breaker.acquire().await.unwrap().failure();
    breaker.acquire().await.unwrap().ignore();
    drop(breaker.acquire().await.unwrap());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _permit = futures_now(breaker.acquire());
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let outcomes = breaker.snapshot().outcomes;
    assert_eq!((outcomes.success, outcomes.failure), (1, 2), "a panic is a failure");
    assert_eq!((outcomes.ignored, outcomes.cancelled, outcomes.late), (1, 1, 0));
}

/// The permit of a closed circuit, which needs no waiting.
fn futures_now<T, E: std::fmt::Debug>(permit: impl Future<Output = Result<T, E>>) -> T {
    let mut permit = std::pin::pin!(permit);
    match permit.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(permit) => permit.unwrap(),
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[tokio::test]
async fn permit_may_leave_its_thread_and_outlive_the_handle() {
    let breaker = breaker(BreakerConfig::default().failure_threshold(1));
    let permit = breaker.clone().acquire().await.unwrap();
    std::thread::spawn(move || permit.failure()).join().unwrap();
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.acquire().await.unwrap_err().is_open());
}

#[tokio::test]
async fn slow_permits_trip() {
    let slow = BreakerConfig::default()
        .slow_call_duration(Duration::from_millis(10))
        .slow_call_rate_threshold(1.0)
        .minimum_calls(2);
    let breaker = breaker(slow);
    for _ in 0..2 {
        let permit = breaker.acquire().await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
        permit.success();
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test]
async fn permits_probe() {
    let breaker = breaker(BreakerConfig::default().failure_threshold(1));
    breaker.acquire().await.unwrap().failure();
    until("a probe is due", || breaker.snapshot().retry_after == Some(Duration::ZERO)).await;
    let probe = breaker.acquire().await.unwrap();
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.acquire().await.is_err(), "the budget is one");
    drop(probe);
    // The lease goes back with the next exchange.
    let mut probe = None;
    for _ in 0..1000 {
        probe = breaker.acquire().await.ok();
        if probe.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    probe.expect("a probe that was dropped is free again").success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn blocking_calls_are_guarded_without_a_runtime() {
    let breaker = breaker(BreakerConfig::default().failure_threshold(2));
    assert_eq!(breaker.call_blocking(|| Ok::<_, ()>(7)).unwrap(), 7);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = breaker.call_blocking(|| -> Result<(), ()> { panic!("on purpose") });
    }));
    assert!(panicked.is_err());
    assert!(matches!(breaker.call_blocking(|| Err::<(), _>("down")), Err(CallError::Failed("down"))));
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.call_blocking(|| Ok::<_, ()>(())).unwrap_err().is_rejected());

    // Waits for the answer to its request for a probe on this very thread.
    let mut closed = false;
    for _ in 0..1000 {
        closed = breaker.call_blocking(|| Ok::<_, ()>(())).is_ok();
        if closed {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(closed && breaker.state() == State::Closed);
}
