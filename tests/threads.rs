//! Many threads on one breaker, while its store comes and goes and its settings and state change.
//!
//! Every interleaving is real; what is asserted holds for all of them: every call ends, every outcome is
//! counted once, and a healthy dependency leads back to a closed circuit.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cb_runtime::{Breaker, BreakerConfig, CallError, Outcomes, Registry, State};
use cb_testkit::{Proxy, RedisServer, wait_until};

const LIMIT: Duration = Duration::from_secs(120);
const THREADS: usize = 8;
const SPAN: Duration = Duration::from_secs(4);

/// What callers saw, to be compared with what the breaker has counted.
#[derive(Default)]
struct Seen {
    returned: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
}

fn config() -> BreakerConfig {
    BreakerConfig::default()
        .failure_threshold(3)
        .reset_timeout(Duration::from_millis(20))
        .half_open_max_calls(2)
        .success_threshold(2)
}

async fn one_call(breaker: &Breaker, random: &mut fastrand::Rng, healthy: bool, seen: &Seen) {
    let fails = !healthy && random.u8(..10) < 6;
    let body = async || {
        if fails { Err(()) } else { Ok(()) }
    };
    if !healthy && random.u8(..20) == 0 {
        // Dropped between two polls, or before the first one.
        let pending = async || std::future::pending::<Result<(), ()>>().await;
        let call = breaker.call(pending);
        let mut call = pin!(call);
        if random.bool() {
            let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                Poll::Ready(Err(CallError::Rejected(_))) => &seen.rejected,
                Poll::Pending => &seen.dropped,
                Poll::Ready(other) => panic!("a call that never ends has ended: {other:?}"),
            }
            .fetch_add(1, Ordering::Relaxed);
        }
        return;
    }
    let result = tokio::time::timeout(LIMIT, breaker.call(body)).await.expect("every call ends");
    match result {
        Ok(()) | Err(CallError::Failed(())) => &seen.returned,
        Err(CallError::Rejected(_)) => &seen.rejected,
        Err(other) => panic!("{other:?}"),
    }
    .fetch_add(1, Ordering::Relaxed);
}

/// Calls from many threads until `SPAN` is over, while `disturb` runs again and again beside them.
fn storm(registry: &Registry, breaker: &Breaker, disturb: impl FnMut(&mut fastrand::Rng) + Send) {
    let (seen, over) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..THREADS as u64 {
            let (seen, over) = (&seen, &over);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    while !over.load(Ordering::Relaxed) {
                        one_call(breaker, &mut random, false, seen).await;
                        if random.u8(..50) == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            });
        }
        let (mut disturb, mut random, start) = (disturb, fastrand::Rng::with_seed(99), Instant::now());
        while start.elapsed() < SPAN {
            disturb(&mut random);
        }
        over.store(true, Ordering::Relaxed);
    });
    let Outcomes { success, failure, cancelled, late, rejected, ignored, .. } = breaker.snapshot().outcomes;
    let (returned, dropped) = (seen.returned.into_inner(), seen.dropped.into_inner());
    assert_eq!(rejected, seen.rejected.load(Ordering::Relaxed), "every rejection is counted once");
    // A caller that is dropped while it waits for a permit has made no call.
    let ended = success + failure + late;
    assert!(
        ended + cancelled >= returned && ended + cancelled <= returned + dropped,
        "every outcome is counted once"
    );
    assert_eq!(ignored, 0);
    assert!(returned > 100 && rejected > 100, "{returned} calls and {rejected} rejections prove nothing");
    recovers(registry, breaker);
}

fn recovers(_registry: &Registry, breaker: &Breaker) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (seen, mut random) = (Seen::default(), fastrand::Rng::new());
    wait_until(LIMIT, "a healthy dependency leads back to closed", || {
        runtime.block_on(one_call(breaker, &mut random, true, &seen));
        let snapshot = breaker.snapshot();
        snapshot.state == State::Closed && !snapshot.local
    });
}

#[test]
fn threads_and_a_store_that_comes_and_goes() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let registry = Registry::builder().redis(proxy.url()).namespace("threads").build().expect("a registry");
    let breaker = registry.get_or_create("orders", config());
    storm(&registry, &breaker, |random| {
        match random.u8(..4) {
            0 => proxy.cut(),
            1 => proxy.stall_answers(),
            2 => proxy.stall(),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(random.u64(1..600)));
        proxy.heal();
        std::thread::sleep(Duration::from_millis(random.u64(1..200)));
    });
}

#[test]
fn threads_and_overrides() {
    let redis = RedisServer::start();
    let registry = Registry::builder().redis(redis.url()).namespace("threads").build().expect("a registry");
    let other = Registry::builder().redis(redis.url()).namespace("threads").build().expect("a registry");
    let breaker = registry.get_or_create("orders", config());
    let remote = other.get_or_create("orders", config());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    storm(&registry, &breaker, |random| {
        let steered = if random.bool() { &breaker } else { &remote };
        runtime.block_on(async {
            // Not disabled: that state counts nothing.
            match random.u8(..4) {
                0 => steered.force_open("storm").await,
                1 => steered.metrics_only("storm").await,
                2 => steered.reset().await,
                _ => steered.release().await,
            }
            .expect("the store has the override");
            tokio::time::sleep(Duration::from_millis(random.u64(..50))).await;
            steered.release().await.expect("the store has the release");
        });
        std::thread::sleep(Duration::from_millis(random.u64(..50)));
    });
}

#[test]
fn threads_in_one_process_without_a_store() {
    let registry = Registry::builder().build().expect("a registry");
    let breaker = registry.get_or_create("orders", config());
    storm(&registry, &breaker, |random| {
        let snapshot = breaker.snapshot();
        assert!(snapshot.epoch < u64::MAX);
        std::thread::sleep(Duration::from_micros(random.u64(..500)));
    });
}
