//! What the coordinator does about a breaker's health checks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Core;
use super::machine::health::CheckTicket;
use crate::clock::Moment;
use crate::event::Event;
use crate::health::HealthCheck;
use crate::snapshot::State;

/// A health check that is to be made.
pub(crate) struct Check {
    ticket: CheckTicket,
    pub(crate) what: HealthCheck,
    pub(crate) timeout: Duration,
    /// To be held until the check has ended. `None`: too many have not ended, and this one fails without being made.
    pub(crate) slot: Option<Arc<()>>,
}

#[cfg(test)]
impl Check {
    /// Of the leader that makes it.
    pub(crate) fn token(&self) -> Option<u64> {
        self.ticket.token()
    }
}

impl Core {
    /// Open circuits wait for a health check, and not for a probe.
    pub(crate) fn is_checked(&self) -> bool {
        self.check_interval_us() > 0
    }

    /// 0 = there are no checks. That is so after a shutdown, too, when live traffic has to probe.
    fn check_interval_us(&self) -> u64 {
        if self.context.has_ended() { 0 } else { self.checked_every_us.load(Ordering::Relaxed) }
    }

    /// How long a rejected caller had better wait: until the reset timeout has elapsed, at `until`. Where health checks go
    /// on failing, until the next check: exact where it is made, elsewhere as if checks came at their interval.
    pub(super) fn remaining(&self, until: Moment, state: State, now: Moment) -> Duration {
        let every = self.check_interval_us();
        let until = until.max(Moment(self.next_check.load(Ordering::Relaxed)));
        if until > now || state != State::Open || every == 0 {
            return until.since(now);
        }
        Duration::from_micros(every - (now.0 - until.0) % every)
    }

    /// The health check that this instance is to make now, if it is. Its end is reported by
    /// [`end_check`](Self::end_check).
    pub(crate) fn begin_check(&self) -> Option<Check> {
        if !self.is_checked() {
            return None;
        }
        let unfinished = Arc::strong_count(&self.check_slots) - 1;
        self.transact(|inner, now| {
            let ticket = inner.machine.begin_check(unfinished, now)?;
            let health = inner.machine.settings().health.as_ref()?;
            Some(Check {
                slot: (!ticket.blocked).then(|| self.check_slots.clone()),
                ticket,
                what: health.check.clone(),
                timeout: health.timeout(),
            })
        })
    }

    /// A health check has ended with this result.
    pub(crate) fn end_check(&self, check: &Check, result: Result<(), String>, took: Duration) {
        let error = result.as_ref().err().cloned();
        self.context.events.emit(Event::HealthCheck { breaker: self.name.clone(), result, took });
        self.transact(|inner, now| inner.machine.end_check(&check.ticket, error.as_deref(), now));
    }

    /// The registry is being shut down: probes go back and health checks are left to other instances, both with the
    /// next exchange.
    pub(crate) fn step_down(&self) {
        self.transact(|inner, _| inner.machine.step_down());
    }
}
