//! What the windows held when a reload put others in their place: still counted, until it has left the new ones.

use super::evidence::Evidence;
use super::sequence::{LastCalls, Sequence};
use super::window::Mirror;
use crate::clock::Moment;
use crate::store::{Counts, MAX_BUCKETS, MAX_LAST};

/// The store keeps what the fleet tells for one window apart from what it tells for another, and each outcome
/// is told for one only. So nothing of this is in the windows that came after.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    /// In the middle of what was a bucket.
    buckets: Vec<(Moment, Counts)>,
    calls: Sequence,
}

impl Carried {
    /// With what the fleet has counted for a window of time. `skew`: the store's clock minus this instance's, in µs.
    pub(super) fn with_time(
        mut self,
        time: &Mirror,
        flight: Option<&Evidence>,
        now: Moment,
        skew: u64,
    ) -> Self {
        let middle = |number: u64| number.saturating_mul(time.width()).saturating_add(time.width() / 2);
        let mirrored = time
            .buckets(now.0.wrapping_add(skew))
            .map(|(number, counts)| (Moment(middle(number).wrapping_sub(skew)), counts));
        self.buckets.extend(mirrored);
        self.buckets.extend(flight.into_iter().flat_map(Evidence::buckets));
        // Whoever reloads often keeps the latest.
        self.buckets.sort_by_key(|(at, _)| *at);
        let most = 2 * usize::try_from(MAX_BUCKETS).unwrap_or(usize::MAX);
        self.buckets.drain(..self.buckets.len().saturating_sub(most));
        self
    }

    /// With the fleet's last calls.
    pub(super) fn with_calls(mut self, last: &LastCalls, flight: Option<&Evidence>) -> Self {
        let mut calls = Sequence::new(u64::from(MAX_LAST));
        for part in [&self.calls, &last.outcomes].into_iter().chain(flight.map(Evidence::calls)) {
            calls.extend(part);
        }
        self.calls = calls;
        self
    }

    /// What of it happened after `start`.
    pub(super) fn window_since(&self, start: Moment) -> Counts {
        let inside = self.buckets.iter().filter(|(at, _)| *at > start);
        inside.fold(Counts::default(), |sum, (_, counts)| sum.plus(*counts))
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (Moment, Counts)> + '_ {
        self.buckets.iter().copied()
    }

    pub(super) fn calls(&self) -> &Sequence {
        &self.calls
    }
}
