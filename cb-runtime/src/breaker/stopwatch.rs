//! How long a call takes, where somebody asks: a clock costs more than all the rest of a call.
//!
//! A call that waits for something is measured exactly, to the microsecond. One that is ready at once (or blocks its
//! thread) is measured on a coarse clock, for a fifth of the price: to some 4 ms, which is why a limit
//! below [`FINE`] is measured on the exact one throughout.

use crate::clock::{Clock, Moment};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stopwatch {
    Off,
    Coarse { begun: Moment, limit_us: u64 },
    Exact { begun: Moment, limit_us: u64 },
}

/// Limits below this, in µs, are measured exactly: ten ticks of the coarse clock.
const FINE: u64 = 40_000;
/// What the coarse clock may be wrong by, in µs.
const TICK: u64 = 4_000;

impl Stopwatch {
    /// `limit_us`: from when on a call is slow; `u64::MAX` = nobody asks.
    #[inline]
    pub(crate) fn start(clock: &Clock, limit_us: u64) -> Self {
        if limit_us == u64::MAX {
            return Stopwatch::Off;
        }
        if limit_us < FINE {
            return Stopwatch::Exact { begun: clock.now(), limit_us };
        }
        Stopwatch::Coarse { begun: clock.coarse(), limit_us }
    }

    /// The call waits for something: exact from now on.
    pub(crate) fn suspended(self, clock: &Clock) -> Self {
        let Stopwatch::Coarse { begun, limit_us } = self else { return self };
        // One tick means nothing; more was spent on the thread.
        let spent = Some(clock.coarse().0.saturating_sub(begun.0)).filter(|spent| *spent > TICK).unwrap_or(0);
        Stopwatch::Exact { begun: Moment(clock.now().0.saturating_sub(spent)), limit_us }
    }

    /// Whether the call, which ends now, was slow.
    #[inline]
    pub(crate) fn is_slow(self, clock: &Clock) -> bool {
        match self {
            Stopwatch::Off => false,
            Stopwatch::Coarse { begun, limit_us } => clock.coarse().0.saturating_sub(begun.0) >= limit_us,
            Stopwatch::Exact { begun, limit_us } => clock.now().0.saturating_sub(begun.0) >= limit_us,
        }
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
            assert!(!at_once.is_slow(&clock) && !waiting.is_slow(&clock), "{limit}");
            hands.advance(Duration::from_micros(1));
            assert!(at_once.is_slow(&clock) && waiting.is_slow(&clock), "{limit}");
        }
        let off = Stopwatch::start(&clock, u64::MAX).suspended(&clock);
        hands.advance(Duration::from_secs(1_000_000));
        assert!(!off.is_slow(&clock));
    }

    #[test]
    fn what_was_spent_on_the_thread_before_waiting_counts() {
        let (clock, hands) = Clock::manual();
        let watch = Stopwatch::start(&clock, 100_000);
        hands.advance(Duration::from_millis(60));
        let watch = watch.suspended(&clock);
        hands.advance(Duration::from_millis(39));
        assert!(!watch.is_slow(&clock));
        hands.advance(Duration::from_millis(1));
        assert!(watch.is_slow(&clock));
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
