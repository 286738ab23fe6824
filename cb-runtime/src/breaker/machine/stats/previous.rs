//! What the windows held when a reload put others in their place: still counted, until it has left the new ones.

use super::count_window::{CountWindow, CountWindowTotals};
use super::delta::PendingDelta;
use super::time_window::TimeWindow;
use crate::clock::Moment;
use crate::store::{Counts, MAX_BUCKETS};

/// The store keeps what the fleet tells for one window apart from what it tells for another, and each outcome
/// is told for one only. So nothing of this is in a window that came after, unless that has been looked at before.
#[derive(Clone, Debug, Default)]
pub(super) struct PreviousWindows {
    /// Length of the window that it was told for, in µs; the middle of what was a bucket.
    buckets: Vec<(u64, Moment, Counts)>,
    /// How many calls the window had that they were told for; oldest first.
    calls: Vec<(u64, CountWindow)>,
}

/// Whoever reloads often keeps the latest.
const WINDOWS: usize = 16;

impl PreviousWindows {
    /// With what the fleet has counted for a window of time. `skew`: the store's clock minus this instance's, in µs.
    pub(super) fn add_time(
        &mut self,
        time: &TimeWindow,
        flight: Option<&PendingDelta>,
        now: Moment,
        skew: u64,
    ) {
        let middle = |number: u64| number.saturating_mul(time.width()).saturating_add(time.width() / 2);
        let mirrored = time
            .buckets(now.0.wrapping_add(skew))
            .map(|(number, counts)| (Moment(middle(number).wrapping_sub(skew)), counts));
        let told = mirrored.chain(flight.into_iter().flat_map(PendingDelta::buckets));
        self.buckets.extend(told.map(|(at, counts)| (time.length(), at, counts)));
        self.buckets.sort_by_key(|(_, at, _)| *at);
        let most = WINDOWS * usize::try_from(MAX_BUCKETS).unwrap_or(usize::MAX);
        self.buckets.drain(..self.buckets.len().saturating_sub(most));
    }

    /// With the fleet's last calls.
    pub(super) fn add_calls(&mut self, last: &CountWindowTotals, flight: Option<&PendingDelta>) {
        let mut calls = last.outcomes.clone();
        if let Some(flight) = flight {
            calls.extend(flight.calls());
        }
        if calls.len() > 0 {
            self.calls.push((last.calls(), calls));
        }
        self.calls.drain(..self.calls.len().saturating_sub(WINDOWS));
    }

    /// Without what was told for this window: the store has just shown all of it.
    pub(super) fn forget_time(&mut self, time: &TimeWindow) {
        self.buckets.retain(|(length, ..)| *length != time.length());
    }

    pub(super) fn forget_calls(&mut self, last: &CountWindowTotals) {
        self.calls.retain(|(calls, _)| *calls != last.calls());
    }

    /// What of it happened after `start`.
    pub(super) fn window_since(&self, start: Moment) -> Counts {
        let inside = self.buckets.iter().filter(|(_, at, _)| *at > start);
        inside.fold(Counts::default(), |sum, (.., counts)| sum.plus(*counts))
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (Moment, Counts)> + '_ {
        self.buckets.iter().map(|(_, at, counts)| (*at, *counts))
    }

    pub(super) fn calls(&self) -> impl DoubleEndedIterator<Item = &CountWindow> {
        self.calls.iter().map(|(_, calls)| calls)
    }
}
