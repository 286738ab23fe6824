//! Shared by the integration tests: instances of a fleet as processes, and bounded waits.

// Each test file is a crate of its own and uses a part of this module.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod checks;
mod instance;
#[path = "../instance/protocol.rs"]
pub mod protocol;

use std::time::{Duration, Instant};

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::Value;

pub use checks::Checks;
pub use instance::Instance;

/// The fleet should agree within this time. A test reports a longer wait and fails only after [`PATIENCE`]
/// more, because a busy machine is not a defect of the fleet.
pub const T: Duration = Duration::from_secs(1);

/// The limit of a wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Starts instances that share `redis` and registers `breaker` on each.
#[track_caller]
pub fn instances<const N: usize>(redis: &RedisServer, breaker: &str, config: &Value) -> [Instance; N] {
    std::array::from_fn(|_| {
        let instance = Instance::on(&redis.url());
        instance.create(breaker, config.clone());
        instance
    })
}

/// As [`instances`], of processes that do not take a machine that stalls for a lost store: they would act
/// locally for a moment, and the fleet would not know of their probes.
#[track_caller]
pub fn patient_instances<const N: usize>(
    redis: &RedisServer,
    breaker: &str,
    config: &Value,
) -> [Instance; N] {
    std::array::from_fn(|_| {
        let instance = Instance::with_variables(&redis.url(), &[("CB_RESPONSE_TIMEOUT", "2s")]);
        instance.create(breaker, config.clone());
        instance
    })
}

/// Waits until `breaker` is in `state` on all instances.
#[track_caller]
pub fn all(breaker: &str, instances: &[Instance], state: State) {
    within_t(&format!("all are {state}"), || instances.iter().all(|instance| instance.is(breaker, state)));
}

/// Waits until every instance knows that a probe of `breaker` is due.
#[track_caller]
pub fn all_due(breaker: &str, instances: &[Instance]) {
    within(Duration::from_millis(500) + T, "a probe is due", || {
        instances.iter().all(|instance| {
            let seen = instance.look(breaker);
            seen.state == State::Open && seen.retry_after_us == Some(0)
        })
    });
}

/// Waits until `condition` holds, which is due within [`T`]. Returns the time it took.
#[track_caller]
pub fn within_t(what: &str, condition: impl FnMut() -> bool) -> Duration {
    within(T, what, condition)
}

/// Waits until `condition` holds, which is due within `due`. Returns the time it took.
#[track_caller]
pub fn within(due: Duration, what: &str, condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    cb_testkit::wait_until(due + PATIENCE, what, condition);
    let took = start.elapsed();
    if took > due {
        eprintln!("took {took:?}, due in {due:?}: {what}");
    }
    took
}

/// Runs a future on this thread. It must end within [`PATIENCE`].
#[track_caller]
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    ended.expect("it ends in time")
}
