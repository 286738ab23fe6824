//! The outcomes of windows that a reload has replaced. They count until they would have left the new windows.

use super::count_window::FleetCountWindow;
use super::time_window::TimeWindow;
use crate::breaker::machine::Now;
use crate::clock::Moment;
use crate::store::{CountWindow, Counts, Delta, MAX_BUCKETS};

/// The store keeps each window's outcomes apart, and each outcome is reported for one window only. So none of
/// these is in a later window, unless that window has been in use before.
#[derive(Clone, Debug, Default)]
pub(super) struct PreviousWindows {
    /// The length of the window in µs, the middle of a bucket, its counts.
    buckets: Vec<(u64, Moment, Counts)>,
    /// The length of the window in calls, and its outcomes; oldest first.
    calls: Vec<(u64, CountWindow)>,
}

/// The number of replaced windows that are kept.
const WINDOWS: usize = 16;

impl PreviousWindows {
    /// Adds the fleet's counts of a time window.
    pub(super) fn add_time(&mut self, time: &TimeWindow, sent: Option<&Delta<Moment>>, now: Now) {
        let middle = |number: u64| number.saturating_mul(time.width()).saturating_add(time.width() / 2);
        let mirrored = time
            .buckets(now.store_time())
            .map(|(number, counts)| (Moment(middle(number).wrapping_sub(now.skew)), counts));
        let reported = mirrored.chain(sent.into_iter().flat_map(|sent| sent.buckets.iter().copied()));
        self.buckets.extend(reported.map(|(at, counts)| (time.length(), at, counts)));
        self.buckets.sort_by_key(|(_, at, _)| *at);
        let most = WINDOWS * usize::try_from(MAX_BUCKETS).unwrap_or(usize::MAX);
        self.buckets.drain(..self.buckets.len().saturating_sub(most));
    }

    /// Adds the fleet's count window.
    pub(super) fn add_calls(&mut self, last: &FleetCountWindow, sent: Option<&Delta<Moment>>) {
        let mut calls = last.outcomes.clone();
        if let Some(sent) = sent {
            calls.extend(&sent.calls);
        }
        if calls.len() > 0 {
            self.calls.push((last.calls(), calls));
        }
        self.calls.drain(..self.calls.len().saturating_sub(WINDOWS));
    }

    /// Drops the outcomes of this window, after the store has answered with all of them.
    pub(super) fn forget_time(&mut self, time: &TimeWindow) {
        self.buckets.retain(|(length, ..)| *length != time.length());
    }

    pub(super) fn forget_calls(&mut self, last: &FleetCountWindow) {
        self.calls.retain(|(calls, _)| *calls != last.calls());
    }

    /// The counts after `start`.
    pub(super) fn window_since(&self, start: Moment) -> Counts {
        let inside = self.buckets.iter().filter(|(_, at, _)| *at > start);
        inside.fold(Counts::default(), |sum, (.., counts)| sum.plus(*counts))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty() && self.calls.is_empty()
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (Moment, Counts)> + '_ {
        self.buckets.iter().map(|(_, at, counts)| (*at, *counts))
    }

    pub(super) fn calls(&self) -> impl DoubleEndedIterator<Item = &CountWindow> {
        self.calls.iter().map(|(_, calls)| calls)
    }
}
