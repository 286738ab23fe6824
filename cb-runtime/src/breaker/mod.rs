//! One name's guard.
//!
//! Reading order: `gate` (what a call reads), `permit` (what it holds), `tally` (what it counts on), then
//! what happens off the fast path: `ledger` (what the breaker knows and intends) with `evidence`, `window` and
//! `probes`, judged by `policy`.

pub(crate) mod evidence;
pub(crate) mod gate;
pub(crate) mod home;
pub(crate) mod ledger;
pub(crate) mod permit;
pub(crate) mod policy;
pub(crate) mod probes;
pub(crate) mod tally;
pub(crate) mod window;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::config::{PerFunction, Settings};
use crate::error::{BreakerError, Error, ErrorKind, RefusalKind};
use crate::event::{Event, Transition};
use crate::snapshot::{Snapshot, State, WindowSnapshot};
use crate::store::{Entry, LeaseId, Proposal, Record, View};
use crate::sync::lock;
use gate::{Gate, Pass};
use home::Home;
use ledger::{Change, Ledger};
use permit::{Admission, Grant, Permit, Waiting};
use tally::{Outcome, Tally};

/// A handle on one breaker. Cheap to clone; all clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    core: Arc<Core>,
    /// What this handle was asked for with; like an annotated function's, not a thing of the breaker.
    call_timeout: Option<Duration>,
}

impl Breaker {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Breaker { core, call_timeout: None }
    }

    pub(crate) fn with_call_timeout(self, call_timeout: Option<Duration>) -> Self {
        Breaker { call_timeout, ..self }
    }

    pub(crate) fn given_call_timeout(&self) -> Option<Duration> {
        self.call_timeout
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The name it was registered under.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The state that calls meet here and now; one atomic load.
    pub fn state(&self) -> State {
        self.core.gate.pass().state()
    }

    /// What this instance knows of the breaker at this moment; from memory, without I/O.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// Opens the circuit for the whole fleet until someone [releases](Self::release) it. Returns once the
    /// store has it. Cancelling abandons the answer, not the order.
    ///
    /// # Errors
    /// If the store does not take the order; nothing has changed then, or it cannot be known.
    pub async fn force_open(&self, reason: &str) -> Result<(), Error> {
        self.order(State::ForcedOpen, reason).await
    }

    /// Switches the breaker off for the whole fleet until someone [releases](Self::release) it: calls are
    /// made, nothing is counted. Returns once the store has it.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn disable(&self, reason: &str) -> Result<(), Error> {
        self.order(State::Disabled, reason).await
    }

    /// Ends a state that is held by hand: the circuit is closed and counts from nothing. Does nothing in
    /// any other state.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn release(&self) -> Result<(), Error> {
        if self.state().is_manual() { self.order(State::Closed, "released").await } else { Ok(()) }
    }

    /// Closes the circuit for the whole fleet, whatever its state, and counts from nothing.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn reset(&self) -> Result<(), Error> {
        self.order(State::Closed, "reset").await
    }

    async fn order(&self, to: State, reason: &str) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal {
            to,
            reason: shorten(reason),
            remaining_us: None,
            reset_timeout_us: 0,
            attempt: 0,
            force: true,
            evidence: crate::store::Counts::default(),
        };
        {
            let mut desk = lock(&self.core.desk);
            // Under the lock that the coordinator takes at its end: either it finds this order, or we see the end.
            if self.core.home.has_ended() {
                return Err(Error::new(ErrorKind::ShutDown));
            }
            desk.orders.push(Order { proposal, answer });
        }
        self.core.flag(true);
        answered.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::ShutDown)))
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.core.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// A reason is for people; the store keeps only so much of it.
fn shorten(reason: &str) -> String {
    let mut end = reason.len().min(crate::store::MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

/// What all handles on one breaker share.
pub(crate) struct Core {
    name: Arc<str>,
    gate: Gate,
    /// When an open circuit is due for a probe, in the clock's µs: so that a rejection takes no lock.
    due: AtomicU64,
    per_function: PerFunction,
    tally: Tally,
    home: Arc<Home>,
    me: Weak<Core>,
    /// Already in the home's list of breakers with something to say.
    flagged: AtomicBool,
    /// Registered by someone who only wanted to look at it: whoever brings settings first decides.
    provisional: AtomicBool,
    /// That two registrations ask for different settings has been reported.
    disputed: AtomicBool,
    /// What the store holds under this breaker's keys is damaged: it goes on alone.
    damaged: AtomicBool,
    desk: Mutex<Desk>,
}

/// What the slow paths work on, under one lock.
struct Desk {
    ledger: Ledger,
    callers: Vec<(LeaseId, oneshot::Sender<Grant>)>,
    orders: Vec<Order>,
    ordered: Option<Order>,
}

/// An operator's word on its way to the store.
struct Order {
    proposal: Proposal,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Core {
    pub(crate) fn new(
        name: Arc<str>,
        settings: Settings,
        provisional: bool,
        per_function: PerFunction,
        held: Option<(Record, Moment)>,
        home: Arc<Home>,
    ) -> Arc<Self> {
        let now = home.clock.now();
        let ledger = Ledger::new(settings, home.instance.to_string(), held, now);
        let gate = Gate::new(ledger.state());
        let core = Arc::new_cyclic(|me| Core {
            name,
            gate,
            due: AtomicU64::new(due(&ledger)),
            per_function,
            tally: Tally::new(),
            home,
            me: me.clone(),
            flagged: AtomicBool::new(false),
            provisional: AtomicBool::new(provisional),
            disputed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            desk: Mutex::new(Desk { ledger, callers: Vec::new(), orders: Vec::new(), ordered: None }),
        });
        core.flag(false);
        core
    }

    /// Another registration of the same name. The first settings stand; that these are others is reported once.
    pub(crate) fn registered_again(&self, settings: &Settings) {
        let mut desk = lock(&self.desk);
        if self.provisional.swap(false, Ordering::AcqRel) {
            desk.ledger.configure(settings.clone());
            return;
        }
        let same = desk.ledger.settings() == settings;
        let first = format!("{:?}", desk.ledger.settings());
        drop(desk);
        if !same && !self.disputed.swap(true, Ordering::AcqRel) {
            self.home.outlet.error(Error::new(ErrorKind::Conflict {
                breaker: self.name.clone(),
                problem: format!(
                    "registered again with other settings, which have no effect; use one config for one name. \
                     In force: {first}; left out: {settings:?}"
                ),
            }));
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// How long a call may take: the operator's word, else what the function was `given` by its
    /// attribute, else the registry's default.
    #[inline]
    pub(crate) fn call_timeout(&self, given: Option<Duration>) -> Option<Duration> {
        self.per_function.call_timeout.pick(given)
    }

    /// How long a success may answer later failures; the same precedence.
    #[inline]
    pub(crate) fn cache_ttl(&self, given: Option<Duration>) -> Option<Duration> {
        self.per_function.cache_ttl.pick(given)
    }

    // ---- the call path

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
            state if state.admits() => Admission::Go(Permit::new(self, pass, None)),
            State::Open if self.home.clock.now().0 >= self.due.load(Ordering::Relaxed) => self.admit_probe(),
            State::HalfOpen => self.admit_probe(),
            _ => Admission::No(self.rejection()),
        }
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
        if due && store_up {
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
            self.tell_alone(change, epoch);
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
            self.record_slowly(pass, lease, outcome);
        }
    }

    #[cold]
    fn record_slowly(&self, pass: Pass, lease: LeaseId, outcome: Outcome) {
        let state = pass.state();
        if state == State::Disabled {
            return;
        }
        let probing = state == State::HalfOpen;
        let matters = outcome == Outcome::Failure || probing;
        if !matters {
            let late = outcome == Outcome::Success && !self.gate.is_current(pass);
            self.tally.add(if late { Outcome::Late } else { outcome });
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
        let successes = self.tally.account();
        let change = if probing {
            desk.ledger.fold(successes, now);
            desk.ledger.probes.ended(lease);
            match outcome {
                Outcome::Success => desk.ledger.probe(true, now, store_up),
                Outcome::Failure => desk.ledger.probe(false, now, store_up),
                _ => None,
            }
        } else {
            desk.ledger.failure(successes, now, self.home.skew(), store_up)
        };
        if change.is_some() {
            self.show(&desk.ledger);
        }
        let urgent = probing || change.is_some();
        let epoch = desk.ledger.epoch();
        drop(desk);
        if store_up {
            self.flag(urgent);
        } else {
            self.tell_alone(change, epoch);
        }
    }

    /// Gives back a probe that was granted to a caller who has gone.
    pub(crate) fn give_back(&self, lease: LeaseId) {
        lock(&self.desk).ledger.probes.ended(lease);
        self.flag(true);
    }

    /// Lets calls meet the ledger's state, as a new generation. Under the desk's lock.
    fn show(&self, ledger: &Ledger) {
        self.due.store(due(ledger), Ordering::Relaxed);
        self.gate.set(ledger.state());
    }

    /// Tells of a change that this instance has made while the store is away.
    fn tell_alone(&self, change: Option<Change>, epoch: u64) {
        let Some(Change { from, to, evidence }) = change else { return };
        self.home.outlet.emit(Event::LocalTransition(Arc::new(Transition {
            breaker: self.name.clone(),
            epoch,
            from,
            to: to.state,
            reason: to.reason,
            originator: to.originator,
            own: true,
            successes: evidence.successes,
            failures: evidence.failures,
            open_for: (to.state == State::Open).then_some(to.reset_timeout),
        })));
    }

    fn flag(&self, urgent: bool) {
        let fresh = !self.flagged.swap(true, Ordering::AcqRel);
        if fresh {
            if let Some(me) = self.me.upgrade() {
                self.home.flag(me, urgent);
            }
        } else if urgent {
            self.home.ring();
        }
    }

    pub(crate) fn unflag(&self) {
        self.flagged.store(false, Ordering::Release);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        desk.ledger.fold(self.tally.account(), now);
        let ledger = &desk.ledger;
        let (standing, counts, picture) =
            (ledger.standing(), ledger.counts(), ledger.picture(now, self.home.skew()));
        Snapshot {
            name: self.name.to_string(),
            state: standing.state,
            epoch: ledger.epoch(),
            local: ledger.is_local(),
            reason: standing.reason.clone(),
            retry_after: standing.until.map(|until| until.since(now)),
            failures: counts.failures,
            successes: counts.successes,
            consecutive_failures: picture.run,
            window: ledger.settings().rate.as_ref().map(|_| WindowSnapshot {
                calls: picture.window.successes + picture.window.failures,
                failures: picture.window.failures,
                failure_rate: policy::rate(picture.window),
            }),
            outcomes: self.tally.outcomes(),
        }
    }

    // ---- the coordinator's side

    /// Brings the books up to date, and judges: successes alone can complete a rate's minimum of calls.
    /// Returns whether there is something to exchange with the store.
    pub(crate) fn review(&self) -> bool {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        let store_up = self.store_up();
        desk.ledger.fold(self.tally.account(), now);
        let change = desk.ledger.judge(now, self.home.skew(), store_up);
        if change.is_some() {
            self.show(&desk.ledger);
        }
        let wants = desk.ledger.wants_exchange(now) || !desk.orders.is_empty();
        let epoch = desk.ledger.epoch();
        drop(desk);
        if !store_up {
            self.tell_alone(change, epoch);
        }
        wants
    }

    /// What this breaker has to say to the store; with `retry`, the evidence of the batch whose fate is unknown.
    pub(crate) fn entry(&self, retry: bool) -> Entry {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        desk.ledger.fold(self.tally.account(), now);
        let mut entry = desk.ledger.entry(self.name.clone(), now, self.home.skew(), retry);
        if !retry && !desk.orders.is_empty() {
            let order = desk.orders.remove(0);
            entry.proposal = Some(order.proposal.clone());
            desk.ordered = Some(order);
        }
        entry
    }

    /// Takes over the store's answer to the last entry.
    pub(crate) fn answered(&self, view: &View, store_now: u64) {
        self.damaged.store(false, Ordering::Release);
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        desk.ledger.fold(self.tally.account(), now);
        let answered = desk.ledger.answered(view, store_now, now, self.home.skew());
        if answered.moved {
            self.show(&desk.ledger);
        } else {
            self.due.store(due(&desk.ledger), Ordering::Relaxed);
        }
        let pass = self.gate.pass();
        let mut grants = Vec::new();
        for id in answered.allotted.granted {
            let grant = self.me.upgrade().map(|core| Grant::new(core, pass, id));
            match desk.callers.iter().position(|(caller, _)| *caller == id) {
                Some(at) => grants.push((desk.callers.swap_remove(at).1, grant)),
                None => desk.ledger.probes.ended(id),
            }
        }
        // Whoever cannot get a probe any more learns it by the end of the channel.
        let Desk { ledger, callers, .. } = &mut *desk;
        let gone: Vec<_> = callers.extract_if(.., |(id, _)| !ledger.probes.awaits(*id)).collect();
        let ordered = desk.ordered.take();
        let more = answered.more || !desk.orders.is_empty();
        drop(desk);
        drop(gone);
        for (caller, grant) in grants {
            if let Some(grant) = grant {
                // A caller that has gone gives its grant back by dropping it.
                let _ = caller.send(grant);
            }
        }
        if let Some(order) = ordered {
            let _ = order.answer.send(Ok(()));
        }
        if more {
            self.flag(true);
        }
    }

    /// Takes over a state that another instance (or this one) has brought about.
    pub(crate) fn adopt(&self, record: &Record) {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        desk.ledger.fold(self.tally.account(), now);
        if desk.ledger.adopt(record, now) {
            self.show(&desk.ledger);
        } else {
            self.due.store(due(&desk.ledger), Ordering::Relaxed);
        }
        let Desk { ledger, callers, .. } = &mut *desk;
        let gone: Vec<_> = callers.extract_if(.., |(id, _)| !ledger.probes.awaits(*id)).collect();
        drop(desk);
        drop(gone);
    }

    /// The store has refused this breaker's entry because what it holds under its keys is damaged.
    pub(crate) fn refused(&self, problem: &str) {
        let what = format!("breaker \"{}\"", self.name);
        let error = Error::new(ErrorKind::Data { what, problem: problem.to_owned() });
        lock(&self.desk).ledger.refused();
        let known = self.damaged.swap(true, Ordering::AcqRel);
        self.store_lost(&error);
        if !known {
            self.home.outlet.error(error);
        }
    }

    /// Whether this breaker can be settled with the store.
    fn store_up(&self) -> bool {
        self.home.store_up() && !self.damaged.load(Ordering::Relaxed)
    }

    /// The store does not answer: who waits for it stops waiting, orders fail, this instance goes on alone.
    pub(crate) fn store_lost(&self, error: &Error) {
        let mut desk = lock(&self.desk);
        let change = desk.ledger.store_lost();
        let gone = std::mem::take(&mut desk.callers);
        let ordered = desk.ordered.take();
        let orders = std::mem::take(&mut desk.orders);
        let epoch = desk.ledger.epoch();
        drop(desk);
        drop(gone);
        for order in ordered.into_iter().chain(orders) {
            let _ = order.answer.send(Err(error.clone()));
        }
        self.tell_alone(change, epoch);
    }

    /// Has something that a store which has lost its data must be told.
    pub(crate) fn has_history(&self) -> bool {
        let desk = lock(&self.desk);
        desk.ledger.epoch() > 0 || desk.ledger.is_local()
    }
}

/// When calls may ask for a probe (or a state held by hand ends); `u64::MAX` = nobody knows.
fn due(ledger: &Ledger) -> u64 {
    ledger.standing().until.map_or(u64::MAX, |until| until.0)
}
