//! Limits the reports of a problem that thousands of calls may have at one time.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Moment;
use crate::sync::lock;

/// A token bucket: a number of reports in a row, and then one per period.
pub(crate) struct ReportLimiter {
    burst: u32,
    period: Duration,
    tokens: Mutex<Tokens>,
}

struct Tokens {
    left: u32,
    filled: Moment,
    suppressed: u64,
}

impl ReportLimiter {
    pub(crate) fn new(burst: u32, period: Duration) -> Self {
        let tokens = Tokens { left: burst, filled: Moment::default(), suppressed: 0 };
        ReportLimiter { burst, period, tokens: Mutex::new(tokens) }
    }

    /// The number of reports that were suppressed since the previous one; `None`: suppress this one, too.
    pub(crate) fn take(&self, now: Moment) -> Option<u64> {
        let mut tokens = lock(&self.tokens);
        let earned = now.since(tokens.filled).as_micros() / self.period.as_micros();
        if let Some(earned) = u32::try_from(earned).ok().filter(|earned| *earned < self.burst) {
            tokens.left = (tokens.left + earned).min(self.burst);
            tokens.filled = tokens.filled.after(self.period * earned);
        } else {
            (tokens.left, tokens.filled) = (self.burst, now);
        }
        if tokens.left == 0 {
            tokens.suppressed += 1;
            return None;
        }
        tokens.left -= 1;
        Some(std::mem::take(&mut tokens.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 16;
    const PERIOD: Duration = Duration::from_secs(1);

    #[test]
    fn reports_are_limited_and_the_rest_counted() {
        let start = Moment(1_000_000);
        let limiter = ReportLimiter::new(BURST, PERIOD);
        for _ in 0..BURST {
            assert_eq!(limiter.take(start), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(limiter.take(start), None);
        }
        assert_eq!(limiter.take(start.after(PERIOD)), Some(5));
        assert_eq!(limiter.take(start.after(PERIOD)), None);
        let later = start.after(Duration::from_secs(u64::MAX / 2_000_000));
        assert_eq!(limiter.take(later), Some(1));
        assert_eq!(lock(&limiter.tokens).left, BURST - 1);
    }

    #[test]
    fn half_a_token_is_not_lost() {
        let start = Moment(1_000_000);
        let tokens = Tokens { left: 0, filled: start, suppressed: 0 };
        let limiter = ReportLimiter { burst: BURST, period: PERIOD, tokens: Mutex::new(tokens) };
        assert_eq!(limiter.take(start.after(PERIOD * 3 / 2)), Some(0));
        assert_eq!(limiter.take(start.after(PERIOD * 2)), Some(0));
    }

    #[test]
    fn burst_of_one_reports_once_per_period() {
        let start = Moment(1_000_000);
        let limiter = ReportLimiter::new(1, PERIOD);
        assert_eq!(limiter.take(start), Some(0));
        assert_eq!(limiter.take(start.after(PERIOD / 2)), None);
        assert_eq!(limiter.take(start.after(PERIOD)), Some(1));
        assert_eq!(limiter.take(start.after(PERIOD * 3 / 2)), None);
    }
}
