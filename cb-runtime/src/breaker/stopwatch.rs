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

/// From which duration on a call is slow: in units of the coarse clock, or in µs if calls are measured on the
/// exact one. It is converted once, when the settings change, rather than by each call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlowLimit(u64);

/// The flag of a beginning, or of a limit, by the exact clock.
const EXACT: u64 = 1 << 63;
/// The flag of a call that has been suspended, measured or not.
const SUSPENDED: u64 = 1 << 62;
/// A call that is measured on the coarse clock from its beginning to its end has none of them.
const FLAGS: u64 = EXACT | SUSPENDED;
/// Limits below this, in µs, are measured exactly: ten ticks of the coarse clock.
const FINE: u64 = 40_000;
/// What the coarse clock may be wrong by, in µs.
const TICK: u64 = 4_000;

impl SlowLimit {
    /// Durations are not measured.
    pub(crate) const OFF: SlowLimit = SlowLimit(u64::MAX);
    /// All are measured exactly.
    #[cfg(feature = "metrics")]
    pub(crate) const EXACT: SlowLimit = SlowLimit(EXACT);
    /// They may be measured, and none is slow.
    pub(crate) const NEVER: SlowLimit = SlowLimit(!FLAGS);

    pub(crate) fn of_micros(limit_us: u64) -> Self {
        if limit_us < FINE {
            SlowLimit(limit_us | EXACT)
        } else {
            SlowLimit(limit_us.saturating_mul(COARSE).min(!FLAGS))
        }
    }

    #[inline]
    pub(crate) fn of_word(word: u64) -> Self {
        SlowLimit(word)
    }

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    pub(crate) fn is_off(self) -> bool {
        self.0 == u64::MAX
    }

    /// Whether a call of this duration is slow.
    pub(crate) fn is_reached(self, took_us: u64) -> bool {
        if self.0 & EXACT == 0 {
            took_us.saturating_mul(COARSE) >= self.0
        } else {
            !self.is_off() && took_us >= self.0 & !EXACT
        }
    }
}

impl Stopwatch {
    pub(crate) const OFF: Stopwatch = Stopwatch(0);

    #[inline]
    pub(crate) fn start(clock: &Clock, limit: SlowLimit) -> Self {
        if limit.0 & FLAGS == 0 { Stopwatch(clock.coarse()) } else { Stopwatch::start_exactly(clock, limit) }
    }

    #[cold]
    #[inline(never)]
    fn start_exactly(clock: &Clock, limit: SlowLimit) -> Self {
        if limit.is_off() { Stopwatch::OFF } else { Stopwatch(clock.now().0 | EXACT) }
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
        let begin = self.0 & !FLAGS;
        let took_us = clock.now().0.saturating_sub(begin);
        (self.0 & EXACT != 0).then(|| std::time::Duration::from_micros(took_us))
    }

    /// Whether the call, which ends now, was slow.
    #[inline]
    pub(crate) fn is_slow(self, clock: &Clock, limit: SlowLimit) -> bool {
        // Calls that are not measured do not ask.
        debug_assert!(!self.is_off());
        if (self.0 | limit.0) & FLAGS == 0 {
            // One number to keep while the clock is read. Without flags, the sum does not overflow.
            let slow_from = self.0 + limit.0;
            clock.coarse() >= slow_from
        } else {
            self.is_slow_exactly(clock, limit)
        }
    }

    /// For a call that has been suspended, or that one of the settings has measured on the exact clock.
    #[cold]
    #[inline(never)]
    fn is_slow_exactly(self, clock: &Clock, limit: SlowLimit) -> bool {
        let begin = self.0 & !FLAGS;
        if self.0 & EXACT != 0 {
            limit.is_reached(clock.now().0.saturating_sub(begin))
        } else {
            begin != 0 && limit.is_reached(clock.coarse().saturating_sub(begin) / COARSE)
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
        for limit_us in [1, 39_999, 40_000, 2_000_000] {
            let limit = SlowLimit::of_micros(limit_us);
            let at_once = Stopwatch::start(&clock, limit);
            let waiting = Stopwatch::start(&clock, limit).suspended(&clock);
            hands.advance(Duration::from_micros(limit_us - 1));
            assert!(!at_once.is_slow(&clock, limit) && !waiting.is_slow(&clock, limit), "{limit_us}");
            assert!(!limit.is_reached(limit_us - 1) && limit.is_reached(limit_us));
            hands.advance(Duration::from_micros(1));
            assert!(at_once.is_slow(&clock, limit) && waiting.is_slow(&clock, limit), "{limit_us}");
        }
        let off = Stopwatch::start(&clock, SlowLimit::OFF).suspended(&clock);
        let measured = Stopwatch::start(&clock, SlowLimit::NEVER);
        hands.advance(Duration::from_secs(1_000_000));
        assert!(!off.is_slow(&clock, SlowLimit::OFF) && !measured.is_slow(&clock, SlowLimit::NEVER));
        assert!(!SlowLimit::OFF.is_reached(u64::MAX));
    }

    #[test]
    fn call_whose_limit_changes_meanwhile_is_judged_by_the_new_one() {
        let (clock, hands) = Clock::manual();
        let limits = [1_000, 50_000].map(SlowLimit::of_micros);
        for (before, after) in [(limits[0], limits[1]), (limits[1], limits[0])] {
            let watch = Stopwatch::start(&clock, before);
            assert!(!watch.is_slow(&clock, after));
            hands.advance(Duration::from_millis(60));
            assert!(watch.is_slow(&clock, after) && !watch.is_slow(&clock, SlowLimit::OFF));
        }
    }

    #[test]
    fn time_before_the_first_suspension_counts() {
        let (clock, hands) = Clock::manual();
        let limit = SlowLimit::of_micros(100_000);
        let watch = Stopwatch::start(&clock, limit);
        hands.advance(Duration::from_millis(60));
        let watch = watch.suspended(&clock);
        hands.advance(Duration::from_millis(39));
        assert!(!watch.is_slow(&clock, limit));
        hands.advance(Duration::from_millis(1));
        assert!(watch.is_slow(&clock, limit));
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
