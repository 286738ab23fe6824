//! A call through a closed circuit allocates nothing. A test binary of its own, for its allocator.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use cb_runtime::{BreakerError, circuit_breaker};

/// How often this thread allocated in a thousand calls, after the first.
fn allocations_of<F: Future>(call: impl Fn() -> F) -> u64 {
    let run = || {
        let mut future = pin!(call());
        let mut cx = Context::from_waker(Waker::noop());
        while future.as_mut().poll(&mut cx).is_pending() {}
    };
    run();
    measure(|| (0..1000).for_each(|_| run())).count_total
}

/// Is pending once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(
        |_| if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

#[test]
fn call_through_a_closed_circuit_allocates_nothing() {
    #[circuit_breaker(name = "closed")]
    async fn call(id: u64) -> Result<u64, BreakerError> {
        yield_once().await;
        Ok(id)
    }
    assert_eq!(allocations_of(|| call(1)), 0);
}

#[test]
fn call_with_a_fallback_allocates_nothing() {
    #[circuit_breaker(name = "fallback", fallback = |_, _| Ok(0))]
    async fn call(id: u64, name: &str) -> Result<u64, BreakerError> {
        yield_once().await;
        Ok(id + name.len() as u64)
    }
    assert_eq!(allocations_of(|| call(1, "x")), 0);
}

#[test]
fn call_with_a_fresh_cache_entry_allocates_nothing() {
    #[circuit_breaker(name = "cache", cache_ttl = "1h")]
    async fn call(id: u64, name: &str) -> Result<u64, BreakerError> {
        yield_once().await;
        Ok(id + name.len() as u64)
    }
    assert_eq!(allocations_of(|| call(1, "x")), 0);
}

#[test]
fn call_of_a_known_keyed_breaker_allocates_nothing() {
    #[circuit_breaker(name = "tenant-{tenant}-{shard:03}", failure_threshold = 3)]
    async fn call(tenant: &str, shard: u64) -> Result<u64, BreakerError> {
        yield_once().await;
        Ok(shard + tenant.len() as u64)
    }
    assert_eq!(allocations_of(|| call("orders", 7)), 0);
    // Beyond what is made on the stack: the text, and the name that is used in its place.
    let long = "x".repeat(1000);
    assert!(allocations_of(|| call(&long, 7)) > 1000);
}

#[test]
fn counter_counts() {
    assert_eq!(allocations_of(|| async { drop(std::hint::black_box(Box::new(1))) }), 1000);
}
