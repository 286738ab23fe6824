//! The ramp-up of a circuit that has just recovered: it admits a growing share of the calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::counters::ONE;
use crate::clock::{Moment, micros};

/// Read by every call of that time, and so without a lock; in integers, because each call computes its share.
#[derive(Default)]
pub(crate) struct Ramp {
    since: AtomicU64,
    /// In µs; 0 = there is none.
    length: AtomicU64,
    /// What a microsecond adds to the share, in [`ONE`]ths of a [`ONE`]th.
    slope: AtomicU64,
    /// No call has been admitted yet. A breaker with few calls must not wait for the tenth.
    untried: AtomicBool,
}

/// The share at the beginning: see [`policy::admitted_share`](super::machine::policy::admitted_share).
const TENTH: u64 = ONE / 10;

/// The ramp's answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ramped {
    /// The ramp-up has ended: all calls are admitted.
    Over,
    Admitted,
    Rejected,
}

impl Ramp {
    /// Under the lock of the breaker; calls meet it after the gate has been set.
    pub(crate) fn set(&self, ramp: Option<(Moment, Duration)>) {
        let (since, length) = ramp.map_or((0, 0), |(since, length)| (since.0, micros(length)));
        self.since.store(since, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        let slope = u128::from(ONE - TENTH) * u128::from(ONE) / u128::from(length.max(1));
        self.slope.store(u64::try_from(slope).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.untried.store(length > 0, Ordering::Relaxed);
    }

    /// `add_share` adds the call's share to a sum, and says whether that has passed a whole number. A sum per
    /// thread does, because the sums of all threads grow by the share of all calls.
    #[inline]
    pub(crate) fn admit(&self, now: Moment, add_share: impl FnOnce(u64) -> bool) -> Ramped {
        let recovered_for = now.0.saturating_sub(self.since.load(Ordering::Relaxed));
        if recovered_for >= self.length.load(Ordering::Relaxed) {
            return Ramped::Over;
        }
        let slope = self.slope.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "below ONE, as the ramp is not over")]
        let grown = (u128::from(recovered_for) * u128::from(slope) / u128::from(ONE)) as u64;
        let whole = add_share(TENTH + grown);
        let first = self.untried.load(Ordering::Relaxed) && self.untried.swap(false, Ordering::Relaxed);
        if whole || first { Ramped::Admitted } else { Ramped::Rejected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::counters::ShardedCounter;
    use crate::breaker::machine::policy;

    #[test]
    fn exactly_the_share_is_admitted_and_the_first_call_is() {
        let (ramp, counters) = (Ramp::default(), ShardedCounter::new(true));
        let begin = Moment(1_000_000);
        ramp.set(Some((begin, Duration::from_secs(10))));
        let ask = |now: Moment| ramp.admit(now, |share| counters.add_share(share));
        let admitted = |now: Moment| (0..100).filter(|_| ask(now) == Ramped::Admitted).count();
        assert_eq!(ask(begin), Ramped::Admitted);
        assert!((9..=11).contains(&admitted(begin)));
        let half = begin.after(Duration::from_secs(5));
        assert!((54..=56).contains(&admitted(half)));
        assert_eq!(ask(begin.after(Duration::from_secs(10))), Ramped::Over);
        ramp.set(None);
        assert_eq!(ask(begin), Ramped::Over);
    }

    #[test]
    fn several_threads_admit_the_share_together() {
        let (ramp, counters) = (Ramp::default(), ShardedCounter::new(true));
        let begin = Moment(1_000_000);
        ramp.set(Some((begin, Duration::from_secs(3600))));
        let ask = || ramp.admit(begin, |share| counters.add_share(share)) == Ramped::Admitted;
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..20).map(|_| scope.spawn(|| (0..1000).filter(|_| ask()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // One more for the first call, and one at most for what each thread's sum had in it.
        assert!((1979..=2022).contains(&admitted), "{admitted}");
    }

    #[test]
    fn admitted_share_matches_the_policy() {
        for length in [Duration::from_micros(7), Duration::from_secs(60), Duration::from_secs(1 << 20)] {
            let ramp = Ramp::default();
            ramp.set(Some((Moment(5), length)));
            for part in [0, 1, 3, 6] {
                let recovered_for = length / 7 * part;
                let mut share = 0;
                ramp.admit(Moment(5).after(recovered_for), |asked| {
                    share = asked;
                    false
                });
                let meant = policy::admitted_share(length, recovered_for).unwrap();
                #[expect(clippy::cast_precision_loss, reason = "below 2^33")]
                let share = share as f64 / ONE as f64;
                assert!((share - meant).abs() < 1e-6, "{length:?}, {part}: {share}, {meant}");
            }
        }
    }
}
