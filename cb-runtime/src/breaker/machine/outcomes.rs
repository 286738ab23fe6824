//! Outcomes of this instance's calls.

use std::time::Duration;

use super::stats::{Successes, Unjudged};
use super::transitions::open_for_reason;
use super::{Headroom, Now, PACE, StateMachine, Wake};
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::MAX_SPAN_US;

/// The result of a call that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResult {
    Failure {
        slow: bool,
    },
    SlowSuccess,
    /// A failure that requests to open the circuit for this duration.
    OpenFor {
        span: Duration,
        slow: bool,
    },
}

impl StateMachine {
    /// Absorbs the successes of the breaker's counters, and counts overdue probes as failed. The latest
    /// success ended between the time that the counters have noted and now. The earliest possible time is
    /// used, so that the success never erases a later failure of another instance.
    pub(crate) fn absorb(&mut self, successes: Successes, unjudged: Unjudged, now: Now) {
        if unjudged.failures > 0 || successes.count != self.absorbed {
            self.only_observes = false;
        }
        if unjudged.failures > 0 {
            self.absorb_unjudged(successes, unjudged, now);
        }
        // Strictly increasing, so that a success and a failure of this instance keep their order.
        let earliest = Moment(self.absorbed_at.0 + 1);
        let at = now.at.max(Moment(earliest.0 + 1));
        let new = successes.count.wrapping_sub(self.absorbed);
        if new > 0 && self.counts_calls() {
            let latest = successes.latest.unwrap_or(earliest).clamp(earliest, Moment(at.0 - 1));
            self.stats.successes(new, latest, at);
        }
        self.absorbed = successes.count;
        self.absorbed_at = at;
        self.expire_probes(now);
    }

    /// Absorbs failures that were not judged, and their threads' successes before them. They belong to the
    /// bucket of the latest absorption: there is no headroom beyond it. The other successes may have come
    /// after them, and are absorbed as of now.
    fn absorb_unjudged(&mut self, successes: Successes, unjudged: Unjudged, now: Now) {
        let earliest = Moment(self.absorbed_at.0 + 1);
        let end = self.stats.end_of_bucket(self.absorbed_at).unwrap_or(now.at);
        let at = unjudged.latest.min(Moment(end.0 - 1)).min(now.at).max(Moment(earliest.0 + 1));
        let new = successes.count.wrapping_sub(self.absorbed);
        let unjudged = Unjudged { successes: unjudged.successes.min(new), ..unjudged };
        if self.counts_calls() {
            let latest = successes.latest.unwrap_or(earliest).clamp(earliest, Moment(at.0 - 1));
            self.stats.unjudged(unjudged, latest, at);
            self.last_failure = Some(at);
        }
        self.absorbed = self.absorbed.wrapping_add(unjudged.successes);
        self.absorbed_at = at;
    }

    /// The failures that need not be judged. There is none without the coordinator, which looks at the
    /// breaker within its pace after a judged failure, and is not woken by the others.
    pub(crate) fn headroom(&self, now: Now) -> Option<Headroom> {
        let is_reviewed = now.store_up && self.local.is_none() && self.state() == State::Closed;
        if self.headroom == 0 || !is_reviewed {
            return None;
        }
        let until = self.stats.stays_until(now)?.min(now.at.after(PACE));
        Some(Headroom { failures: self.headroom, until })
    }

    fn counts_calls(&self) -> bool {
        matches!(self.state(), State::Closed | State::MetricsOnly)
    }

    /// Records a call that ended while closed or metrics-only. The successes before it have been absorbed.
    pub(crate) fn record_call(&mut self, result: CallResult, now: Now) {
        let at = self.absorbed_at;
        self.only_observes = false;
        let requested = match result {
            CallResult::Failure { slow } => {
                self.stats.failure(slow, at);
                self.last_failure = Some(now.at);
                None
            }
            CallResult::SlowSuccess => {
                self.stats.slow_success(at);
                None
            }
            CallResult::OpenFor { span, slow } => {
                self.stats.failure(slow, at);
                Some(span.min(Duration::from_micros(MAX_SPAN_US)))
            }
        };
        if now.store_up {
            self.wake(Wake::Paced);
        }
        if self.state() == State::MetricsOnly {
            if let Some(span) = requested {
                self.would_open_until = now.at.after(span);
            }
            return self.watch(requested.map(open_for_reason), now);
        }
        match requested {
            Some(span) => self.open_on_request(span, now),
            None => self.judge(now),
        }
    }
}
