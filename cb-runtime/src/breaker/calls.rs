//! Admission and outcomes of calls.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::counters::Outcome;
use super::gate::{Closed, GateWord};
use super::machine::{CallResult, Now, ProbeAdmission};
use super::permit::{Admission, CallPermit, Decision, GateAdmission, Rejection, Waiting};
use super::ramp::Ramped;
use super::{Core, Inner};
use crate::clock::{Moment, micros};
use crate::error::{BreakerError, RefusalKind};
use crate::snapshot::State;
use crate::store::{LeaseId, OutcomeKind};

impl Core {
    /// Admits a call by the gate alone: from memory, without a lock.
    #[expect(clippy::inline_always, reason = "a call would pass the answer through memory")]
    #[inline(always)]
    pub(crate) fn admit_at_gate(&self) -> GateAdmission<'_> {
        let word = self.gate.word();
        let (word, decision) =
            if word.admits_all() { (word, Decision::Admitted) } else { self.at_gate(word) };
        GateAdmission::new(self, word, decision)
    }

    pub(crate) fn admit(&self) -> Admission<'_> {
        let admission = self.admit_at_gate();
        match admission.admitted() {
            _ if admission.must_wait() => self.admit_at_machine(),
            Ok(permit) => Admission::Go(permit),
            Err(rejection) => Admission::No(rejection),
        }
    }

    /// As [`admit_at_gate`](Self::admit_at_gate), where a fallback answers the call if it is rejected.
    #[expect(clippy::inline_always, reason = "see above")]
    #[inline(always)]
    pub(crate) fn admit_at_gate_with_fallback(&self) -> GateAdmission<'_> {
        let word = self.gate.word();
        let (word, decision) =
            if word.admits_all() { (word, Decision::Admitted) } else { self.at_gate_with_fallback(word) };
        GateAdmission::new(self, word, decision)
    }

    /// For what is not closed: returns the word of the call's permit, or of its rejection.
    #[inline(never)]
    fn at_gate(&self, word: GateWord) -> (GateWord, Decision) {
        self.reject_until_due(word, Outcome::Rejected, Outcome::RampRejected)
    }

    #[inline(never)]
    fn at_gate_with_fallback(&self, word: GateWord) -> (GateWord, Decision) {
        self.reject_until_due(word, Outcome::RejectedToFallback, Outcome::RampRejectedToFallback)
    }

    /// One load of the coarse clock, and one addition in the thread's own line.
    #[expect(clippy::inline_always, reason = "the outcomes are then constants")]
    #[inline(always)]
    fn reject_until_due(
        &self,
        word: GateWord,
        rejected: Outcome,
        ramp_rejected: Outcome,
    ) -> (GateWord, Decision) {
        if !word.is_open_or_half_open() {
            return self.in_another_state(word, rejected, ramp_rejected);
        }
        let now = self.context.clock.coarse();
        if now >= self.rejects_until.load(Ordering::Relaxed) {
            return (word, Decision::Unknown);
        }
        self.counters.add(rejected);
        (word.rejected_at(now), Decision::Rejected)
    }

    #[inline(never)]
    fn in_another_state(
        &self,
        word: GateWord,
        rejected: Outcome,
        ramp_rejected: Outcome,
    ) -> (GateWord, Decision) {
        let outcome = match word.state() {
            State::Closed if self.admit_at_ramp(word) == Ramped::Rejected => ramp_rejected,
            State::ForcedOpen => rejected,
            _ => return (word, Decision::Admitted),
        };
        self.counters.add(outcome);
        (word.rejected_at(0), Decision::Rejected)
    }

    #[inline]
    fn admit_at_ramp(&self, word: GateWord) -> Ramped {
        let ramped = self.ramp.admit(self.context.clock.coarse_now(), |share| self.counters.add_share(share));
        if ramped == Ramped::Over {
            self.gate.change(word, self.closed_after_ramp());
        }
        ramped
    }

    #[cold]
    fn closed_after_ramp(&self) -> Closed {
        if self.slow_limit().is_off() { Closed::Plain } else { Closed::Measuring }
    }

    #[cold]
    fn admit_at_machine(&self) -> Admission<'_> {
        let word = self.gate.word();
        let state = word.state();
        let is_due = || match self.due.load(Ordering::Relaxed) {
            // Another thread is about to end this state.
            u64::MAX => true,
            due => self.context.clock.now().0 >= due,
        };
        if state == State::Open && (self.is_checked() || !is_due()) {
            return Admission::No(self.rejection(word));
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
            (ProbeAdmission::Requested(_) | ProbeAdmission::Denied, None) => {
                Admission::No(self.rejection(word))
            }
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
        if word.state().admits() { Ok(CallPermit::new(self, word)) } else { Err(self.rejection(word)) }
    }

    /// Counts a rejected call.
    fn rejection(&self, word: GateWord) -> Rejection<'_> {
        self.counters.add(Outcome::Rejected);
        Rejection::new(self, word.rejected_at(0))
    }

    /// The error of a call that was rejected with this word.
    pub(crate) fn rejection_error(&self, word: GateWord) -> BreakerError {
        let (kind, span_us) = match word.state() {
            State::Closed => (RefusalKind::RampingUp, u64::MAX),
            State::ForcedOpen => (RefusalKind::ForcedOpen, self.remaining_at_most(word)),
            State::Open => (RefusalKind::Open, self.remaining_at_most(word)),
            _ => (RefusalKind::ProbesTaken, u64::MAX),
        };
        BreakerError::new(self.error_name.clone(), kind, span_us)
    }

    /// The time that remained of the state when the call was rejected, in µs; `u64::MAX` = unknown. Limited
    /// to the state's whole duration, because the coarse clock may be late.
    #[inline]
    fn remaining_at_most(&self, word: GateWord) -> u64 {
        let due = self.due.load(Ordering::Relaxed);
        match word.rejection_time() {
            Some(coarse) if !self.is_checked() && due != u64::MAX => {
                let now = self.context.clock.of_coarse(coarse);
                due.saturating_sub(now.0).min(self.due_after.load(Ordering::Relaxed))
            }
            _ => self.remaining_now(due, word.state()),
        }
    }

    /// For a rejection that did not look at the clock, and where health checks decide how long it takes.
    #[cold]
    #[inline(never)]
    fn remaining_now(&self, due: u64, state: State) -> u64 {
        match due {
            // The circuit has left that state meanwhile, and may be tried at once; a forced one has no end.
            u64::MAX if state == State::Open => 0,
            u64::MAX => u64::MAX,
            due => micros(self.remaining(Moment(due), state, self.context.clock.now())),
        }
    }

    #[expect(clippy::inline_always, reason = "it is the end of every call")]
    #[inline(always)]
    pub(crate) fn record(&self, word: GateWord, outcome: Outcome) {
        if outcome != Outcome::Success {
            return self.record_slowly(word, outcome, None);
        }
        // A word with a note in it is never the gate's.
        if !self.gate.is_unchanged(word) || !word.admits_all() {
            return self.record_slowly(word, Outcome::Success, None);
        }
        if !self.counters.later_success() {
            self.first_success();
        }
    }

    #[cold]
    #[inline(never)]
    fn first_success(&self) {
        self.counters.first_success(&self.context.clock, || self.mark_counted());
    }

    /// Counts an answer of a fallback that has not been counted as a rejection.
    #[cold]
    #[inline(never)]
    pub(crate) fn answered_by_fallback(&self) {
        self.counters.add(Outcome::Fallback);
    }

    /// Records a failure that determines how long the circuit is open.
    pub(crate) fn record_opening(&self, word: GateWord, span: Duration) {
        self.record_slowly(word, Outcome::Failure, Some(span).filter(|span| !span.is_zero()));
    }

    #[cold]
    #[inline(never)]
    fn record_slowly(&self, word: GateWord, outcome: Outcome, open_for: Option<Duration>) {
        if word.state() == State::Disabled {
            return;
        }
        let outcome = match outcome {
            Outcome::Success if word.was_slow() => Outcome::SlowSuccess,
            Outcome::Failure if word.was_slow() => Outcome::SlowFailure,
            other => other,
        };
        // An unchanged word has no lease and no notes, and there is credit only while closed.
        if outcome == Outcome::Failure
            && open_for.is_none()
            && self.gate.is_unchanged(word)
            && self.credit.spend(&self.counters, &self.context)
        {
            return self.counters.add(Outcome::Failure);
        }
        let lease = word.lease();
        let plain = matches!(outcome, Outcome::Success | Outcome::Ignored | Outcome::Cancelled);
        if plain && lease.is_none() {
            return self.count_plain(word, outcome);
        }
        let slow = matches!(outcome, Outcome::SlowSuccess | Outcome::SlowFailure);
        let failed = matches!(outcome, Outcome::Failure | Outcome::SlowFailure);
        let record = |inner: &mut Inner, now: Now| {
            if failed {
                self.last_failure.store(now.at.0, Ordering::Relaxed);
            }
            // Changes are made under this lock, so what is current now stays current until it is released.
            let counts = if let Some(lease) = lease {
                let counts = failed || outcome == Outcome::Success || slow;
                let result = counts.then_some(OutcomeKind { failed, slow });
                inner.machine.record_probe(lease, result, open_for, now)
            } else if self.gate.is_current(word) {
                let result = match open_for {
                    Some(span) => CallResult::OpenFor { span, slow },
                    None if failed => CallResult::Failure { slow },
                    None => CallResult::SlowSuccess,
                };
                inner.machine.record_call(result, now);
                self.grant_credit(inner, now);
                true
            } else {
                false
            };
            let late = !counts && outcome != Outcome::Cancelled;
            self.counters.add(if late { Outcome::Late } else { outcome });
        };
        if outcome == Outcome::Failure && lease.is_none() && open_for.is_none() {
            self.transact_failure(record);
        } else {
            self.transact(record);
        }
    }

    /// Counts an outcome that no rule looks at before the counters are drained.
    fn count_plain(&self, word: GateWord, outcome: Outcome) {
        match outcome {
            Outcome::Success if self.gate.is_current(word) => {
                if !self.counters.later_success() {
                    self.first_success();
                }
            }
            Outcome::Success => self.counters.add(Outcome::Late),
            _ => self.counters.add(outcome),
        }
    }

    /// After a call has been judged.
    fn grant_credit(&self, inner: &mut Inner, now: Now) {
        let Inner { machine, granted, .. } = inner;
        match machine.headroom(now) {
            Some(headroom) => self.credit.grant(granted, headroom, &self.counters, &self.context, now),
            None => self.credit.take_back(granted),
        }
    }

    pub(crate) fn limit_probe(&self, lease: LeaseId, limit: Duration) {
        self.transact(|inner, _| inner.machine.limit_probe(lease, limit));
    }

    /// Returns a probe that was granted to a caller that has been dropped.
    pub(crate) fn give_back(&self, lease: LeaseId) {
        self.transact(|inner, now| inner.machine.release_probe(lease, now));
    }
}
