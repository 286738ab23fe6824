//! The growth of the open time over consecutive openings.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::span;
use crate::error::Error;

/// The growth of `reset_timeout` while a circuit opens repeatedly without closing.
///
/// The n-th consecutive opening lasts `reset_timeout · factor^(n-1)`, limited by the cap, times a random
/// number between `1 - jitter` and `1 + jitter`. Openings are counted fleet-wide; a close resets the count.
///
/// ```
/// use std::time::Duration;
/// use cb_runtime::{Backoff, BreakerConfig};
///
/// // 100 ms, 300 ms, 500 ms, 500 ms, …, each 10 % more or less.
/// let config = BreakerConfig::default()
///     .reset_timeout(Duration::from_millis(100))
///     .backoff(Backoff::exponential(3.0).cap(Duration::from_millis(500)).jitter(0.1));
///
/// // In a file:
/// let same: BreakerConfig = serde_json::from_str(
///     r#"{"reset_timeout": "100ms", "backoff": {"factor": 3, "cap": "500ms", "jitter": 0.1}}"#)?;
/// assert_eq!(config, same);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    #[serde(default = "one")]
    factor: f64,
    #[serde(default, deserialize_with = "span")]
    cap: Option<Duration>,
    #[serde(default)]
    jitter: f64,
}

/// The default cap.
const CAP: Duration = Duration::from_secs(600);
/// The largest valid factor. It reaches any sensible cap at the second opening.
const LARGEST_FACTOR: f64 = 1000.0;

fn one() -> f64 {
    1.0
}

impl Backoff {
    /// No growth. Use it to add only jitter.
    pub const fn constant() -> Self {
        Backoff::exponential(1.0)
    }

    /// Multiplies the open time by `factor` (at least 1) with each consecutive opening.
    pub const fn exponential(factor: f64) -> Self {
        Backoff { factor, cap: None, jitter: 0.0 }
    }

    /// Limits the open time. Default: 10 minutes, or `reset_timeout` if that is longer.
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = Some(cap);
        self
    }

    /// Varies the open time randomly by up to this share, in [0, 1). Default: 0. Jitter keeps breakers that
    /// opened together from probing together.
    pub const fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// How long the `attempt`-th of several in a row lasts (1 = the first). `roll`: a random number in [0,
    /// 1).
    pub(crate) fn span(&self, base: Duration, attempt: u32, roll: f64) -> Duration {
        let cap = self.cap.unwrap_or(CAP.max(base)).as_secs_f64();
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let span = (base.as_secs_f64() * self.factor.powi(exponent)).min(cap);
        Duration::try_from_secs_f64(span * (1.0 + self.jitter * (2.0 * roll - 1.0))).unwrap_or(CAP)
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::config("backoff", problem));
        if !(1.0..=LARGEST_FACTOR).contains(&self.factor) {
            return wrong(format!("the factor is {}; it must be between 1 and 1000", self.factor));
        }
        if !(0.0..1.0).contains(&self.jitter) {
            return wrong(format!("the jitter is {}; it must be at least 0 and less than 1", self.jitter));
        }
        match self.cap {
            Some(cap) if cap.is_zero() => wrong("the cap is 0; it must be greater than 0".into()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "×{}", self.factor)?;
        if let Some(cap) = self.cap {
            write!(f, " up to {}", humantime::format_duration(cap))?;
        }
        if self.jitter > 0.0 {
            write!(f, " ±{} %", self.jitter * 100.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn open_time_grows_by_the_factor_up_to_the_cap() {
        let backoff = Backoff::exponential(3.0).cap(500 * MS);
        let spans: Vec<_> = (1..=4).map(|attempt| backoff.span(100 * MS, attempt, 0.7)).collect();
        assert_eq!(spans, [100 * MS, 300 * MS, 500 * MS, 500 * MS]);
    }

    #[test]
    fn jitter_shortens_and_lengthens() {
        let backoff = Backoff::constant().jitter(0.5);
        assert_eq!(backoff.span(100 * MS, 1, 0.0), 50 * MS);
        assert_eq!(backoff.span(100 * MS, 7, 0.5), 100 * MS);
    }

    proptest! {
        #[test]
        fn open_time_is_monotonic_and_bounded(
            factor in 1.0..1000.0, base in 1_u64..86_400_000, attempt in 1_u32.., roll in 0.0..1.0,
        ) {
            let backoff = Backoff::exponential(factor);
            let base = Duration::from_millis(base);
            let (this, next) = (backoff.span(base, attempt, roll), backoff.span(base, attempt.saturating_add(1), roll));
            prop_assert!(base <= this && this <= next && next <= CAP.max(base));
        }
    }
}
