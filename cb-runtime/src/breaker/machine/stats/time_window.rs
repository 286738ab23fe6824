//! The fleet's time window at the last exchange.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::micros;
use crate::store::{Counts, MAX_BUCKETS, WindowRequest, WindowView};

/// A mirror of the store's buckets. All times here are the store's, in µs.
#[derive(Clone, Debug)]
pub(crate) struct TimeWindow {
    length: u64,
    width: u64,
    buckets: BTreeMap<u64, Counts>,
    /// The next exchange requests this bucket and later ones; 0 = all.
    since: u64,
    /// The current bucket at the latest request for all.
    asked_whole_in: u64,
}

impl TimeWindow {
    /// A window of this length, exact to one of its buckets.
    pub(crate) fn new(length: Duration, buckets: u64) -> Self {
        let length = micros(length);
        let width = length.div_ceil(buckets).max(1);
        debug_assert!(length / width <= MAX_BUCKETS);
        TimeWindow { length, width, buckets: BTreeMap::new(), since: 0, asked_whole_in: 0 }
    }

    pub(crate) fn width(&self) -> u64 {
        self.width
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Empties the window for a new epoch.
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
        self.since = 0;
    }

    /// The next exchange's request. The exchange reports outcomes from `oldest` on.
    pub(crate) fn request(&self, oldest: Option<u64>) -> WindowRequest {
        let oldest = oldest.map_or(u64::MAX, |at| (at / self.width).saturating_sub(1));
        WindowRequest { length_us: self.length, width_us: self.width, since: self.since.min(oldest) }
    }

    /// Adopts the answer to `request`, at the store's time `now`.
    pub(crate) fn update(&mut self, request: WindowRequest, view: &WindowView, now: u64) {
        let _replaced = self.buckets.split_off(&request.since);
        self.buckets.extend(view.buckets.iter().copied());
        let expired = now.saturating_sub(self.length) / self.width;
        self.buckets = self.buckets.split_off(&expired);
        // Reports, and instances that were cut off, also add to earlier buckets. All buckets are therefore
        // requested once per bucket's width.
        let current = now / self.width;
        let whole = current != self.asked_whole_in;
        self.since = if whole && request.since != 0 { 0 } else { current.saturating_sub(1) };
        if request.since == 0 {
            self.asked_whole_in = current;
        }
    }

    /// Adds this instance's counts of a merged report. `at`: the store's time.
    pub(crate) fn add(&mut self, at: u64, counts: Counts) {
        let bucket = self.buckets.entry(at / self.width).or_default();
        *bucket = bucket.plus(counts);
    }

    /// The window's buckets at the store's time `now`, by number.
    pub(crate) fn buckets(&self, now: u64) -> impl Iterator<Item = (u64, Counts)> + '_ {
        let start = now.saturating_sub(self.length);
        let inside = move |(index, _): &(&u64, &Counts)| (**index + 1) * self.width > start;
        self.buckets.iter().filter(inside).map(|(index, counts)| (*index, *counts))
    }

    /// The store's time at which the first of the window's buckets leaves it.
    pub(crate) fn next_expiry(&self, now: u64) -> Option<u64> {
        self.buckets(now).next().map(|(index, _)| (index + 1) * self.width + self.length)
    }

    /// The sum of the window's counts at the store's time `now`.
    pub(crate) fn sum(&self, now: u64) -> Counts {
        self.buckets(now).fold(Counts::default(), |sum, (_, counts)| sum.plus(counts))
    }
}
