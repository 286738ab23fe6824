//! Measures the duration of a call, only if a rule needs it: reading a clock costs more than the rest of a
//! call.
//!
//! A call that waits for something is measured exactly, to the microsecond. One that is ready at once (or
//! blocks its thread) is measured on a coarse clock, for a fifth of the price: to some 4 ms, which is why a
//! limit below [`FINE`] is measured on the exact one throughout.

use crate::clock::{COARSE, Clock};

/// When the call began: by the coarse clock, in its units, or by the exact one, in µs. Zero if it is not
/// measured. One word, as the future of every call holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(u64);

/// The flag of a beginning by the exact clock.
const EXACT: u64 = 1 << 63;
/// The flag of a call that has been suspended, measured or not.
const SUSPENDED: u64 = 1 << 62;
/// Limits below this, in µs, are measured exactly: ten ticks of the coarse clock.
const FINE: u64 = 40_000;
/// What the coarse clock may be wrong by, in µs.
const TICK: u64 = 4_000;

impl Stopwatch {
    pub(crate) const OFF: Stopwatch = Stopwatch(0);

    /// `limit_us`: the duration of a slow call; `u64::MAX` = durations are not measured.
    #[inline]
    pub(crate) fn start(clock: &Clock, limit_us: u64) -> Self {
        if limit_us == u64::MAX {
            Stopwatch::OFF
        } else if limit_us < FINE {
            Stopwatch(clock.now().0 | EXACT)
        } else {
            Stopwatch(clock.coarse())
        }
    }

    /// Whether the call is not measured.
    #[inline]
    pub(crate) fn is_off(self) -> bool {
        self.0 == 0
    }

    /// Whether the call has been suspended before.
    pub(crate) fn was_suspended(self) -> bool {
        self.0 & SUSPENDED != 0
    }

    /// Notes that the call is suspended. From now on it is measured exactly.
    pub(crate) fn suspended(self, clock: &Clock) -> Self {
        if self.0 == 0 || self.0 & EXACT != 0 {
            return Stopwatch(self.0 | SUSPENDED);
        }
        // One tick means nothing; more was spent on the thread.
        let spent = clock.coarse().saturating_sub(self.0) / COARSE;
        let spent = if spent > TICK { spent } else { 0 };
        Stopwatch(clock.now().0.saturating_sub(spent) | EXACT | SUSPENDED)
    }

    /// How long the call, which ends now, took. `None` if it was not measured from its beginning on the exact
    /// clock.
    #[cfg(feature = "metrics")]
    pub(crate) fn elapsed(self, clock: &Clock) -> Option<std::time::Duration> {
        let begin = self.0 & !(EXACT | SUSPENDED);
        let took_us = clock.now().0.saturating_sub(begin);
        (self.0 & EXACT != 0).then(|| std::time::Duration::from_micros(took_us))
    }

    /// Whether the call, which ends now, was slow.
    #[inline]
    pub(crate) fn is_slow(self, clock: &Clock, limit_us: u64) -> bool {
        if self.0 & (EXACT | SUSPENDED) == 0 {
            // Calls that are not measured do not ask.
            debug_assert!(!self.is_off());
            return clock.coarse().saturating_sub(self.0) >= limit_us.saturating_mul(COARSE);
        }
        let begin = self.0 & !(EXACT | SUSPENDED);
        if self.0 & EXACT == 0 {
            begin != 0 && clock.coarse().saturating_sub(begin) >= limit_us.saturating_mul(COARSE)
        } else {
            clock.now().0.saturating_sub(begin) >= limit_us
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn call_is_slow_from_its_limit_on() {
        let (clock, hands) = Clock::manual();
        for limit in [1, 39_999, 40_000, 2_000_000] {
            let at_once = Stopwatch::start(&clock, limit);
            let waiting = Stopwatch::start(&clock, limit).suspended(&clock);
            hands.advance(Duration::from_micros(limit - 1));
            assert!(!at_once.is_slow(&clock, limit) && !waiting.is_slow(&clock, limit), "{limit}");
            hands.advance(Duration::from_micros(1));
            assert!(at_once.is_slow(&clock, limit) && waiting.is_slow(&clock, limit), "{limit}");
        }
        let off = Stopwatch::start(&clock, u64::MAX).suspended(&clock);
        hands.advance(Duration::from_secs(1_000_000));
        assert!(!off.is_slow(&clock, u64::MAX));
    }

    #[test]
    fn time_before_the_first_suspension_counts() {
        let (clock, hands) = Clock::manual();
        let watch = Stopwatch::start(&clock, 100_000);
        hands.advance(Duration::from_millis(60));
        let watch = watch.suspended(&clock);
        hands.advance(Duration::from_millis(39));
        assert!(!watch.is_slow(&clock, 100_000));
        hands.advance(Duration::from_millis(1));
        assert!(watch.is_slow(&clock, 100_000));
    }

    #[test]
    fn coarse_clock_follows_the_exact_one() {
        let clock = Clock::system();
        let (before, coarse) = (clock.coarse(), clock.coarse());
        assert!(before <= coarse);
        let begun = clock.coarse();
        while clock.coarse() - begun < 20_000 * COARSE {
            std::hint::spin_loop();
        }
    }
}
