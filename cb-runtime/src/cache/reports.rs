//! The cache's reports to the registry, and their limits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::encoding::Unserializable;
use super::function::Function;
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::event::{CacheTier, Event};
use crate::sync::lock;

/// Receives the cache's events, on callers' threads and in the background, never under a lock.
pub(crate) type Reporter = Arc<dyn Fn(Event) + Send + Sync>;

/// Problems of one kind are reported this many times in a row, and then once per [`PER_REPORT`]: ten thousand
/// users whose results cannot be read are one problem, not ten thousand.
const BURST: u32 = 16;
const PER_REPORT: Duration = Duration::from_secs(1);

/// Kinds of problems. Each kind is limited by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// A result cannot be serialized, or would be read back changed.
    Unserializable,
    /// A cached result cannot be read as the function's type.
    Undecodable,
    /// The store could not be read or written.
    Store,
    /// A result is too large, or the queue is full.
    Full,
}

const KINDS: usize = 4;

pub(super) struct Reports {
    reporter: Reporter,
    /// The machine's clock, even if a test moves the registry's: reports are limited in real time.
    clock: Clock,
    limits: Mutex<[Limit; KINDS]>,
    /// The functions whose arguments cannot be serialized.
    without_key: Mutex<HashSet<&'static str>>,
}

/// A token bucket.
#[derive(Clone, Copy)]
struct Limit {
    left: u32,
    filled: Moment,
    suppressed: u64,
}

impl Limit {
    /// How many reports were suppressed since the last one; `None`: this one is suppressed, too.
    fn take(&mut self, now: Moment) -> Option<u64> {
        let earned = now.since(self.filled).as_micros() / PER_REPORT.as_micros();
        if let Some(earned) = u32::try_from(earned).ok().filter(|earned| *earned < BURST) {
            self.left = (self.left + earned).min(BURST);
            self.filled = self.filled.after(PER_REPORT * earned);
        } else {
            (self.left, self.filled) = (BURST, now);
        }
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Reports {
    pub(super) fn new(reporter: Reporter) -> Self {
        let clock = Clock::system();
        let limit = Limit { left: BURST, filled: clock.now(), suppressed: 0 };
        Reports { reporter, clock, limits: Mutex::new([limit; KINDS]), without_key: Mutex::default() }
    }

    pub(super) fn hit(&self, breaker: &Arc<str>, tier: CacheTier, age: Duration) {
        (self.reporter)(Event::CacheHit { breaker: breaker.clone(), tier, age });
    }

    /// `problem` is called only if it is reported.
    pub(super) fn problem(&self, kind: Problem, breaker: &Arc<str>, problem: impl FnOnce() -> String) {
        let now = self.clock.now();
        let granted = lock(&self.limits)[kind as usize].take(now);
        match granted {
            None => {}
            Some(0) => self.error(breaker, problem()),
            Some(more) => {
                let problem = problem();
                self.error(breaker, format!("{problem} ({more} more like this were not reported)"));
            }
        }
    }

    /// Reports once per function that its results are not cached.
    pub(super) fn without_key(&self, breaker: &Arc<str>, function: &Function, problem: &Unserializable) {
        let function = function.path();
        if lock(&self.without_key).insert(function) {
            let problem = format!(
                "results of {function} are not cached: its arguments cannot be serialized ({problem}); \
                 a cache_key expression can take their place"
            );
            self.error(breaker, problem);
        }
    }

    fn error(&self, breaker: &Arc<str>, problem: String) {
        (self.reporter)(Event::Error(Error::new(ErrorKind::Cache { breaker: breaker.clone(), problem })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_limited_and_the_rest_counted() {
        let start = Moment(1_000_000);
        let mut limit = Limit { left: BURST, filled: start, suppressed: 0 };
        for _ in 0..BURST {
            assert_eq!(limit.take(start), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(limit.take(start), None);
        }
        assert_eq!(limit.take(start.after(PER_REPORT)), Some(5));
        assert_eq!(limit.take(start.after(PER_REPORT)), None);
        let later = start.after(Duration::from_secs(u64::MAX / 2_000_000));
        assert_eq!(limit.take(later), Some(1));
        assert_eq!(limit.left, BURST - 1);
    }

    #[test]
    fn half_a_token_is_not_lost() {
        let start = Moment(1_000_000);
        let mut limit = Limit { left: 0, filled: start, suppressed: 0 };
        assert_eq!(limit.take(start.after(PER_REPORT * 3 / 2)), Some(0));
        assert_eq!(limit.take(start.after(PER_REPORT * 2)), Some(0));
    }
}
