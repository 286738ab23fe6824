//! Users' own rules: a pure function from counts to a verdict.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A rule of your own that says whether a closed breaker trips.
///
/// It is asked after every failure, and ten times a second while there are calls, under the breaker's lock: a pure and
/// quick function of what it is given. It sees what the whole fleet had counted at the last exchange and what this
/// instance has counted since; all of it starts at nothing with every change of state. If it panics, that is reported
/// once, and it does not trip.
///
/// ```
/// use cb_runtime::{BreakerConfig, TripStrategy, WindowCounts};
///
/// /// Trips at 20 failures in the window, whatever their share.
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
    /// Why the breaker trips: the rule, its figures, the limit. `None`: it does not.
    fn trip(&self, window: &WindowCounts<'_>) -> Option<String>;
}

/// What a [`TripStrategy`] judges by.
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

    /// Failures since the latest success, of the whole fleet.
    pub fn consecutive_failures(&self) -> u64 {
        self.consecutive_failures
    }

    /// How many instances had failures in the window.
    pub fn failing_instances(&self) -> u32 {
        self.failing_instances
    }

    /// The time window in pieces, oldest first, without those in which there were no calls. Nothing if the window is one of
    /// the last calls.
    pub fn buckets(&self) -> &[Bucket] {
        self.buckets
    }

    /// The calls of the last `span` of the time window, to the precision of a bucket.
    pub fn within(&self, span: Duration) -> Calls {
        let recent = self.buckets.iter().filter(|bucket| bucket.age < span);
        recent.fold(Calls::default(), |sum, bucket| sum.plus(bucket.calls))
    }
}

/// A piece of a time window: a sixtieth of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// How long ago it ended; zero for the current one.
    pub age: Duration,
    /// What happened in it.
    pub calls: Calls,
}

/// Calls with a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calls {
    /// How many counted as a success.
    pub successes: u64,
    /// How many counted as a failure.
    pub failures: u64,
    /// How many of both took longer than `slow_call_duration`.
    pub slow: u64,
}

impl Calls {
    /// Successes and failures.
    pub fn total(self) -> u64 {
        self.successes.saturating_add(self.failures)
    }

    /// The share of failures; 0 where there were no calls.
    pub fn failure_rate(self) -> f64 {
        share(self.failures, self.total())
    }

    /// The share of slow calls; 0 where there were no calls.
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

/// A strategy as settings hold it.
#[derive(Clone)]
pub(crate) struct Strategy {
    /// Of its type: what it is called in reports, and how two of them are told apart.
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
                tracing::error!(target: "cb_runtime", strategy = self.name, "a trip strategy has panicked; it does not trip");
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
