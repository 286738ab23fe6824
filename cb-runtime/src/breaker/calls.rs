//! A breaker's side towards calls: leave to make one, and what became of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Core;
use super::counters::Outcome;
use super::gate::{Closed, GateWord};
use super::machine::asked_for;
use super::permit::{Admission, Permit, SLOW, Waiting};
use super::ramp::Ramped;
use crate::clock::Moment;
use crate::error::{BreakerError, RefusalKind};
use crate::snapshot::State;
use crate::store::LeaseId;
use crate::sync::lock;

impl Core {
    /// The fast path of [`admit`](Self::admit).
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Permit<'_>> {
        let word = self.gate.word();
        word.is_plain().then(|| Permit::new(self, word, None))
    }

    /// The same for a circuit whose calls are measured.
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

    /// A probe may be due. One of many callers at a time asks the store for them all.
    fn admit_probe(&self) -> Admission<'_> {
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        // Under the lock that a loss of the store takes to dismiss who waits: nobody joins them after it.
        let store_up = self.store_up();
        let state = inner.machine.state();
        if state.admits() {
            return Admission::Go(Permit::new(self, self.gate.word(), None));
        }
        let due = state == State::HalfOpen || inner.machine.standing().is_due(now);
        let limit = inner.machine.settings().half_open_max_calls;
        if due && store_up && !inner.machine.is_isolated() {
            if let Some(id) = inner.machine.probes.join(limit, now) {
                let (sender, receiver) = oneshot::channel();
                inner.callers.push((id, sender));
                drop(inner);
                self.mark_dirty(true);
                return Admission::Wait(Waiting::new(self, receiver));
            }
        } else if due {
            let change = (state == State::Open).then(|| inner.machine.half_open_alone(now));
            if change.is_some() {
                self.publish_state(&inner.machine);
            }
            let free = inner.machine.probes.join_alone(limit);
            let word = self.gate.word();
            let epoch = inner.machine.epoch();
            drop(inner);
            self.emit_local(change, epoch);
            if free {
                return Admission::Go(Permit::new(self, word, None));
            }
        } else {
            drop(inner);
        }
        Admission::No(self.rejection())
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
            due => Some(self.left_of(Moment(due), state, self.context.clock.now())),
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
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        // Under the lock that a loss of the store takes: a change made after it must not be proposed at the heal.
        let store_up = self.store_up();
        // Changes are made under this lock, so what is current now stays current until it is released.
        if !self.gate.is_current(word) {
            drop(inner);
            self.counters.add(if outcome == Outcome::Cancelled { outcome } else { Outcome::Late });
            return;
        }
        self.counters.add(outcome);
        let (successes, skew) = (self.counters.drain(), self.context.skew());
        let watching = state == State::MetricsOnly;
        let machine = &mut inner.machine;
        if probing {
            machine.fold(successes, now);
            machine.probes.ended(lease);
        }
        let slow = matches!(outcome, Outcome::SlowSuccess | Outcome::SlowFailure);
        let failed = matches!(outcome, Outcome::Failure | Outcome::SlowFailure);
        let change = match (outcome, open_for) {
            (Outcome::Ignored | Outcome::Cancelled, _) => None,
            (_, Some(span)) if !watching => Some(machine.open_on_request(span, successes, now, store_up)),
            _ if probing => machine.probe(!failed, slow, now, store_up),
            _ if failed => machine.failure(successes, slow, now, skew, store_up),
            _ => machine.slow_success(successes, now, skew, store_up),
        };
        if change.is_some() {
            self.publish_state(&inner.machine);
        }
        let urgent = probing || change.is_some();
        let epoch = inner.machine.epoch();
        let asked = open_for.filter(|_| watching).map(asked_for);
        let would_open = inner.would_open_now(asked, now, skew, store_up);
        drop(inner);
        self.emit_would_open(would_open);
        self.emit_local(change, epoch);
        if store_up {
            self.mark_dirty(urgent);
        }
    }

    /// Gives back a probe that was granted to a caller who has gone.
    pub(crate) fn give_back(&self, lease: LeaseId) {
        lock(&self.inner).machine.probes.ended(lease);
        self.mark_dirty(true);
    }
}
