//! How often a problem is reported that every call may have.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

/// One report stands for all of this span: there may be thousands of occasions a second.
const EVERY: Duration = Duration::from_secs(60);

/// When the next report is due.
#[derive(Default)]
pub(super) struct ReportLimiter(AtomicU64);

impl ReportLimiter {
    /// Whether what happens now is to be reported; if so, nothing is for a while.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        let next = self.0.load(Ordering::Relaxed);
        let later = now.after(EVERY).0;
        now.0 >= next && self.0.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
