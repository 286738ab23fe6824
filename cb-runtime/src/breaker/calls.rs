//! Admission and outcomes of calls.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Core;
use super::counters::Outcome;
use super::gate::{Closed, GateWord};
use super::machine::{CallResult, ProbeAdmission};
use super::permit::{Admission, Asked, AtGate, CallPermit, Rejection, Waiting};
use super::ramp::Ramped;
use crate::clock::{Moment, TICK};
use crate::error::{BreakerError, RefusalKind};
use crate::snapshot::State;
use crate::store::LeaseId;

impl Core {
    /// Asks the gate to admit a call: from memory, without a lock.
    #[expect(clippy::inline_always, reason = "a call would pass the answer through memory")]
    #[inline(always)]
    pub(crate) fn ask(&self) -> Asked<'_> {
        let word = self.gate.word();
        let answer = if word.admits_all() { AtGate::Admitted } else { self.at_gate(word) };
        Asked::new(self, word, answer)
    }

    pub(crate) fn admit(&self) -> Admission<'_> {
        let asked = self.ask();
        match asked.admitted() {
            _ if asked.must_wait() => self.admit_at_machine(),
            Ok(permit) => Admission::Go(permit),
            Err(rejection) => Admission::No(rejection),
        }
    }

    /// For what is not closed. One load of the coarse clock at most, and one addition in the thread's own
    /// line.
    #[inline(never)]
    fn at_gate(&self, word: GateWord) -> AtGate {
        let outcome = match word.state() {
            State::Closed => match self.ask_ramp(word) {
                Ramped::Rejected => Outcome::RampRejected,
                Ramped::Admitted | Ramped::Over => return AtGate::Admitted,
            },
            State::Disabled | State::MetricsOnly => return AtGate::Admitted,
            State::ForcedOpen => Outcome::Rejected,
            State::Open | State::HalfOpen => {
                let until = Moment(self.rejects_until.load(Ordering::Relaxed));
                if self.context.clock.coarse_now().after(TICK) >= until {
                    return AtGate::Unknown;
                }
                Outcome::Rejected
            }
        };
        self.counters.add(outcome);
        AtGate::Rejected
    }

    #[inline]
    fn ask_ramp(&self, word: GateWord) -> Ramped {
        let ramped = self.ramp.ask(self.context.clock.coarse_now(), |share| self.counters.add_share(share));
        if ramped == Ramped::Over {
            self.gate.change(word, self.closed_after_ramp());
        }
        ramped
    }

    #[cold]
    fn closed_after_ramp(&self) -> Closed {
        if self.slow_us.load(Ordering::Relaxed) == u64::MAX { Closed::Plain } else { Closed::Measuring }
    }

    #[cold]
    fn admit_at_machine(&self) -> Admission<'_> {
        let state = self.gate.word().state();
        let is_due = || self.context.clock.now().0 >= self.due.load(Ordering::Relaxed);
        if state == State::Open && (self.is_checked() || !is_due()) {
            return Admission::No(self.rejection());
        }
        self.admit_probe()
    }

    /// Asks the machine for a probe. One exchange requests the leases of all waiting callers.
    fn admit_probe(&self) -> Admission<'_> {
        let (admission, word) = self.transact_at_gate(|inner, now| {
            let admission = inner.machine.admit_probe(now);
            let answer = if let ProbeAdmission::Requested(id) = admission {
                let (sender, receiver) = oneshot::channel();
                inner.callers.push((id, sender));
                Some(receiver)
            } else {
                None
            };
            (admission, answer)
        });
        match admission {
            (_, Some(answer)) => Admission::Wait(Waiting::new(self, answer)),
            (ProbeAdmission::Admitted, _) => Admission::Go(CallPermit::new(self, word)),
            (ProbeAdmission::Granted(id), _) => Admission::Go(CallPermit::of_probe(self, id)),
            (ProbeAdmission::Requested(_) | ProbeAdmission::Denied, None) => Admission::No(self.rejection()),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.gate.word().state() == State::Closed
    }

    pub(crate) fn is_current(&self, word: GateWord) -> bool {
        self.gate.is_current(word)
    }

    /// Admits a caller whose request for a probe was dropped because the circuit has closed meanwhile.
    pub(crate) fn admit_late(&self) -> Result<CallPermit<'_>, Rejection<'_>> {
        let word = self.gate.word();
        if word.state().admits() { Ok(CallPermit::new(self, word)) } else { Err(self.rejection()) }
    }

    /// Counts a rejected call.
    fn rejection(&self) -> Rejection<'_> {
        self.counters.add(Outcome::Rejected);
        Rejection::new(self, self.gate.word())
    }

    /// The error of a call that was rejected under this word of the gate.
    pub(crate) fn rejection_error(&self, word: GateWord) -> BreakerError {
        let (kind, span) = match word.state() {
            State::Closed => (RefusalKind::RampingUp, None),
            State::ForcedOpen => (RefusalKind::ForcedOpen, self.remaining_at_most(State::ForcedOpen)),
            State::Open => (RefusalKind::Open, self.remaining_at_most(State::Open).or(Some(Duration::ZERO))),
            _ => (RefusalKind::ProbesTaken, None),
        };
        BreakerError::new(self.error_name.clone(), kind, span)
    }

    /// The remaining time of a state, limited to its whole duration, because the coarse clock may be late.
    fn remaining_at_most(&self, state: State) -> Option<Duration> {
        let due = match self.due.load(Ordering::Relaxed) {
            u64::MAX => return None,
            due => Moment(due),
        };
        if self.is_checked() {
            return Some(self.remaining(due, state, self.context.clock.now()));
        }
        let length = Duration::from_micros(self.due_after.load(Ordering::Relaxed));
        Some(due.since(self.context.clock.coarse_now()).min(length))
    }

    #[expect(clippy::inline_always, reason = "it is the end of every call")]
    #[inline(always)]
    pub(crate) fn record(&self, word: GateWord, outcome: Outcome) {
        // A word with a note in it is never the gate's.
        if outcome == Outcome::Success && word.admits_all() && self.gate.is_unchanged(word) {
            self.counters.success(&self.context.clock, || self.mark_counted());
        } else {
            self.record_slowly(word, outcome, None);
        }
    }

    /// Records a failure that determines how long the circuit is open.
    pub(crate) fn record_opening(&self, word: GateWord, span: Duration) {
        self.record_slowly(word, Outcome::Failure, Some(span).filter(|span| !span.is_zero()));
    }

    #[cold]
    #[inline(never)]
    fn record_slowly(&self, word: GateWord, outcome: Outcome, open_for: Option<Duration>) {
        let state = word.state();
        if state == State::Disabled {
            return;
        }
        let outcome = match outcome {
            Outcome::Success if word.was_slow() => Outcome::SlowSuccess,
            Outcome::Failure if word.was_slow() => Outcome::SlowFailure,
            other => other,
        };
        let lease = word.lease();
        let plain = matches!(outcome, Outcome::Success | Outcome::Ignored | Outcome::Cancelled);
        if plain && lease.is_none() {
            match outcome {
                Outcome::Success if self.gate.is_current(word) => {
                    self.counters.success(&self.context.clock, || self.mark_counted());
                }
                Outcome::Success => self.counters.add(Outcome::Late),
                _ => self.counters.add(outcome),
            }
            return;
        }
        let slow = matches!(outcome, Outcome::SlowSuccess | Outcome::SlowFailure);
        let failed = matches!(outcome, Outcome::Failure | Outcome::SlowFailure);
        self.transact(|inner, now| {
            if failed {
                self.last_failure.store(now.at.0, Ordering::Relaxed);
            }
            // Changes are made under this lock, so what is current now stays current until it is released.
            let counts = if let Some(lease) = lease {
                let result = (failed || outcome == Outcome::Success || slow).then_some((!failed, slow));
                inner.machine.record_probe(lease, result, open_for, now)
            } else if self.gate.is_current(word) {
                let result = match open_for {
                    Some(span) => CallResult::OpenFor(span),
                    None if failed => CallResult::Failure { slow },
                    None => CallResult::SlowSuccess,
                };
                inner.machine.record_call(result, now);
                true
            } else {
                false
            };
            let late = !counts && outcome != Outcome::Cancelled;
            self.counters.add(if late { Outcome::Late } else { outcome });
        });
    }

    pub(crate) fn limit_probe(&self, lease: LeaseId, limit: Duration) {
        self.transact(|inner, _| inner.machine.limit_probe(lease, limit));
    }

    /// Returns a probe that was granted to a caller that has been dropped.
    pub(crate) fn give_back(&self, lease: LeaseId) {
        self.transact(|inner, now| inner.machine.release_probe(lease, now));
    }
}
