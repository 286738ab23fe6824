use std::time::{Duration, Instant};

/// Polls `condition` every few milliseconds until it holds.
///
/// # Panics
/// With `what` and where it was called, if the condition does not hold within `limit`.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
