//! How long a call takes, where somebody asks: a clock costs more than all the rest of a call.
//!
//! A call that waits for something is measured exactly, to the microsecond. One that is ready at once (or blocks its
//! thread) is measured on a coarse clock, for a fifth of the price: to some 4 ms, which is why a limit
//! below [`FINE`] is measured on the exact one throughout.

use crate::clock::Clock;

/// When the call began, in µs; zero if it is not measured. One word, as the future of every call holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(u64);

const OFF: Stopwatch = Stopwatch(0);
/// Set where the beginning is one of the exact clock.
const EXACT: u64 = 1 << 63;
/// Limits below this, in µs, are measured exactly: ten ticks of the coarse clock.
const FINE: u64 = 40_000;
/// What the coarse clock may be wrong by, in µs.
const TICK: u64 = 4_000;

impl Stopwatch {
    /// `limit_us`: from when on a call is slow; `u64::MAX` = nobody asks.
    #[inline]
    pub(crate) fn start(clock: &Clock, limit_us: u64) -> Self {
        if limit_us == u64::MAX {
            OFF
        } else if limit_us < FINE {
            Stopwatch(clock.now().0 | EXACT)
        } else {
            Stopwatch(clock.coarse().0)
        }
    }

    /// The call waits for something: exact from now on.
    pub(crate) fn suspended(self, clock: &Clock) -> Self {
        if self.0 == 0 || self.0 & EXACT != 0 {
            return self;
        }
        // One tick means nothing; more was spent on the thread.
        let spent = Some(clock.coarse().0.saturating_sub(self.0)).filter(|spent| *spent > TICK).unwrap_or(0);
        Stopwatch(clock.now().0.saturating_sub(spent) | EXACT)
    }

    /// Whether the call, which ends now, was slow.
    #[inline]
    pub(crate) fn is_slow(self, clock: &Clock, limit_us: u64) -> bool {
        self.0 != 0 && self.took(clock) >= limit_us
    }

    fn took(self, clock: &Clock) -> u64 {
        let now = if self.0 & EXACT == 0 { clock.coarse() } else { clock.now() };
        now.0.saturating_sub(self.0 & !EXACT)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_call_is_slow_from_its_limit_on() {
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
    fn what_was_spent_on_the_thread_before_waiting_counts() {
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
    fn the_coarse_clock_goes_with_the_exact_one() {
        let clock = Clock::system();
        let (before, coarse) = (clock.coarse(), clock.coarse());
        assert!(before <= coarse);
        let begun = clock.coarse();
        while clock.coarse().since(begun) < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
    }
}
