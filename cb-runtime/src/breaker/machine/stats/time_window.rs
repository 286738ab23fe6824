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
    /// The sum of all buckets. Every failure is judged by it.
    sum: Counts,
    /// When the first bucket leaves the window. Until then, all are inside.
    whole_until: u64,
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
        TimeWindow {
            length,
            width,
            buckets: BTreeMap::new(),
            sum: Counts::default(),
            whole_until: 0,
            since: 0,
            asked_whole_in: 0,
        }
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
        self.sum_up();
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
        self.expire(now);
        // Reports, and instances that were cut off, also add to earlier buckets. All buckets are therefore
        // requested once per bucket's width.
        let current = now / self.width;
        let whole = current != self.asked_whole_in;
        self.since = if whole && request.since != 0 { 0 } else { current.saturating_sub(1) };
        if request.since == 0 {
            self.asked_whole_in = current;
        }
    }

    /// Adds this instance's counts of a merged report, each with the store's time of it.
    pub(crate) fn add(&mut self, reported: impl Iterator<Item = (u64, Counts)>, now: u64) {
        for (at, counts) in reported {
            let bucket = self.buckets.entry(at / self.width).or_default();
            *bucket = bucket.plus(counts);
        }
        self.expire(now);
    }

    /// Removes the buckets that have left the window at the store's time `now`.
    fn expire(&mut self, now: u64) {
        let expired = now.saturating_sub(self.length) / self.width;
        self.buckets = self.buckets.split_off(&expired);
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.sum = self.buckets.values().fold(Counts::default(), |sum, counts| sum.plus(*counts));
        let first = self.buckets.first_key_value();
        self.whole_until = first.map_or(0, |(index, _)| self.expiry(*index));
    }

    /// When a bucket leaves the window.
    fn expiry(&self, index: u64) -> u64 {
        index.saturating_add(1).saturating_mul(self.width).saturating_add(self.length)
    }

    /// The window's buckets at the store's time `now`, by number.
    pub(crate) fn buckets(&self, now: u64) -> impl Iterator<Item = (u64, Counts)> + '_ {
        let inside = move |(index, _): &(&u64, &Counts)| now < self.expiry(**index);
        self.buckets.iter().filter(inside).map(|(index, counts)| (*index, *counts))
    }

    /// The store's time at which the first of the window's buckets leaves it.
    pub(crate) fn next_expiry(&self, now: u64) -> Option<u64> {
        if now < self.whole_until {
            return Some(self.whole_until);
        }
        self.buckets(now).next().map(|(index, _)| self.expiry(index))
    }

    /// The sum of the window's counts at the store's time `now`.
    pub(crate) fn sum(&self, now: u64) -> Counts {
        if now < self.whole_until {
            return self.sum;
        }
        self.buckets(now).fold(Counts::default(), |sum, (_, counts)| sum.plus(counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_is_that_of_the_buckets_in_the_window() {
        let failed = |failures| Counts { failures, ..Counts::default() };
        let mut window = TimeWindow::new(Duration::from_micros(100), 10);
        assert_eq!((window.sum(1_000), window.next_expiry(1_000)), (failed(0), None));
        window.add([(1_000, failed(1)), (1_050, failed(10))].into_iter(), 1_055);
        assert_eq!((window.sum(1_055), window.next_expiry(1_055)), (failed(11), Some(1_110)));
        assert_eq!((window.sum(1_109), window.next_expiry(1_109)), (failed(11), Some(1_110)));
        assert_eq!((window.sum(1_110), window.next_expiry(1_110)), (failed(10), Some(1_160)));
        assert_eq!((window.sum(1_160), window.next_expiry(1_160)), (failed(0), None));
        let (all, view) = (window.request(None), WindowView { buckets: vec![(105, failed(20))] });
        window.update(all, &view, 1_120);
        assert_eq!((window.sum(1_120), window.next_expiry(1_120)), (failed(20), Some(1_160)));
        window.add([(1_120, failed(3))].into_iter(), 1_125);
        assert_eq!(window.sum(1_125), failed(23));
        window.clear();
        assert_eq!((window.sum(1_125), window.next_expiry(1_125)), (failed(0), None));
    }
}
