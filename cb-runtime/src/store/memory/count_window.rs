//! The count window of one breaker and length.

use super::failing::Failing;
use crate::store::{CountWindow, CountWindowRequest, CountWindowView, MAX_COUNT};

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredCountWindow {
    place: u64,
    outcomes: CountWindow,
    pub(super) failing: Failing,
    pub(super) asked_at: u64,
}

impl StoredCountWindow {
    pub(super) fn new(calls: u32) -> Self {
        let outcomes = CountWindow::new(u64::from(calls));
        StoredCountWindow { outcomes, ..StoredCountWindow::default() }
    }

    /// Appends outcomes. Returns the place of the latest failure.
    pub(super) fn append(&mut self, calls: &CountWindow) -> Option<u64> {
        let mut failed_at = None;
        for (kind, count) in calls.runs().filter(|(_, count)| *count > 0) {
            self.place = self.place.saturating_add(count).min(MAX_COUNT);
            self.outcomes.push(kind, count);
            if kind.failed {
                failed_at = Some(self.place);
            }
        }
        failed_at
    }

    pub(super) fn view(&self, ask: CountWindowRequest, instance: Option<&str>) -> CountWindowView {
        let later = self.place.checked_sub(ask.since.min(MAX_COUNT)).unwrap_or(u64::MAX);
        let mut outcomes: Vec<_> = self.outcomes.newest(later).collect();
        outcomes.reverse();
        CountWindowView {
            place: self.place,
            outcomes,
            failing: instance.map_or(Vec::new(), |own| self.failing.of_others(own).collect()),
        }
    }
}
