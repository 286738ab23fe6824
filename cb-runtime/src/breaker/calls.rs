//! A breaker's side towards calls: leave to make one, and what became of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Core;
use super::gate::Pass;
use super::ledger::asked_for;
use super::permit::{Admission, Permit, Waiting};
use super::ramp::Ramped;
use super::tally::Outcome;
use crate::clock::Moment;
use crate::error::{BreakerError, RefusalKind};
use crate::snapshot::State;
use crate::store::LeaseId;
use crate::sync::lock;

impl Core {
    /// The fast path of [`admit`](Self::admit).
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Permit<'_>> {
        let pass = self.gate.pass();
        pass.is_closed().then(|| Permit::new(self, pass, None))
    }

    pub(crate) fn admit(&self) -> Admission<'_> {
        let pass = self.gate.pass();
        if pass.is_closed() {
            return Admission::Go(Permit::new(self, pass, None));
        }
        self.admit_unclosed(pass)
    }

    #[cold]
    fn admit_unclosed(&self, pass: Pass) -> Admission<'_> {
        match pass.state() {
            _ if pass.is_ramping() => self.admit_ramping(pass),
            state if state.admits() => Admission::Go(Permit::new(self, pass, None)),
            State::Open if self.home.clock.now().0 >= self.due.load(Ordering::Relaxed) => self.admit_probe(),
            State::HalfOpen => self.admit_probe(),
            _ => Admission::No(self.rejection()),
        }
    }

    fn admit_ramping(&self, pass: Pass) -> Admission<'_> {
        match self.ramp.ask(self.home.clock.now()) {
            Ramped::Over => self.gate.end_ramp(pass),
            Ramped::Admitted => {}
            Ramped::Rejected => {
                self.tally.add(Outcome::RampRejected);
                return Admission::No(BreakerError::new(self.name.clone(), RefusalKind::RampingUp, None));
            }
        }
        Admission::Go(Permit::new(self, pass, None))
    }

    /// A probe may be due. One of many callers at a time asks the store for them all.
    fn admit_probe(&self) -> Admission<'_> {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        // Under the lock that a loss of the store takes to dismiss who waits: nobody joins them after it.
        let store_up = self.store_up();
        let state = desk.ledger.state();
        if state.admits() {
            return Admission::Go(Permit::new(self, self.gate.pass(), None));
        }
        let due = state == State::HalfOpen || desk.ledger.standing().is_due(now);
        let limit = desk.ledger.settings().half_open_max_calls;
        if due && store_up && !desk.ledger.is_isolated() {
            if let Some(id) = desk.ledger.probes.join(limit, now) {
                let (sender, receiver) = oneshot::channel();
                desk.callers.push((id, sender));
                drop(desk);
                self.flag(true);
                return Admission::Wait(Waiting::new(self, receiver));
            }
        } else if due {
            let change = (state == State::Open).then(|| desk.ledger.half_open_alone(now));
            if change.is_some() {
                self.show(&desk.ledger);
            }
            let free = desk.ledger.probes.join_alone(limit);
            let pass = self.gate.pass();
            let epoch = desk.ledger.epoch();
            drop(desk);
            self.tell_private(change, epoch);
            if free {
                return Admission::Go(Permit::new(self, pass, None));
            }
        } else {
            drop(desk);
        }
        Admission::No(self.rejection())
    }

    pub(crate) fn is_current(&self, pass: Pass) -> bool {
        self.gate.is_current(pass)
    }

    /// Admits a caller whose request for a probe came to nothing because the circuit has closed meanwhile.
    pub(crate) fn admit_late(&self) -> Result<Permit<'_>, BreakerError> {
        let pass = self.gate.pass();
        if pass.state().admits() { Ok(Permit::new(self, pass, None)) } else { Err(self.rejection()) }
    }

    /// The error of a call that is not made; counts it.
    #[cold]
    fn rejection(&self) -> BreakerError {
        self.tally.add(Outcome::Rejected);
        let left = match self.due.load(Ordering::Relaxed) {
            u64::MAX => None,
            due => Some(Moment(due).since(self.home.clock.now())),
        };
        let (kind, span) = match self.gate.pass().state() {
            State::ForcedOpen => (RefusalKind::ForcedOpen, left),
            State::Open => (RefusalKind::Open, left.or(Some(Duration::ZERO))),
            _ => (RefusalKind::ProbesTaken, None),
        };
        BreakerError::new(self.name.clone(), kind, span)
    }

    #[inline]
    pub(crate) fn record(&self, pass: Pass, lease: LeaseId, outcome: Outcome) {
        if outcome == Outcome::Success && pass.is_closed() && self.gate.is_current(pass) {
            self.tally.success(&self.home.clock);
        } else {
            self.record_slowly(pass, lease, outcome, None);
        }
    }

    /// A failure that says for how long the circuit must be open.
    pub(crate) fn record_opening(&self, pass: Pass, lease: LeaseId, span: Duration) {
        self.record_slowly(pass, lease, Outcome::Failure, Some(span).filter(|span| !span.is_zero()));
    }

    #[cold]
    pub(crate) fn record_slowly(
        &self,
        pass: Pass,
        lease: LeaseId,
        outcome: Outcome,
        open_for: Option<Duration>,
    ) {
        let state = pass.state();
        if state == State::Disabled {
            return;
        }
        let probing = state == State::HalfOpen;
        let plain = matches!(outcome, Outcome::Success | Outcome::Ignored | Outcome::Cancelled);
        if plain && !probing {
            match outcome {
                Outcome::Success if self.gate.is_current(pass) => self.tally.success(&self.home.clock),
                Outcome::Success => self.tally.add(Outcome::Late),
                _ => self.tally.add(outcome),
            }
            return;
        }
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        // Under the lock that a loss of the store takes: a change made after it must not be proposed at the heal.
        let store_up = self.store_up();
        // Changes are made under this lock, so what is current now stays current until it is released.
        if !self.gate.is_current(pass) {
            drop(desk);
            self.tally.add(if outcome == Outcome::Cancelled { outcome } else { Outcome::Late });
            return;
        }
        self.tally.add(outcome);
        let (successes, skew) = (self.tally.account(), self.home.skew());
        let watching = state == State::MetricsOnly;
        let ledger = &mut desk.ledger;
        if probing {
            ledger.fold(successes, now);
            ledger.probes.ended(lease);
        }
        let slow = matches!(outcome, Outcome::SlowSuccess | Outcome::SlowFailure);
        let failed = matches!(outcome, Outcome::Failure | Outcome::SlowFailure);
        let change = match (outcome, open_for) {
            (Outcome::Ignored | Outcome::Cancelled, _) => None,
            (_, Some(span)) if !watching => Some(ledger.open_on_request(span, successes, now, store_up)),
            _ if probing => ledger.probe(!failed, slow, now, store_up),
            _ if failed => ledger.failure(successes, slow, now, skew, store_up),
            _ => ledger.slow_success(successes, now, skew, store_up),
        };
        if change.is_some() {
            self.show(&desk.ledger);
        }
        let urgent = probing || change.is_some();
        let epoch = desk.ledger.epoch();
        let asked = open_for.filter(|_| watching).map(asked_for);
        let would_open = desk.would_open_now(asked, now, skew, store_up);
        drop(desk);
        self.tell_would_open(would_open);
        self.tell_private(change, epoch);
        if store_up {
            self.flag(urgent);
        }
    }

    /// Gives back a probe that was granted to a caller who has gone.
    pub(crate) fn give_back(&self, lease: LeaseId) {
        lock(&self.desk).ledger.probes.ended(lease);
        self.flag(true);
    }
}
