//! Guarded work that is no future: permits, and blocking calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::{Breaker, BreakerConfig, CallError, Permit, Registry, State};
use cb_testkit::{PATIENCE, wait_until};

const SOON: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);

fn breaker(config: BreakerConfig) -> Breaker {
    let registry = Registry::builder().build().unwrap();
    registry.get_or_create("b", config.success_threshold(1).half_open_max_calls(1))
}

/// The permit of a probe, once one is due and the store grants it.
async fn admitted(breaker: &Breaker) -> Permit {
    let admitted = async {
        loop {
            match breaker.acquire().await {
                Ok(permit) => return permit,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.expect("a probe is admitted")
}

/// There is no fleet whose probes a lease would protect.
#[tokio::test]
async fn probe_of_a_process_alone_may_take_longer_than_a_lease() {
    let (clock, hands) = Clock::manual();
    let registry = Registry::builder().clock(clock).build().unwrap();
    let config = BreakerConfig::default().failure_threshold(1).success_threshold(1);
    let breaker = registry.get_or_create("b", config);
    breaker.acquire().await.unwrap().failure();
    hands.advance(Duration::from_secs(31));
    let probe = admitted(&breaker).await;
    hands.advance(Duration::from_secs(5));
    probe.success();
    wait_until(PATIENCE, "the probe closes it", || breaker.state() == State::Closed);
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
    let breaker = breaker(BreakerConfig::default().failure_threshold(1).reset_timeout(HOUR));
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
    let breaker = breaker(BreakerConfig::default().failure_threshold(1).reset_timeout(SOON));
    breaker.acquire().await.unwrap().failure();
    let probe = admitted(&breaker).await;
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.acquire().await.is_err(), "the budget is one");
    drop(probe);
    // The lease goes back with the next exchange.
    admitted(&breaker).await.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn blocking_calls_are_guarded_without_a_runtime() {
    let breaker = breaker(BreakerConfig::default().failure_threshold(2).reset_timeout(HOUR));
    assert_eq!(breaker.call_blocking(|| Ok::<_, ()>(7)).unwrap(), 7);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = breaker.call_blocking(|| -> Result<(), ()> { panic!("on purpose") });
    }));
    assert!(panicked.is_err());
    assert!(matches!(breaker.call_blocking(|| Err::<(), _>("down")), Err(CallError::Failed("down"))));
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.call_blocking(|| Ok::<_, ()>(())).unwrap_err().is_rejected());

    // A probe waits for the answer to its request on this very thread.
    let probed = self::breaker(BreakerConfig::default().failure_threshold(1).reset_timeout(SOON));
    assert!(probed.call_blocking(|| Err::<(), _>("down")).unwrap_err().into_inner().is_some());
    wait_until(PATIENCE, "a probe closes the circuit", || probed.call_blocking(|| Ok::<_, ()>(())).is_ok());
    assert_eq!(probed.state(), State::Closed);
}
