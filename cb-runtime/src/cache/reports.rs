//! The cache's reports to the registry, and their limits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::encoding::Unserializable;
use super::function::Function;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::event::{CacheTier, Event};
use crate::report_limiter::ReportLimiter;
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
    limits: [ReportLimiter; KINDS],
    /// The functions whose arguments cannot be serialized.
    without_key: Mutex<HashSet<&'static str>>,
}

impl Reports {
    pub(super) fn new(reporter: Reporter) -> Self {
        let limits = std::array::from_fn(|_| ReportLimiter::new(BURST, PER_REPORT));
        Reports { reporter, clock: Clock::system(), limits, without_key: Mutex::default() }
    }

    pub(super) fn hit(&self, breaker: &Arc<str>, tier: CacheTier, age: Duration) {
        (self.reporter)(Event::CacheHit { breaker: breaker.clone(), tier, age });
    }

    /// `problem` is called only if it is reported.
    pub(super) fn problem(&self, kind: Problem, breaker: &str, problem: impl FnOnce() -> String) {
        match self.limits[kind as usize].take(self.clock.now()) {
            None => {}
            Some(0) => self.error(breaker, problem()),
            Some(more) => {
                let problem = problem();
                self.error(breaker, format!("{problem} ({more} more like this were not reported)"));
            }
        }
    }

    /// Reports once per function that its results are not cached.
    pub(super) fn without_key(&self, breaker: &str, function: &Function, problem: &Unserializable) {
        let function = function.path();
        if lock(&self.without_key).insert(function) {
            let problem = format!(
                "results of {function} are not cached: its arguments cannot be serialized ({problem}); \
                 a cache_key expression can take their place"
            );
            self.error(breaker, problem);
        }
    }

    fn error(&self, breaker: &str, problem: String) {
        (self.reporter)(Event::Error(Error::new(ErrorKind::Cache { breaker: breaker.into(), problem })));
    }
}
