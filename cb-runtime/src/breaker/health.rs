//! The coordinator's side of health checks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Core;
use super::machine::health::CheckTicket;
use crate::clock::Moment;
use crate::event::Event;
use crate::health::HealthCheck;
use crate::snapshot::State;

/// A health check to run.
pub(crate) struct Check {
    ticket: CheckTicket,
    pub(crate) what: HealthCheck,
    pub(crate) timeout: Duration,
    /// Held until the check has ended. `None`: too many checks have not ended, so this one fails without
    /// being run.
    pub(crate) slot: Option<Arc<()>>,
}

#[cfg(test)]
impl Check {
    /// The fencing token of the leader that runs it.
    pub(crate) fn token(&self) -> Option<u64> {
        self.ticket.token()
    }
}

impl Core {
    /// Whether open circuits wait for a health check instead of a probe.
    pub(crate) fn is_checked(&self) -> bool {
        self.check_interval_us() > 0
    }

    /// 0 = there are no checks. After a shutdown there are none, and live traffic probes.
    fn check_interval_us(&self) -> u64 {
        if self.context.has_ended() { 0 } else { self.checked_every_us.load(Ordering::Relaxed) }
    }

    /// The time after which a rejected caller should retry: until the reset timeout has elapsed, at
    /// `until`; while health checks fail, until the next check. The latter is exact at the instance that
    /// checks, and an estimate from the interval elsewhere.
    pub(super) fn remaining(&self, until: Moment, state: State, now: Moment) -> Duration {
        let every = self.check_interval_us();
        let until = until.max(Moment(self.next_check.load(Ordering::Relaxed)));
        if until > now || state != State::Open || every == 0 {
            return until.since(now);
        }
        Duration::from_micros(every - (now.0 - until.0) % every)
    }

    /// Whether its state has health checks.
    pub(crate) fn has_checks(&self) -> bool {
        self.is_checked() && self.transact(|inner, now| inner.machine.has_checks(now))
    }

    /// The health check that this instance must run now, if any. Its result is passed to
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

    /// Handles the result of a health check.
    pub(crate) fn end_check(&self, check: &Check, result: Result<(), String>, took: Duration) {
        let error = result.as_ref().err().cloned();
        self.transact(|inner, now| inner.machine.end_check(&check.ticket, error.as_deref(), now));
        // A listener that moves the clock then does not affect the decision.
        self.context.events.emit(Event::HealthCheck { breaker: self.name.clone(), result, took });
    }

    /// Prepares for the shutdown: the next exchange returns probes and the leader lease.
    pub(crate) fn step_down(&self) {
        self.transact(|inner, _| inner.machine.step_down());
    }
}
