//! Custom trip strategies: pure functions from counts to a decision.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A custom rule that decides whether a closed breaker trips.
///
/// It is evaluated after every failure, and about once a second while there are successes. It runs under the
/// breaker's lock, so it must be pure and fast. It sees what the fleet had counted at the last exchange and
/// what this instance has counted since. The counts start at zero with each transition.
///
/// A panic does not trip the breaker. The first one is logged.
///
/// ```
/// use cb_runtime::{BreakerConfig, TripStrategy, WindowCounts};
///
/// /// Trips at 20 failures in the window, at any rate.
/// struct TooMany;
///
/// impl TripStrategy for TooMany {
///     fn trip(&self, window: &WindowCounts<'_>) -> Option<String> {
///         let failures = window.calls().failures;
///         (failures >= 20).then(|| format!("{failures} failures (limit 20)"))
///     }
/// }
///
/// let config = BreakerConfig::default().strategy(TooMany);
/// # config.validate()?;
/// # Ok::<(), cb_runtime::Error>(())
/// ```
pub trait TripStrategy: Send + Sync + 'static {
    /// Returns the reason of a trip (the rule, its figures, the limit), or `None` if the breaker stays
    /// closed.
    fn trip(&self, window: &WindowCounts<'_>) -> Option<String>;
}

/// The counts that a [`TripStrategy`] evaluates.
#[derive(Clone, Copy, Debug)]
pub struct WindowCounts<'a> {
    pub(crate) calls: Calls,
    pub(crate) consecutive_failures: u64,
    pub(crate) failing_instances: u32,
    pub(crate) buckets: &'a [Bucket],
}

impl WindowCounts<'_> {
    /// All calls in the window.
    pub fn calls(&self) -> Calls {
        self.calls
    }

    /// The fleet's failures since its latest success.
    pub fn consecutive_failures(&self) -> u64 {
        self.consecutive_failures
    }

    /// The number of instances with failures in the window.
    pub fn failing_instances(&self) -> u32 {
        self.failing_instances
    }

    /// The buckets of the time window, oldest first, without empty ones. A count window has no buckets.
    pub fn buckets(&self) -> &[Bucket] {
        self.buckets
    }

    /// The calls of the window's last `span`, with the precision of a bucket.
    pub fn within(&self, span: Duration) -> Calls {
        let recent = self.buckets.iter().filter(|bucket| bucket.age < span);
        recent.fold(Calls::default(), |sum, bucket| sum.plus(bucket.calls))
    }
}

/// A bucket of a time window: a sixtieth of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// The time since the bucket's end; zero for the current one.
    pub age: Duration,
    /// The calls in the bucket.
    pub calls: Calls,
}

/// Counts of completed calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calls {
    /// Calls that counted as a success.
    pub successes: u64,
    /// Calls that counted as a failure.
    pub failures: u64,
    /// Successes and failures that took longer than `slow_call_duration`.
    pub slow: u64,
}

impl Calls {
    /// The sum of successes and failures.
    pub fn total(self) -> u64 {
        self.successes.saturating_add(self.failures)
    }

    /// The share of failures; 0 without calls.
    pub fn failure_rate(self) -> f64 {
        share(self.failures, self.total())
    }

    pub(crate) fn success_rate(self) -> f64 {
        share(self.successes, self.total())
    }

    /// The share of slow calls; 0 without calls.
    pub fn slow_rate(self) -> f64 {
        share(self.slow, self.total())
    }

    fn plus(self, other: Calls) -> Calls {
        Calls {
            successes: self.successes + other.successes,
            failures: self.failures + other.failures,
            slow: self.slow + other.slow,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A strategy in a breaker's settings.
#[derive(Clone)]
pub(crate) struct Strategy {
    /// The type's name, which identifies the strategy in reports and comparisons.
    name: &'static str,
    rule: Arc<dyn TripStrategy>,
    has_panicked: Arc<AtomicBool>,
}

impl Strategy {
    pub(crate) fn new<S: TripStrategy>(strategy: S) -> Self {
        let name = std::any::type_name::<S>();
        Strategy { name, rule: Arc::new(strategy), has_panicked: Arc::default() }
    }

    pub(crate) fn trip(&self, window: &WindowCounts<'_>) -> Option<String> {
        catch_unwind(AssertUnwindSafe(|| self.rule.trip(window))).unwrap_or_else(|_| {
            if !self.has_panicked.swap(true, Ordering::Relaxed) {
                tracing::error!(target: "cb_runtime", strategy = self.name, "a trip strategy panicked; the breaker stays closed");
            }
            None
        })
    }
}

impl PartialEq for Strategy {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
