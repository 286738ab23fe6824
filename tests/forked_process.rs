//! A forked process has none of its parent's threads: nothing answers its requests for probes, and a registry
//! of its own has threads of its own.
//!
//! The only test of its file: threads of others could hold a lock while this process forks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cb_runtime::{Breaker, BreakerConfig, Registry, State, StoreStatus, circuit_breaker};
use cb_testkit::{PATIENCE, RedisServer, wait_until};
use fork::{Fork, WEXITSTATUS, WIFEXITED, fork, waitpid_nohang};

static CACHING: OnceLock<Registry> = OnceLock::new();

#[circuit_breaker(name = "users", registry = CACHING.get().unwrap(), cache_ttl = 300)]
async fn fail(id: u64) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    Err(format!("{id} is not found").into())
}

/// Nobody in the child reads a result from the store.
fn call_cached_in_child() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for id in [1, 2, 2] {
        runtime.block_on(fail(id)).expect_err("no result is cached");
    }
}

/// Each caller is answered in the end: as without a store, the child probes on its own.
fn probe_in_child(breaker: &Breaker) {
    assert_eq!(breaker.state(), State::Open);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = runtime.block_on(breaker.call(async || Ok::<_, String>(1)));
    assert_eq!(answer.expect("it is a probe"), 1);
    let seen = breaker.snapshot();
    assert!(seen.local && seen.state == State::Closed, "{seen:?}");
    assert!(breaker.call_blocking(|| Err::<(), _>("a failure")).is_err());
    assert_eq!(breaker.state(), State::Open);
    std::thread::sleep(Duration::from_millis(2));
    breaker.call_blocking(|| Ok::<_, String>(())).expect("this one finds the coordinator gone");
    assert_eq!(breaker.state(), State::Closed);
}

/// A registry that the child makes reaches the store, and its errors are reported.
fn make_registries_in_child(redis: &str) {
    let registry = Registry::builder().redis(redis).build().expect("a valid address");
    wait_until(PATIENCE, "the store answers", || {
        matches!(registry.store_status(), StoreStatus::Connected { .. })
    });
    let failed = Arc::new(AtomicBool::new(false));
    let noted = failed.clone();
    // Nothing listens on this port.
    let builder = Registry::builder().redis("redis://127.0.0.1:1");
    let unreachable = builder.on_error(move |_| noted.store(true, Ordering::Release)).build();
    let _unreachable = unreachable.expect("a valid address");
    wait_until(PATIENCE, "the error is reported", || failed.load(Ordering::Acquire));
}

#[test]
fn caller_in_a_forked_process_does_not_wait_for_ever() {
    let redis = RedisServer::start();
    let registry = Registry::builder().redis(redis.url()).build().expect("a valid address");
    assert!(CACHING.set(registry.clone()).is_ok());
    let config = BreakerConfig::default()
        .failure_threshold(1)
        .success_threshold(1)
        .reset_timeout(Duration::from_millis(1));
    let breaker = registry.get_or_create("orders", config);
    wait_until(PATIENCE, "the store answers", || {
        matches!(registry.store_status(), StoreStatus::Connected { .. })
    });
    assert!(breaker.call_blocking(|| Err::<(), _>("a failure")).is_err());
    let is_shared =
        || breaker.state() == State::Open && !breaker.snapshot().local && breaker.snapshot().epoch == 1;
    wait_until(PATIENCE, "the store knows that it is open", is_shared);

    // The coordinator has nothing to do until its heartbeat, and holds no lock that the child would inherit.
    std::thread::sleep(Duration::from_millis(200));
    let child = match fork().expect("a process can be forked") {
        Fork::Child => {
            let result = catch_unwind(AssertUnwindSafe(|| {
                probe_in_child(&breaker);
                call_cached_in_child();
                make_registries_in_child(&redis.url());
            }));
            // Unwinding further would lead into the parent's test harness.
            exit(i32::from(result.is_err()));
        }
        Fork::Parent(child) => child,
    };
    let (begun, longest) = (Instant::now(), 3 * PATIENCE);
    let status = loop {
        if let Some(status) = waitpid_nohang(child).expect("it is a child of this process") {
            break status;
        }
        if begun.elapsed() > longest {
            let _ = Command::new("kill").args(["-9", &child.to_string()]).status();
            panic!("the child still waits");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child failed: {status}");
    // The parent has not noticed.
    assert_eq!((breaker.state(), breaker.snapshot().local), (State::Open, false));
    wait_until(PATIENCE, "the store grants a probe", || {
        breaker.call_blocking(|| Ok::<_, String>(())).is_ok()
    });
    wait_until(PATIENCE, "it is closed for the fleet", || {
        let seen = breaker.snapshot();
        seen.state == State::Closed && !seen.local && seen.epoch >= 3
    });
}
