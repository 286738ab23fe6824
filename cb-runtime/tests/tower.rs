//! The layer around `tower` services.

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::tower::{CircuitBreakerLayer, Verdict};
use cb_runtime::{Breaker, BreakerConfig, CallError, Registry, State};
use cb_testkit::{PATIENCE, wait_until};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service, ServiceExt, service_fn};

fn breaker(config: BreakerConfig) -> (Registry, Breaker) {
    let registry = Registry::builder().build().unwrap();
    let breaker = registry.get_or_create("upstream", config.failure_threshold(2));
    (registry, breaker)
}

#[tokio::test]
async fn errors_open_the_circuit_and_then_the_service_is_not_called() {
    let (_registry, breaker) = breaker(BreakerConfig::default());
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let service = service_fn(move |()| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Err::<(), _>("down") }
    });
    let mut service = CircuitBreakerLayer::new(breaker.clone()).layer(service);
    for _ in 0..2 {
        let error = service.ready().await.unwrap().call(()).await.unwrap_err();
        assert!(matches!(error, CallError::Failed("down")), "{error:?}");
    }
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(error.is_rejected(), "{error:?}");
    assert_eq!((breaker.state(), calls.load(Ordering::Relaxed)), (State::Open, 2));
}

#[tokio::test]
async fn responses_are_classified_and_one_that_is_a_failure_passes_through() {
    let (_registry, breaker) = breaker(BreakerConfig::default());
    let classify = |result: &Result<u16, Infallible>| match result {
        Ok(404) => Verdict::Ignored,
        Ok(429) => Verdict::Opening(Duration::from_secs(3600)),
        Ok(500..) => Verdict::Failure,
        _ => Verdict::Success,
    };
    let layer = CircuitBreakerLayer::new(breaker.clone()).classify(classify);
    let mut service = layer.layer(service_fn(async |status: u16| Ok::<_, Infallible>(status)));
    for status in [200, 404, 503] {
        assert_eq!(service.ready().await.unwrap().call(status).await.unwrap(), status);
    }
    let outcomes = breaker.snapshot().outcomes;
    assert_eq!((outcomes.success, outcomes.ignored, outcomes.failure), (1, 1, 1));
    assert_eq!(service.ready().await.unwrap().call(429).await.unwrap(), 429);
    assert!(breaker.snapshot().retry_after.is_some_and(|left| left > Duration::from_secs(3000)));
}

/// A service with one slot, which a ready clone holds until it is called or dropped.
struct OneSlot {
    slot: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Clone for OneSlot {
    fn clone(&self) -> Self {
        OneSlot { slot: self.slot.clone(), held: None }
    }
}

impl Service<()> for OneSlot {
    type Response = ();
    type Error = &'static str;
    type Future = std::future::Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.held = self.held.take().or_else(|| self.slot.clone().try_acquire_owned().ok());
        if self.held.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.held = None;
        std::future::ready(Ok(()))
    }
}

#[tokio::test]
async fn rejected_request_does_not_hold_the_service_during_its_fallback() {
    let (_registry, breaker) = breaker(BreakerConfig::default());
    breaker.force_open("a test").await.unwrap();
    let slot = Arc::new(Semaphore::new(1));
    let free = slot.clone();
    let layer = CircuitBreakerLayer::new(breaker).fallback(move |_: CallError<&'static str>| {
        let free = free.available_permits();
        async move { assert_eq!(free, 1, "slots that are free during the fallback") }
    });
    let mut service = layer.layer(OneSlot { slot, held: None });
    service.ready().await.unwrap().call(()).await.unwrap();
}

#[tokio::test]
async fn slow_failure_that_asks_for_an_opening_counts_as_slow() {
    const SECOND: Duration = Duration::from_secs(1);
    let (clock, hands) = Clock::manual();
    let registry = Registry::builder().clock(clock).build().unwrap();
    let config = BreakerConfig::default().slow_call_duration(SECOND).slow_call_rate_threshold(0.9);
    let breaker = registry.get_or_create("upstream", config);
    breaker.metrics_only("a trial").await.unwrap();
    let layer = CircuitBreakerLayer::new(breaker.clone()).classify(|_: &_| Verdict::Opening(SECOND));
    let mut service = layer.layer(service_fn(move |()| {
        hands.advance(5 * SECOND);
        async { Err::<(), _>("down") }
    }));
    service.ready().await.unwrap().call(()).await.unwrap_err();
    wait_until(PATIENCE, "it is counted", || {
        breaker.snapshot().window.is_some_and(|window| window.slow == 1)
    });
}

#[tokio::test(start_paused = true)]
async fn fallback_answers_failures_rejections_and_timeouts_with_the_reason() {
    let (_registry, breaker) = breaker(BreakerConfig::default().call_timeout(Duration::from_secs(1)));
    let layer = CircuitBreakerLayer::new(breaker)
        .classify(|result: &Result<&str, &str>| match result {
            Ok("bad") | Err(_) => Verdict::Failure,
            Ok(_) => Verdict::Success,
        })
        .fallback(async |reason: CallError<&'static str>| match reason {
            CallError::Unacceptable => "unacceptable",
            CallError::Failed(_) => "failed",
            CallError::TimedOut(_) => "timed out",
            _ => "rejected",
        });
    let mut service = layer.layer(service_fn(async |say: &'static str| {
        if say == "hang" {
            std::future::pending::<()>().await;
        }
        if say == "error" { Err(say) } else { Ok(say) }
    }));
    for (say, answer) in [
        ("bad", "unacceptable"),
        ("good", "good"),
        ("hang", "timed out"),
        ("error", "failed"),
        ("good", "rejected"),
    ] {
        assert_eq!(service.ready().await.unwrap().call(say).await.unwrap(), answer, "{say}");
    }
}

#[tokio::test]
async fn dropped_request_is_cancelled_and_clones_share_the_breaker() {
    let (_registry, breaker) = breaker(BreakerConfig::default());
    let mut service = CircuitBreakerLayer::new(breaker.clone())
        .layer(service_fn(async |()| std::future::pending::<Result<(), Infallible>>().await));
    let mut clone = service.clone();
    for service in [&mut service, &mut clone] {
        assert!(common::poll_once(service.ready().await.unwrap().call(())).is_pending());
    }
    assert_eq!(breaker.snapshot().outcomes.cancelled, 2);
}
