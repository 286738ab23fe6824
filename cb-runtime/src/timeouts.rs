//! How long an instance waits for its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::micros;
use crate::error::Error;

/// See [`RegistryBuilder::response_timeout`](crate::RegistryBuilder::response_timeout).
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(400);
const SHORTEST: Duration = Duration::from_millis(20);
/// Leases last two seconds, and could not be renewed over a slower connection.
const LONGEST: Duration = Duration::from_secs(2);
/// An entry adds this to the time limit of its exchange or report: what Redis takes for one entry of each of
/// a thousand instances. What makes an instance send many makes all of them send many: a start, a deploy,
/// the end of an outage.
const EXCHANGED: Duration = Duration::from_millis(20);
const REPORTED: Duration = Duration::from_millis(5);

/// All time limits of the store follow from one, because all of them depend on the round trip. Clones share
/// what has been measured.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    response: Duration,
    /// The longest of the latest answer times, in microseconds.
    longest_us: Arc<AtomicU64>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { response: RESPONSE_TIMEOUT, longest_us: Arc::default() }
    }
}

impl Timeouts {
    pub(crate) fn new(response: Duration) -> Result<Self, Error> {
        if response < SHORTEST || response > LONGEST {
            let problem = format!("{response:?} is invalid; it must be from {SHORTEST:?} to {LONGEST:?}");
            return Err(Error::config("response_timeout", problem));
        }
        Ok(Timeouts { response, ..Timeouts::default() })
    }

    /// For an answer that a caller waits for.
    pub(crate) fn response(&self) -> Duration {
        self.response
    }

    /// Notes how long an answer took.
    pub(crate) fn answered(&self, span: Duration) {
        let before = self.longest_us.load(Ordering::Relaxed);
        self.longest_us.store(micros(span).max(before - before / 8), Ordering::Relaxed);
    }

    /// The longest of the latest answer times.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }

    /// For the answer to an exchange of this number of entries.
    pub(crate) fn exchange(&self, entries: usize) -> Duration {
        self.loss() + EXCHANGED * count(entries)
    }

    /// For the answer to a report of this number of entries.
    pub(crate) fn report(&self, entries: usize) -> Duration {
        self.loss() + REPORTED * count(entries)
    }

    /// For another answer, or a connection attempt: the store counts as lost after it. A store that is slow
    /// is not one that is lost: the limit leaves room for a first slow answer, and grows with the answer
    /// times, to five times the response timeout. 0.8 s to 2 s by default.
    pub(crate) fn loss(&self) -> Duration {
        (self.longest() * 4).clamp(self.response * 2, self.response * 5)
    }

    /// For the fleet's states, while a new registry is built: 0.5 s by default.
    pub(crate) fn connection(&self) -> Duration {
        self.response * 5 / 4
    }

    /// Tests on a busy machine must not fail because it is busy.
    #[cfg(all(test, feature = "redis"))]
    pub(crate) fn patient() -> Self {
        Timeouts { response: Duration::from_secs(15), ..Timeouts::default() }
    }

    /// A coordinator without a heartbeat for this long is gone, and the store counts as lost: 2 s by default.
    pub(crate) fn silence(&self) -> Duration {
        self.response * 5
    }
}

fn count(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_response_timeout() {
        let default = Timeouts::default();
        let millis = |span: Duration| span.as_millis();
        assert_eq!(millis(default.response()), 400);
        assert_eq!(millis(default.connection()), 500);
        assert_eq!(millis(default.silence()), 2000);
        assert_eq!(millis(default.loss()), 800);
        assert_eq!([0, 50].map(|entries| millis(default.exchange(entries))), [800, 1800]);
        assert_eq!([0, 50].map(|entries| millis(default.report(entries))), [800, 1050]);
        let longest = Timeouts::new(LONGEST).unwrap();
        assert_eq!(millis(longest.loss()), 4000);
        for invalid in [Duration::ZERO, SHORTEST / 2, LONGEST * 2] {
            let error = Timeouts::new(invalid).unwrap_err();
            assert_eq!(error.field(), Some("response_timeout"), "{error}");
        }
    }

    #[test]
    fn limit_of_a_loss_follows_the_answer_times() {
        let timeouts = Timeouts::default();
        let store = timeouts.clone();
        timeouts.answered(Duration::from_millis(300));
        assert_eq!(store.loss(), Duration::from_millis(1200));
        timeouts.answered(Duration::from_secs(1));
        assert_eq!(store.loss(), Duration::from_secs(2));
        // Some quick answers, and it is what it was.
        for _ in 0..16 {
            timeouts.answered(Duration::from_millis(1));
        }
        assert_eq!(store.loss(), Duration::from_millis(800));
    }
}
