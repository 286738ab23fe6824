//! What the tests share: instances of a fleet, each a process, and waits that are bounded.

// Every test file is a crate of its own and uses its own part of this.
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

/// How soon the fleet is to agree. Tests report what took longer, and fail only at [`PATIENCE`]:
/// a busy machine is no fault of the fleet.
pub const T: Duration = Duration::from_secs(1);

/// How long anything is waited for that ought to happen.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Instances that share this Redis, and all have this breaker.
#[track_caller]
pub fn instances<const N: usize>(redis: &RedisServer, breaker: &str, config: &Value) -> [Instance; N] {
    std::array::from_fn(|_| {
        let instance = Instance::on(&redis.url());
        instance.create(breaker, config.clone());
        instance
    })
}

/// Waits until the breaker is in this state on all of them.
#[track_caller]
pub fn all(breaker: &str, instances: &[Instance], state: State) {
    within_t(&format!("all are {state}"), || instances.iter().all(|instance| instance.is(breaker, state)));
}

/// Waits until `condition` holds; how long that took.
#[track_caller]
pub fn within_t(what: &str, condition: impl FnMut() -> bool) -> Duration {
    within(T, what, condition)
}

/// The same where something else than T is due.
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
