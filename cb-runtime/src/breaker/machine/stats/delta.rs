//! The outcomes that this instance has not reported yet, aggregated and bounded. They have moments of this
//! instance's clock; an entry's [`Delta`] has ages instead.

use std::collections::VecDeque;

use super::count_window::CountWindow;
use crate::clock::Moment;
use crate::store::{Counts, Delta, MAX_BUCKETS, MAX_STREAK, OutcomeKind, Streak};

/// The windows to collect outcomes for, in addition to totals and streaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The width of a bucket in µs; 0 = no time window.
    pub(crate) bucket_us: u64,
    /// The length of the count window; 0 = none.
    pub(crate) last: u64,
}

/// Outcomes of one epoch, in this instance's time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PendingDelta {
    pub(crate) counts: Counts,
    /// A lower bound of the latest success's time.
    success_at: Option<Moment>,
    /// Failures after that success, oldest first: time and number.
    failures: VecDeque<(Moment, u64)>,
    shape: Shape,
    /// The beginning of each bucket and its counts, oldest first.
    buckets: VecDeque<(Moment, Counts)>,
    calls: CountWindow,
}

impl PendingDelta {
    pub(crate) fn new(shape: Shape) -> Self {
        PendingDelta { shape, calls: CountWindow::new(shape.last), ..PendingDelta::default() }
    }

    /// Collects for other windows from now on. Outcomes move to a new window of the same kind.
    pub(crate) fn reshaped(self, shape: Shape) -> Self {
        if shape == self.shape {
            return self;
        }
        let mut other = PendingDelta { shape, ..self.clone().without_windows() };
        for (middle, counts) in self.buckets() {
            if let Some(bucket) = other.bucket(middle) {
                *bucket = bucket.plus(counts);
            }
        }
        other.calls = CountWindow::new(shape.last);
        other.calls.extend(&self.calls);
        other
    }

    /// Without the windows' outcomes; totals and streak stay.
    pub(crate) fn without_windows(self) -> Self {
        let (buckets, calls) = (VecDeque::new(), CountWindow::default());
        PendingDelta { shape: Shape::default(), buckets, calls, ..self }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts == Counts::default() && self.success_at.is_none()
    }

    /// Adds `n` successes. All have ended by `now`, the latest of them at `latest` or after it.
    pub(crate) fn successes(&mut self, n: u64, latest: Moment, now: Moment) {
        self.count(Counts { successes: n, ..Counts::default() }, now);
        self.success_at = Some(latest);
        self.failures.clear();
        self.calls.push(OutcomeKind { failed: false, slow: false }, n);
    }

    /// Adds a success that took too long.
    pub(crate) fn slow_success(&mut self, now: Moment) {
        self.count(Counts { successes: 1, failures: 0, slow: 1 }, now);
        self.success_at = Some(now);
        self.failures.clear();
        self.calls.push(OutcomeKind { failed: false, slow: true }, 1);
    }

    pub(crate) fn failure(&mut self, slow: bool, now: Moment) {
        self.count(Counts { successes: 0, failures: 1, slow: u64::from(slow) }, now);
        self.calls.push(OutcomeKind { failed: true, slow }, 1);
        match self.failures.back_mut() {
            Some((at, n)) if *at == now => *n += 1,
            _ => self.failures.push_back((now, 1)),
        }
        self.bound_failures();
    }

    fn count(&mut self, counts: Counts, now: Moment) {
        self.counts = self.counts.plus(counts);
        if let Some(bucket) = self.bucket(now) {
            *bucket = bucket.plus(counts);
        }
    }

    /// Merges the oldest failures, with the latest of their times, so that a success between them erases
    /// none.
    fn bound_failures(&mut self) {
        while self.failures.len() > MAX_STREAK
            && let Some((_, n)) = self.failures.pop_front()
            && let Some(next) = self.failures.front_mut()
        {
            next.1 += n;
        }
    }

    /// The circuit has recovered at `now` by this instance's own probes: a success that ends any streak
    /// before it.
    pub(crate) fn recovered(&mut self, now: Moment) {
        *self = PendingDelta { success_at: Some(now), ..PendingDelta::new(self.shape) };
    }

    /// This delta followed by `later`.
    pub(crate) fn then(mut self, later: PendingDelta) -> PendingDelta {
        self.counts = self.counts.plus(later.counts);
        if later.success_at.is_some() {
            self.success_at = later.success_at;
            self.failures = later.failures;
        } else {
            self.failures.extend(later.failures);
            self.bound_failures();
        }
        self.calls.extend(&later.calls);
        for (begin, counts) in later.buckets {
            match self.buckets.back_mut() {
                Some((last, sum)) if *last == begin => *sum = sum.plus(counts),
                _ => self.buckets.push_back((begin, counts)),
            }
        }
        while self.buckets.len() as u64 > MAX_BUCKETS {
            self.buckets.pop_front();
        }
        self
    }

    /// The failure streak after these outcomes, given the streak before them.
    pub(crate) fn streak_after(&self, before: u64) -> u64 {
        let own: u64 = self.failures.iter().map(|(_, n)| n).sum();
        if self.success_at.is_some() { own } else { before + own }
    }

    /// The counts of the buckets that end after `start`.
    pub(crate) fn window_since(&self, start: Moment) -> Counts {
        let mut sum = Counts::default();
        for (begin, counts) in &self.buckets {
            if begin.0 + self.shape.bucket_us > start.0 {
                sum = sum.plus(*counts);
            }
        }
        sum
    }

    /// The beginning of the oldest bucket.
    pub(crate) fn oldest_bucket(&self) -> Option<Moment> {
        self.buckets.front().map(|(begin, _)| *begin)
    }

    /// The middle of each bucket, and its counts. The middle lies in exactly one of the store's buckets;
    /// the edges may lie in two.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Moment, Counts)> + '_ {
        let half = self.shape.bucket_us / 2;
        self.buckets.iter().map(move |(begin, counts)| (Moment(begin.0 + half), *counts))
    }

    pub(crate) fn calls(&self) -> &CountWindow {
        &self.calls
    }

    pub(crate) fn success_at(&self) -> Option<Moment> {
        self.success_at
    }

    /// The latest failure after the latest success.
    pub(crate) fn latest_failure(&self) -> Option<Moment> {
        self.failures.back().map(|(at, _)| *at)
    }

    /// The form in an entry: with ages instead of moments.
    pub(crate) fn aged(&self, now: Moment) -> Delta {
        let age = |at: &Moment| now.0.saturating_sub(at.0);
        Delta {
            counts: self.counts,
            streak: Streak {
                success_age_us: self.success_at.as_ref().map(age),
                failures: self.failures.iter().map(|(at, n)| (age(at), *n)).collect(),
            },
            buckets: self.buckets().map(|(middle, counts)| (age(&middle), counts)).collect(),
            calls: self.calls.runs().collect(),
        }
    }

    fn bucket(&mut self, now: Moment) -> Option<&mut Counts> {
        let width = self.shape.bucket_us;
        if width == 0 {
            return None;
        }
        // Most outcomes fall into the latest bucket, and take no division.
        if self.buckets.back().is_none_or(|(last, _)| now.0 >= last.0 + width) {
            self.buckets.push_back((Moment(now.0 / width * width), Counts::default()));
            if self.buckets.len() as u64 > MAX_BUCKETS {
                self.buckets.pop_front();
            }
        }
        self.buckets.back_mut().map(|(_, counts)| counts)
    }
}

impl Counts {
    pub(crate) fn plus(self, other: Counts) -> Counts {
        Counts {
            successes: self.successes + other.successes,
            failures: self.failures + other.failures,
            slow: self.slow + other.slow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(bucket_us: u64, last: u64) -> Shape {
        Shape { bucket_us, last }
    }

    #[test]
    fn success_ends_the_streak() {
        let mut delta = PendingDelta::new(Shape::default());
        delta.failure(false, Moment(10));
        assert_eq!(delta.streak_after(2), 3, "nothing has ended what the fleet had");
        delta.successes(1, Moment(11), Moment(20));
        delta.failure(false, Moment(21));
        delta.failure(false, Moment(21));
        assert_eq!(delta.streak_after(2), 2);
        let delta = delta.aged(Moment(31));
        assert_eq!(delta.streak, Streak { success_age_us: Some(20), failures: vec![(10, 2)] });
        assert_eq!(delta.counts, Counts { successes: 1, failures: 3, slow: 0 });
    }

    #[test]
    fn endless_streak_stays_bounded_and_keeps_its_sum() {
        let mut delta = PendingDelta::new(shape(1000, 50));
        for at in 0..100_000 {
            delta.failure(false, Moment(at * 10));
        }
        let delta = delta.aged(Moment(1_000_000));
        assert_eq!(delta.streak.failures.len(), MAX_STREAK);
        assert_eq!(delta.streak.failures.iter().map(|(_, n)| n).sum::<u64>(), 100_000);
        assert!(delta.buckets.len() as u64 <= MAX_BUCKETS);
        assert_eq!(delta.calls, [(OutcomeKind { failed: true, slow: false }, 50)]);
    }

    #[test]
    fn joined_deltas_equal_one_that_saw_all() {
        let mut whole = PendingDelta::new(shape(100, 40));
        let (mut first, mut second) = (PendingDelta::new(shape(100, 40)), PendingDelta::new(shape(100, 40)));
        for at in 0..50 {
            let part = if at < 30 { &mut first } else { &mut second };
            for delta in [part, &mut whole] {
                if at % 20 == 7 {
                    delta.successes(3, Moment(at * 10), Moment(at * 10));
                }
                if at % 9 == 4 {
                    delta.slow_success(Moment(at * 10));
                }
                delta.failure(at % 2 == 0, Moment(at * 10 + 1));
            }
        }
        assert_eq!(first.then(second), whole);
    }

    #[test]
    fn reshaping_keeps_what_fits() {
        let mut delta = PendingDelta::new(shape(100, 40));
        for at in [50, 150, 250, 350] {
            delta.failure(false, Moment(at));
        }
        let wider = delta.clone().reshaped(shape(200, 3));
        assert_eq!((wider.counts, wider.streak_after(0)), (delta.counts, 4));
        assert_eq!(wider.buckets().map(|(_, counts)| counts.failures).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(wider.calls().len(), 3);
        let none = delta.clone().reshaped(Shape::default());
        assert_eq!((none.counts, none.buckets().count(), none.calls().len()), (delta.counts, 0, 0));
        assert_eq!(delta.clone().reshaped(shape(100, 40)), delta);
    }

    #[test]
    fn only_outcomes_inside_the_window_are_summed() {
        let mut delta = PendingDelta::new(shape(100, 40));
        delta.failure(false, Moment(1_050));
        delta.failure(false, Moment(1_950));
        assert_eq!(delta.window_since(Moment(1_000)).failures, 2);
        assert_eq!(delta.window_since(Moment(1_099)).failures, 2, "part of the bucket is inside");
        assert_eq!(delta.window_since(Moment(1_100)).failures, 1);
    }
}
