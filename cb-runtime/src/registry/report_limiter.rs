//! When to report calls that no breaker guards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

/// They may be thousands a second: one of them is reported for all of so long.
const EVERY: Duration = Duration::from_secs(60);

/// When the next one may be reported.
#[derive(Default)]
pub(super) struct ReportLimiter(AtomicU64);

impl ReportLimiter {
    /// Whether one that happens now is to be reported; if so, none is for a while.
    pub(super) fn are_due(&self, now: Moment) -> bool {
        let next = self.0.load(Ordering::Relaxed);
        let later = now.after(EVERY).0;
        now.0 >= next && self.0.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
