//! The fleet's time window, as the store had it at the last exchange.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::micros;
use crate::store::{Counts, MAX_BUCKETS, WindowAsk, WindowView};

/// A mirror of the store's buckets. All times here are the store's, in µs.
#[derive(Clone, Debug)]
pub(crate) struct TimeWindow {
    length: u64,
    width: u64,
    buckets: BTreeMap<u64, Counts>,
    /// The next exchange asks for this bucket and later ones; 0 = all.
    since: u64,
    /// The bucket that was current when all were asked for.
    asked_whole_in: u64,
}

impl TimeWindow {
    /// A window of this length, in ten buckets: it is exact to a tenth of its length.
    pub(crate) fn new(length: Duration) -> Self {
        let length = micros(length);
        let width = length.div_ceil(10);
        debug_assert!(length / width <= MAX_BUCKETS);
        TimeWindow { length, width, buckets: BTreeMap::new(), since: 0, asked_whole_in: 0 }
    }

    pub(crate) fn width(&self) -> u64 {
        self.width
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Starts empty: another epoch begins.
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
        self.since = 0;
    }

    /// What the next exchange asks for; it reports outcomes from `oldest` on.
    pub(crate) fn ask(&self, oldest: Option<u64>) -> WindowAsk {
        let oldest = oldest.map_or(u64::MAX, |at| (at / self.width).saturating_sub(1));
        WindowAsk { length_us: self.length, width_us: self.width, since: self.since.min(oldest) }
    }

    /// Takes over the answer to `ask`, as of the store's time `now`.
    pub(crate) fn update(&mut self, ask: WindowAsk, view: &WindowView, now: u64) {
        let _replaced = self.buckets.split_off(&ask.since);
        self.buckets.extend(view.buckets.iter().copied());
        let expired = now.saturating_sub(self.length) / self.width;
        self.buckets = self.buckets.split_off(&expired);
        // Reports and instances that were cut off add to earlier buckets, too: all are asked for once per bucket.
        let current = now / self.width;
        let whole = current != self.asked_whole_in;
        self.since = if whole && ask.since != 0 { 0 } else { current.saturating_sub(1) };
        if ask.since == 0 {
            self.asked_whole_in = current;
        }
    }

    /// Counts of this instance that the store has taken with a report; `at` in the store's time.
    pub(crate) fn add(&mut self, at: u64, counts: Counts) {
        let bucket = self.buckets.entry(at / self.width).or_default();
        *bucket = bucket.plus(counts);
    }

    /// What lies within the window at the store's time `now`, by number of the bucket.
    pub(crate) fn buckets(&self, now: u64) -> impl Iterator<Item = (u64, Counts)> + '_ {
        let start = now.saturating_sub(self.length);
        let inside = move |(index, _): &(&u64, &Counts)| (**index + 1) * self.width > start;
        self.buckets.iter().filter(inside).map(|(index, counts)| (*index, *counts))
    }

    /// The sum of that.
    pub(crate) fn sum(&self, now: u64) -> Counts {
        self.buckets(now).fold(Counts::default(), |sum, (_, counts)| sum.plus(counts))
    }
}
