//! What the tests share: instances of a fleet, each a process, and waits that are bounded.

// Every test file is a crate of its own and uses its own part of this.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod checks;
mod instance;
#[path = "../instance/protocol.rs"]
pub mod protocol;

use std::time::{Duration, Instant};

pub use checks::Checks;
pub use instance::Instance;

/// How soon the fleet is to agree. Tests report what took longer, and fail only at [`PATIENCE`]:
/// a busy machine is no fault of the fleet.
pub const T: Duration = Duration::from_secs(1);

/// How long anything is waited for that ought to happen.
pub const PATIENCE: Duration = Duration::from_secs(15);

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
