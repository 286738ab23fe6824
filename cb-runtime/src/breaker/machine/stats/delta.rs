//! How an instance collects the outcomes that it has not reported yet: aggregated, and bounded.

use crate::clock::Moment;
use crate::store::{CountWindow, Counts, Delta, MAX_BUCKETS, MAX_STREAK, OutcomeKind, Streak};

/// The windows to collect outcomes for, in addition to totals and streaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The width of a bucket in µs; 0 = no time window.
    pub(crate) bucket_us: u64,
    /// The length of the count window; 0 = none.
    pub(crate) last: u64,
}

impl Shape {
    /// The middle of the bucket at this moment.
    fn middle(self, at: Moment) -> Moment {
        Moment(at.0 / self.bucket_us * self.bucket_us + self.bucket_us / 2)
    }

    /// The end of the bucket with this middle.
    fn end(self, middle: Moment) -> u64 {
        middle.0 + self.bucket_us.div_ceil(2)
    }
}

impl Delta<Moment> {
    pub(crate) fn new(shape: Shape) -> Self {
        Delta { calls: CountWindow::new(shape.last), ..Delta::default() }
    }

    /// Moves the outcomes to other windows of the same kinds.
    pub(crate) fn reshaped(self, shape: Shape) -> Self {
        let mut other = Delta { counts: self.counts, streak: self.streak, ..Delta::new(shape) };
        for (middle, counts) in self.buckets {
            other.count_in_bucket(counts, middle, shape);
        }
        other.calls.extend(&self.calls);
        other
    }

    /// Without the windows' outcomes; totals and streak stay.
    pub(crate) fn without_windows(self) -> Self {
        Delta { counts: self.counts, streak: self.streak, ..Delta::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_nothing() && self.streak.success.is_none()
    }

    /// Adds `n` successes. All have ended by `now`, the latest of them at `latest` or after it.
    pub(crate) fn successes(&mut self, n: u64, latest: Moment, now: Moment, shape: Shape) {
        self.count(Counts { successes: n, ..Counts::default() }, now, shape);
        self.streak.success = Some(latest);
        self.streak.failures.clear();
        self.calls.push(OutcomeKind { failed: false, slow: false }, n);
    }

    /// Adds a success that took too long.
    pub(crate) fn slow_success(&mut self, now: Moment, shape: Shape) {
        self.count(Counts { successes: 1, failures: 0, slow: 1 }, now, shape);
        self.streak.success = Some(now);
        self.streak.failures.clear();
        self.calls.push(OutcomeKind { failed: false, slow: true }, 1);
    }

    pub(crate) fn failure(&mut self, slow: bool, now: Moment, shape: Shape) {
        self.failures(1, slow, now, shape);
    }

    /// Adds `n` failures, one or more.
    pub(crate) fn failures(&mut self, n: u64, slow: bool, now: Moment, shape: Shape) {
        self.count(Counts { successes: 0, failures: n, slow: if slow { n } else { 0 } }, now, shape);
        self.calls.push(OutcomeKind { failed: true, slow }, n);
        match self.streak.failures.last_mut() {
            Some((at, sum)) if *at == now => *sum += n,
            _ => self.streak.failures.push((now, n)),
        }
        self.streak.bound(MAX_STREAK);
    }

    fn count(&mut self, counts: Counts, now: Moment, shape: Shape) {
        self.counts = self.counts.plus(counts);
        self.count_in_bucket(counts, now, shape);
    }

    fn count_in_bucket(&mut self, counts: Counts, now: Moment, shape: Shape) {
        match self.buckets.last_mut() {
            _ if shape.bucket_us == 0 => {}
            // Most outcomes fall into the latest bucket, and take no division.
            Some((middle, sum)) if now.0 < shape.end(*middle) => *sum = sum.plus(counts),
            _ => {
                self.buckets.push((shape.middle(now), counts));
                self.bound_buckets();
            }
        }
    }

    fn bound_buckets(&mut self) {
        while self.buckets.len() as u64 > MAX_BUCKETS {
            self.buckets.remove(0);
        }
    }

    /// The circuit has recovered at `now` by this instance's own probes: a success that ends any streak
    /// before it.
    pub(crate) fn recovered(now: Moment, shape: Shape) -> Self {
        let streak = Streak { success: Some(now), failures: Vec::new() };
        Delta { streak, ..Delta::new(shape) }
    }

    /// This delta followed by `later`.
    pub(crate) fn then(mut self, later: Self) -> Self {
        self.counts = self.counts.plus(later.counts);
        if later.streak.success.is_some() {
            self.streak = later.streak;
        } else {
            self.streak.failures.extend(later.streak.failures);
            self.streak.bound(MAX_STREAK);
        }
        self.calls.extend(&later.calls);
        for (middle, counts) in later.buckets {
            match self.buckets.last_mut() {
                Some((last, sum)) if *last == middle => *sum = sum.plus(counts),
                _ => self.buckets.push((middle, counts)),
            }
        }
        self.bound_buckets();
        self
    }

    /// The failure streak after these outcomes, given the streak before them.
    pub(crate) fn streak_after(&self, before: u64) -> u64 {
        let own = self.streak.len();
        if self.streak.success.is_some() { own } else { before + own }
    }

    /// The counts of the buckets that end after `start`.
    pub(crate) fn window_since(&self, start: Moment, shape: Shape) -> Counts {
        let inside = self.buckets.iter().filter(|(middle, _)| shape.end(*middle) > start.0);
        inside.fold(Counts::default(), |sum, (_, counts)| sum.plus(*counts))
    }

    /// The latest failure after the latest success.
    pub(crate) fn latest_failure(&self) -> Option<Moment> {
        self.streak.failures.last().map(|(at, _)| *at)
    }

    /// The delta with ages at `as_of` instead of moments.
    pub(crate) fn aged(&self, as_of: Moment) -> Delta {
        let age = |at: Moment| as_of.0.saturating_sub(at.0);
        Delta {
            counts: self.counts,
            streak: Streak {
                success: self.streak.success.map(age),
                failures: self.streak.failures.iter().map(|&(at, n)| (age(at), n)).collect(),
            },
            buckets: self.buckets.iter().map(|&(middle, counts)| (age(middle), counts)).collect(),
            calls: self.calls.clone(),
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
        let none = Shape::default();
        let mut delta = Delta::new(none);
        delta.failure(false, Moment(10), none);
        assert_eq!(delta.streak_after(2), 3, "nothing has ended what the fleet had");
        delta.successes(1, Moment(11), Moment(20), none);
        delta.failure(false, Moment(21), none);
        delta.failure(false, Moment(21), none);
        assert_eq!(delta.streak_after(2), 2);
        let delta = delta.aged(Moment(31));
        assert_eq!(delta.streak, Streak { success: Some(20), failures: vec![(10, 2)] });
        assert_eq!(delta.counts, Counts { successes: 1, failures: 3, slow: 0 });
    }

    #[test]
    fn endless_streak_stays_bounded_and_keeps_its_sum() {
        let shape = shape(1000, 50);
        let mut delta = Delta::new(shape);
        for at in 0..100_000 {
            delta.failure(false, Moment(at * 10), shape);
        }
        let delta = delta.aged(Moment(1_000_000));
        assert_eq!(delta.streak.failures.len(), MAX_STREAK);
        assert_eq!(delta.streak.failures.iter().map(|(_, n)| n).sum::<u64>(), 100_000);
        assert!(delta.buckets.len() as u64 <= MAX_BUCKETS);
        assert!(delta.calls.runs().eq([(OutcomeKind { failed: true, slow: false }, 50)]));
    }

    #[test]
    fn joined_deltas_equal_one_that_saw_all() {
        let shape = shape(100, 40);
        let mut whole = Delta::new(shape);
        let (mut first, mut second) = (Delta::new(shape), Delta::new(shape));
        for at in 0..50 {
            let part = if at < 30 { &mut first } else { &mut second };
            for delta in [part, &mut whole] {
                if at % 20 == 7 {
                    delta.successes(3, Moment(at * 10), Moment(at * 10), shape);
                }
                if at % 9 == 4 {
                    delta.slow_success(Moment(at * 10), shape);
                }
                delta.failure(at % 2 == 0, Moment(at * 10 + 1), shape);
            }
        }
        assert_eq!(first.then(second), whole);
    }

    #[test]
    fn reshaping_keeps_what_fits() {
        let mut delta = Delta::new(shape(100, 40));
        for at in [50, 150, 250, 350] {
            delta.failure(false, Moment(at), shape(100, 40));
        }
        let wider = delta.clone().reshaped(shape(200, 3));
        assert_eq!((wider.counts, wider.streak_after(0)), (delta.counts, 4));
        assert_eq!(wider.buckets.iter().map(|(_, counts)| counts.failures).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(wider.calls.len(), 3);
        let none = delta.clone().reshaped(Shape::default());
        assert_eq!((none.counts, none.buckets.len(), none.calls.len()), (delta.counts, 0, 0));
        assert_eq!(delta.clone().reshaped(shape(100, 40)), delta);
    }

    #[test]
    fn only_outcomes_inside_the_window_are_summed() {
        let shape = shape(100, 40);
        let mut delta = Delta::new(shape);
        delta.failure(false, Moment(1_050), shape);
        delta.failure(false, Moment(1_950), shape);
        assert_eq!(delta.window_since(Moment(1_000), shape).failures, 2);
        assert_eq!(delta.window_since(Moment(1_099), shape).failures, 2, "part of the bucket is inside");
        assert_eq!(delta.window_since(Moment(1_100), shape).failures, 1);
    }
}
