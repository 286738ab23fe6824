//! A breaker's side towards its health checks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::machine::StateMachine;
use super::machine::health::{CheckContext, CheckVerdict, Ticket};
use super::{Core, Inner};
use crate::clock::Moment;
use crate::event::Event;
use crate::health::HealthCheck;
use crate::snapshot::State;
use crate::sync::lock;

/// A health check that is to be made.
pub(crate) struct Check {
    ticket: Ticket,
    pub(crate) what: HealthCheck,
    pub(crate) timeout: Duration,
    /// To be held until the check has ended. `None`: so many have not ended that this one cannot be made.
    pub(crate) slot: Option<Arc<()>>,
}

#[cfg(test)]
impl Check {
    /// Of the role that it is made in.
    pub(crate) fn token(&self) -> Option<u64> {
        self.ticket.token()
    }
}

impl Core {
    /// Open circuits wait for a health check, and not for a probe.
    pub(super) fn is_checked(&self) -> bool {
        self.check_interval_us() > 0
    }

    /// 0 = nobody checks. That is so after the end, too, when live traffic has to find out.
    fn check_interval_us(&self) -> u64 {
        if self.context.has_ended() { 0 } else { self.checked_every_us.load(Ordering::Relaxed) }
    }

    /// How long a rejected caller had better wait: until the state's time is over, which was `until`. Where health checks go on
    /// failing, until the next of them: exact where they are made, elsewhere as if they came at their interval.
    pub(super) fn left_of(&self, until: Moment, state: State, now: Moment) -> Duration {
        let every = self.check_interval_us();
        let until = until.max(Moment(self.next_check.load(Ordering::Relaxed)));
        if until > now || state != State::Open || every == 0 {
            return until.since(now);
        }
        Duration::from_micros(every - (now.0 - until.0) % every)
    }

    /// What is to be decided on about checks.
    pub(super) fn check_context<'a>(&self, machine: &'a StateMachine, now: Moment) -> CheckContext<'a> {
        CheckContext {
            settings: machine.settings(),
            standing: machine.standing(),
            generation: self.gate.word().generation(),
            alone: !self.store_up() || machine.is_alone(),
            unconfirmed: machine.proposes(),
            now,
        }
    }

    /// The health check that this instance is to make now, if it is. Its end is told by [`checked`](Self::checked).
    pub(crate) fn begin_check(&self) -> Option<Check> {
        if !self.is_checked() {
            return None;
        }
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        let Inner { machine, checks, .. } = &mut *inner;
        let order = checks.begin(self.check_context(machine, now))?;
        let health = machine.settings().health.as_ref()?;
        Some(Check {
            ticket: order.ticket,
            what: health.check.clone(),
            timeout: health.timeout(),
            slot: order.slot,
        })
    }

    /// A health check has ended, with this result.
    pub(crate) fn checked(&self, check: &Check, result: Result<(), String>, took: Duration) {
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        // Under the lock that a loss of the store takes: a change made after it must not be proposed at the heal.
        let store_up = self.store_up();
        inner.machine.fold(self.counters.drain(), now);
        let Inner { machine, checks, .. } = &mut *inner;
        let error = result.as_ref().err().map(String::as_str);
        let change = match checks.end(&check.ticket, error, self.check_context(machine, now), fastrand::f64())
        {
            CheckVerdict::Late | CheckVerdict::Stay => None,
            CheckVerdict::Close { reason, token } => {
                Some(machine.close_after_check(reason, token, now, store_up))
            }
            CheckVerdict::Open { reason, token } => {
                Some(machine.open_after_check(reason, token, now, store_up))
            }
        };
        let next = checks.next().map_or(0, |next| next.0);
        let changed = change.is_some();
        if changed {
            self.publish_state(&inner.machine);
        } else {
            self.next_check.store(next, Ordering::Relaxed);
        }
        let epoch = inner.machine.epoch();
        drop(inner);
        self.context.events.emit(Event::HealthCheck { breaker: self.name.clone(), result, took });
        self.emit_local(change, epoch);
        if changed && store_up {
            self.mark_dirty(true);
        }
    }

    /// The registry is being shut down: no more checks here, and another instance may make them at once.
    pub(crate) fn step_down(&self) {
        lock(&self.inner).checks.step_down();
    }
}
