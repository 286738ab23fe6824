//! What the cache tells the registry, and how often it may.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::key::Unkeyable;
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::event::{CacheTier, Event};
use crate::sync::lock;

/// Takes the cache's events. Called from calls and from the background, never under a lock.
pub(crate) type Reporter = Arc<dyn Fn(Event) + Send + Sync>;

/// Trouble of one kind may be told of so often at once, and then once in [`PER_REPORT`]: ten thousand users
/// whose results cannot be read are one problem, not ten thousand.
const BURST: u32 = 16;
const PER_REPORT: Duration = Duration::from_secs(1);

/// Kinds of trouble; each is rationed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A result cannot be serialized.
    Unserializable,
    /// What is cached cannot be read as what the function returns.
    Undecodable,
    /// The store did not give or take a result.
    Store,
    /// There is no room for more at one time.
    Full,
}

const KINDS: usize = 4;

pub(super) struct Reports {
    reporter: Reporter,
    /// The machine's clock: this is about people's time, not the registry's.
    pace: Clock,
    rations: Mutex<[Ration; KINDS]>,
    /// The functions whose arguments cannot be serialized.
    unkeyable: Mutex<HashSet<&'static str>>,
}

/// A bucket of reports that fills with time.
#[derive(Clone, Copy)]
struct Ration {
    left: u32,
    filled: Moment,
    suppressed: u64,
}

impl Ration {
    /// How many were passed over since the last one that was told; `None` if this one is passed over, too.
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
        let pace = Clock::system();
        let ration = Ration { left: BURST, filled: pace.now(), suppressed: 0 };
        Reports { reporter, pace, rations: Mutex::new([ration; KINDS]), unkeyable: Mutex::default() }
    }

    pub(super) fn hit(&self, breaker: &Arc<str>, tier: CacheTier, age: Duration) {
        (self.reporter)(Event::CacheHit { breaker: breaker.clone(), tier, age });
    }

    pub(super) fn trouble(&self, kind: Trouble, breaker: &Arc<str>, problem: String) {
        let now = self.pace.now();
        let ration = lock(&self.rations)[kind as usize].take(now);
        match ration {
            None => {}
            Some(0) => self.error(breaker, problem),
            Some(more) => {
                self.error(breaker, format!("{problem} (and {more} more of the kind, not reported)"));
            }
        }
    }

    /// Once per function.
    pub(super) fn unkeyable(&self, breaker: &Arc<str>, problem: &Unkeyable) {
        let function = problem.function();
        if lock(&self.unkeyable).insert(function) {
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
    fn reports_are_rationed_and_the_rest_counted() {
        let start = Moment(1_000_000);
        let mut ration = Ration { left: BURST, filled: start, suppressed: 0 };
        for _ in 0..BURST {
            assert_eq!(ration.take(start), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(ration.take(start), None);
        }
        assert_eq!(ration.take(start.after(PER_REPORT)), Some(5));
        assert_eq!(ration.take(start.after(PER_REPORT)), None);
        let later = start.after(Duration::from_secs(u64::MAX / 2_000_000));
        assert_eq!(ration.take(later), Some(1));
        assert_eq!(ration.left, BURST - 1);
    }

    #[test]
    fn half_a_ration_is_not_lost() {
        let start = Moment(1_000_000);
        let mut ration = Ration { left: 0, filled: start, suppressed: 0 };
        assert_eq!(ration.take(start.after(PER_REPORT * 3 / 2)), Some(0));
        assert_eq!(ration.take(start.after(PER_REPORT * 2)), Some(0));
    }
}
