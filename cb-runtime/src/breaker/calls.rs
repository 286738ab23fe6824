//! What calls do with a breaker: admission, and the outcome.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Core;
use super::counters::Outcome;
use super::gate::{Closed, GateWord};
use super::machine::{CallResult, ProbeAdmission};
use super::permit::{Admission, Permit, SLOW, Waiting};
use super::ramp::Ramped;
use crate::clock::Moment;
use crate::error::{BreakerError, RefusalKind};
use crate::snapshot::State;
use crate::store::LeaseId;

impl Core {
    /// The fast path of [`admit`](Self::admit).
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Permit<'_>> {
        let word = self.gate.word();
        word.is_plain().then(|| Permit::new(self, word, None))
    }

    /// The fast path of [`admit`](Self::admit) for a circuit whose calls are measured.
    #[inline]
    pub(crate) fn admit_measured(&self) -> Option<Permit<'_>> {
        let word = self.gate.word();
        word.is_measuring().then(|| Permit::new(self, word, None))
    }

    pub(crate) fn admit(&self) -> Admission<'_> {
        let word = self.gate.word();
        if word.admits_all() {
            return Admission::Go(Permit::new(self, word, None));
        }
        self.admit_unclosed(word)
    }

    #[cold]
    fn admit_unclosed(&self, word: GateWord) -> Admission<'_> {
        match word.state() {
            _ if word.is_ramping() => self.admit_ramping(word),
            state if state.admits() => Admission::Go(Permit::new(self, word, None)),
            State::Open
                if !self.is_checked() && self.context.clock.now().0 >= self.due.load(Ordering::Relaxed) =>
            {
                self.admit_probe()
            }
            State::HalfOpen => self.admit_probe(),
            _ => Admission::No(self.rejection()),
        }
    }

    fn admit_ramping(&self, word: GateWord) -> Admission<'_> {
        match self.ramp.ask(self.context.clock.now()) {
            Ramped::Over => self.gate.change(word, self.closed_after_ramp()),
            Ramped::Admitted => {}
            Ramped::Rejected => {
                self.counters.add(Outcome::RampRejected);
                return Admission::No(BreakerError::new(self.name.clone(), RefusalKind::RampingUp, None));
            }
        }
        Admission::Go(Permit::new(self, word, None))
    }

    fn closed_after_ramp(&self) -> Closed {
        if self.slow_us.load(Ordering::Relaxed) == u64::MAX { Closed::Plain } else { Closed::Measuring }
    }

    /// A probe may be due. Of many callers at a time, one exchange with the store asks for them all.
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
            (ProbeAdmission::Admitted, _) => Admission::Go(Permit::new(self, word, None)),
            (ProbeAdmission::Granted(id), _) => Admission::Go(Permit::new(self, word, Some(id))),
            (ProbeAdmission::Requested(_) | ProbeAdmission::Denied, None) => Admission::No(self.rejection()),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.gate.word().state() == State::Closed
    }

    pub(crate) fn is_current(&self, word: GateWord) -> bool {
        self.gate.is_current(word)
    }

    /// Admits a caller whose request for a probe came to nothing because the circuit has closed meanwhile.
    pub(crate) fn admit_late(&self) -> Result<Permit<'_>, BreakerError> {
        let word = self.gate.word();
        if word.state().admits() { Ok(Permit::new(self, word, None)) } else { Err(self.rejection()) }
    }

    /// The error of a call that is not made; counts it.
    #[cold]
    fn rejection(&self) -> BreakerError {
        self.counters.add(Outcome::Rejected);
        let state = self.gate.word().state();
        let left = match self.due.load(Ordering::Relaxed) {
            u64::MAX => None,
            due => Some(self.remaining(Moment(due), state, self.context.clock.now())),
        };
        let (kind, span) = match state {
            State::ForcedOpen => (RefusalKind::ForcedOpen, left),
            State::Open => (RefusalKind::Open, left.or(Some(Duration::ZERO))),
            _ => (RefusalKind::ProbesTaken, None),
        };
        BreakerError::new(self.name.clone(), kind, span)
    }

    #[inline]
    pub(crate) fn record(&self, word: GateWord, lease: LeaseId, outcome: Outcome) {
        if outcome == Outcome::Success && lease == 0 && word.admits_all() && self.gate.is_unchanged(word) {
            self.counters.success(&self.context.clock);
        } else {
            self.record_slowly(word, lease, outcome, None);
        }
    }

    /// A failure that says for how long the circuit must be open.
    pub(crate) fn record_opening(&self, word: GateWord, lease: LeaseId, span: Duration) {
        self.record_slowly(word, lease, Outcome::Failure, Some(span).filter(|span| !span.is_zero()));
    }

    #[cold]
    pub(crate) fn record_slowly(
        &self,
        word: GateWord,
        lease: LeaseId,
        outcome: Outcome,
        open_for: Option<Duration>,
    ) {
        let state = word.state();
        if state == State::Disabled {
            return;
        }
        let outcome = match outcome {
            Outcome::Success if lease & SLOW != 0 => Outcome::SlowSuccess,
            Outcome::Failure if lease & SLOW != 0 => Outcome::SlowFailure,
            other => other,
        };
        let lease = lease & !SLOW;
        let probing = state == State::HalfOpen;
        let plain = matches!(outcome, Outcome::Success | Outcome::Ignored | Outcome::Cancelled);
        if plain && !probing {
            match outcome {
                Outcome::Success if self.gate.is_current(word) => self.counters.success(&self.context.clock),
                Outcome::Success => self.counters.add(Outcome::Late),
                _ => self.counters.add(outcome),
            }
            return;
        }
        let slow = matches!(outcome, Outcome::SlowSuccess | Outcome::SlowFailure);
        let failed = matches!(outcome, Outcome::Failure | Outcome::SlowFailure);
        self.transact(|inner, now| {
            // Changes are made under this lock, so what is current now stays current until it is released.
            let current = self.gate.is_current(word);
            let counts = if current && probing {
                let result = (failed || outcome == Outcome::Success || slow).then_some((!failed, slow));
                inner.machine.record_probe(lease, result, open_for, now)
            } else if current {
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

    /// Gives back a probe that was granted to a caller who has gone.
    pub(crate) fn give_back(&self, lease: LeaseId) {
        self.transact(|inner, now| inner.machine.release_probe(lease, now));
    }
}
