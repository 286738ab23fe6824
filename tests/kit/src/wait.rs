use std::time::{Duration, Instant};

/// Polls `condition` every few milliseconds until it holds.
///
/// # Panics
/// If the condition does not hold within `limit`. The message has `what` and the caller's location.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
