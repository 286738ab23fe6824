//! The count window of one breaker and length.

use std::collections::VecDeque;

use super::failing::Failing;
use crate::store::{CountWindowRequest, CountWindowView, MAX_COUNT, OutcomeKind};

/// The latest outcomes as runs of one kind, oldest first.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredCountWindow {
    place: u64,
    outcomes: VecDeque<(OutcomeKind, u64)>,
    kept: u64,
    pub(super) failing: Failing,
    pub(super) asked_at: u64,
}

impl StoredCountWindow {
    /// Appends outcomes and keeps the latest `most`. Returns the place of the latest failure.
    pub(super) fn append(&mut self, calls: &[(OutcomeKind, u64)], most: u64) -> Option<u64> {
        let mut failed_at = None;
        for &(kind, count) in calls.iter().filter(|(_, count)| *count > 0) {
            self.place = self.place.saturating_add(count).min(MAX_COUNT);
            self.kept = self.kept.saturating_add(count);
            match self.outcomes.back_mut() {
                Some((latest, sum)) if *latest == kind => *sum = sum.saturating_add(count),
                _ => self.outcomes.push_back((kind, count)),
            }
            self.forget_beyond(most);
            if kind.failed {
                failed_at = Some(self.place);
            }
        }
        failed_at
    }

    fn forget_beyond(&mut self, most: u64) {
        while self.kept > most
            && let Some((_, oldest)) = self.outcomes.front_mut()
        {
            let gone = (self.kept - most).min(*oldest);
            *oldest -= gone;
            self.kept -= gone;
            if *oldest == 0 {
                self.outcomes.pop_front();
            }
        }
    }

    pub(super) fn view(&self, ask: CountWindowRequest, instance: Option<&str>) -> CountWindowView {
        let mut left = match self.place.checked_sub(ask.since.min(MAX_COUNT)) {
            Some(later) => later.min(self.kept),
            None => self.kept,
        };
        let mut outcomes = Vec::new();
        for &(kind, count) in self.outcomes.iter().rev() {
            let seen = count.min(left);
            if seen == 0 {
                break;
            }
            outcomes.push((kind, seen));
            left -= seen;
        }
        outcomes.reverse();
        CountWindowView {
            place: self.place,
            outcomes,
            failing: instance.map_or(Vec::new(), |own| self.failing.of_others(own).collect()),
        }
    }
}
