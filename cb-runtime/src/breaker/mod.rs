//! One name's guard.
//!
//! Reading order: `handle` (what users hold), `calls` (leave to make one, and what became of it) with `gate` (what a
//! call reads), `permit` (what it holds) and `counters` (what it counts on); then what happens off the fast path:
//! `settling` (the coordinator's side) and `machine` (what the breaker knows and intends) with `evidence`, `window`
//! and `probes`, judged by `policy`; `checking` and `checks` do the same for health checks.

mod calls;
pub(crate) mod context;
pub(crate) mod counters;
mod exchange;
pub(crate) mod gate;
mod handle;
pub(crate) mod health;
pub(crate) mod machine;
pub(crate) mod permit;
pub(crate) mod ramp;
#[cfg(feature = "metrics")]
mod seen;
pub(crate) mod stopwatch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

pub use handle::Breaker;

use crate::cache::Cache;
use crate::clock::{Clock, Moment, micros};
use crate::config::{BreakerConfig, Layers, PerFunction, Settings};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Transition};
use crate::snapshot::{Snapshot, State, WindowSnapshot};
use crate::store::{LeaseId, Proposal, Record};
use crate::strategy::Calls;
use crate::sync::lock;
use context::RegistryContext;
use counters::ShardedCounter;
use gate::{Closed, Gate};
use machine::StateMachine;
use machine::health::Checks;
use machine::state::Change;
use permit::Grant;
use ramp::Ramp;
use stopwatch::Stopwatch;

/// What all handles on one breaker share.
pub(crate) struct Core {
    name: Arc<str>,
    gate: Gate,
    /// When an open circuit is due for a probe, in the clock's µs: so that a rejection takes no lock.
    due: AtomicU64,
    /// From how many µs on a call is slow; `u64::MAX` = durations are not measured.
    slow_us: AtomicU64,
    ramp: Ramp,
    /// The interval of health checks while open, in µs; 0 = there are none, and live traffic probes.
    checked_every_us: AtomicU64,
    /// When the next health check is due, in the clock's µs, if this instance makes it; 0 otherwise.
    next_check: AtomicU64,
    per_function: PerFunction,
    /// This breaker's part of the keys of cached results.
    cache_scope: u64,
    counters: ShardedCounter,
    context: Arc<RegistryContext>,
    me: Weak<Core>,
    /// Already in the context's list of breakers with something to say.
    dirty: AtomicBool,
    /// What it has to say cannot wait: it goes before others.
    urgent: AtomicBool,
    /// Registered by someone who only wanted to look at it: whoever brings settings first decides.
    provisional: AtomicBool,
    /// That two registrations ask for different settings has been reported.
    disputed: AtomicBool,
    /// That another instance judges by other settings has been reported.
    drift_told: AtomicBool,
    /// What the store holds under this breaker's keys is damaged: it goes on alone.
    damaged: AtomicBool,
    inner: Mutex<Inner>,
}

/// What the slow paths work on, under one lock.
struct Inner {
    machine: StateMachine,
    checks: Checks,
    /// The attribute's layer: what whoever registered it has said.
    given: BreakerConfig,
    /// What it judges by, as the fleet is told.
    line: Arc<str>,
    line_said_at: Moment,
    /// What it has judged by before reloads, latest last: the fleet remembers that for a while, and would tell it back.
    former_lines: Vec<Arc<str>>,
    /// Metrics-only, and its rules speak for opening.
    would_open: bool,
    callers: Vec<(LeaseId, oneshot::Sender<Grant>)>,
    overrides: Vec<PendingOverride>,
    override_in_flight: Option<PendingOverride>,
}

/// More reloads than that in an hour, and one of them may be taken for another instance's opinion.
const FORMER_LINES: usize = 8;

/// An operator's word on its way to the store.
struct PendingOverride {
    proposal: Proposal,
    /// Only if the state is held by hand when the store is asked.
    release: bool,
    /// It has gone with an exchange.
    told: bool,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Core {
    pub(crate) fn new(
        name: Arc<str>,
        given: BreakerConfig,
        settings: Settings,
        per_function: PerFunction,
        held: Option<(Record, Moment)>,
        context: Arc<RegistryContext>,
    ) -> Arc<Self> {
        let core = Core::unknown(name, given, settings, per_function, held, context);
        core.mark_dirty(false);
        core
    }

    /// One that no registry has, disabled for ever: it lets calls through and counts nothing.
    pub(crate) fn detached(
        name: Arc<str>,
        given: BreakerConfig,
        settings: Settings,
        per_function: PerFunction,
        context: Arc<RegistryContext>,
    ) -> Arc<Self> {
        let now = context.clock.now();
        let disabled = Record {
            epoch: 0,
            state: State::Disabled,
            reason: String::new(),
            originator: String::new(),
            actor: String::new(),
            remaining_us: None,
            since_us: 0,
            reset_timeout_us: 0,
            attempt: 0,
        };
        Core::unknown(name, given, settings, per_function, Some((disabled, now)), context)
    }

    /// One that the coordinator has not heard of.
    fn unknown(
        name: Arc<str>,
        given: BreakerConfig,
        settings: Settings,
        per_function: PerFunction,
        held: Option<(Record, Moment)>,
        context: Arc<RegistryContext>,
    ) -> Arc<Self> {
        let now = context.clock.now();
        let line = settings.line();
        // Without settings of its own it takes those of whoever brings some.
        let provisional = !given.is_about_the_breaker();
        let machine = StateMachine::new(settings, context.instance.to_string(), held, now);
        let ramping = machine.ramp(now);
        let gate = Gate::new(machine.state(), closed(&machine, now));
        let ramp = Ramp::default();
        ramp.set(ramping);
        let cache_scope = context.cache.scope(&name);
        Arc::new_cyclic(|me| Core {
            name,
            gate,
            due: AtomicU64::new(due(&machine)),
            slow_us: AtomicU64::new(slow_us(machine.settings())),
            ramp,
            checked_every_us: AtomicU64::new(checked_every_us(machine.settings())),
            next_check: AtomicU64::new(0),
            per_function,
            cache_scope,
            counters: ShardedCounter::new(),
            context,
            me: me.clone(),
            dirty: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            provisional: AtomicBool::new(provisional),
            disputed: AtomicBool::new(false),
            drift_told: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                machine,
                checks: Checks::default(),
                given,
                line,
                line_said_at: now,
                former_lines: Vec::new(),
                would_open: false,
                callers: Vec::new(),
                overrides: Vec::new(),
                override_in_flight: None,
            }),
        })
    }

    /// Another registration of the same name. The first settings stand; that these are others is reported once.
    pub(crate) fn registered_again(&self, given: &BreakerConfig, settings: &Settings) {
        let mut inner = lock(&self.inner);
        if self.provisional.swap(false, Ordering::AcqRel) {
            inner.given = given.over(&inner.given);
            self.judge_by(&mut inner, settings.clone());
            return;
        }
        let same = inner.machine.settings() == settings;
        if !same && !self.disputed.swap(true, Ordering::AcqRel) {
            let first = format!("{:?}", inner.machine.settings());
            drop(inner);
            self.context.events.error(Error::new(ErrorKind::Conflict {
                breaker: self.name.clone(),
                problem: format!(
                    "registered again with other settings, which have no effect; use one config for one name. \
                     In force: {first}; left out: {settings:?}"
                ),
            }));
        }
    }

    /// What it would judge by under these layers.
    pub(crate) fn resolve(&self, layers: &Layers) -> Result<Settings, Error> {
        let given = lock(&self.inner).given.clone();
        layers.resolve(&self.name, &given)
    }

    /// Goes on under other settings, with the counts and the state that it has.
    pub(crate) fn configure(&self, settings: Settings, per_function: &PerFunction) {
        self.per_function.take_over(per_function);
        let mut inner = lock(&self.inner);
        if *inner.machine.settings() == settings {
            return;
        }
        self.judge_by(&mut inner, settings);
        self.drift_told.store(false, Ordering::Release);
        drop(inner);
        self.mark_dirty(false);
    }

    fn judge_by(&self, inner: &mut Inner, settings: Settings) {
        let now = self.context.clock.now();
        let former = std::mem::replace(&mut inner.line, settings.line());
        inner.former_lines.retain(|line| *line != former && *line != inner.line);
        inner.former_lines.push(former);
        let beyond = inner.former_lines.len().saturating_sub(FORMER_LINES);
        inner.former_lines.drain(..beyond);
        self.slow_us.store(slow_us(&settings), Ordering::Relaxed);
        self.checked_every_us.store(checked_every_us(&settings), Ordering::Relaxed);
        inner.machine.fold(self.counters.drain(), now);
        inner.machine.configure(settings, now, self.context.skew());
        self.ramp.set(inner.machine.ramp(now));
        // No new generation, which would make the outcomes of calls late that are under way.
        self.gate.change(self.gate.word(), closed(&inner.machine, now));
        let Inner { machine, checks, .. } = inner;
        checks.configured(self.check_context(machine, now));
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn context(&self) -> &RegistryContext {
        &self.context
    }

    /// How long a call may take: the operator's word, else what the function was `given` by its
    /// attribute, else the registry's default.
    #[inline]
    pub(crate) fn call_timeout(&self, given: Option<Duration>) -> Option<Duration> {
        self.per_function.call_timeout.pick(given)
    }

    /// Whether a call that ends now was slow.
    #[inline]
    pub(crate) fn was_slow(&self, watch: Stopwatch) -> bool {
        watch.is_slow(&self.context.clock, self.slow_us.load(Ordering::Relaxed))
    }

    /// Whether a call that takes so long is slow.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        micros(took) >= self.slow_us.load(Ordering::Relaxed)
    }

    /// Begins to measure a call, if somebody asks how long it takes.
    #[inline]
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        Stopwatch::start(&self.context.clock, self.slow_us.load(Ordering::Relaxed))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.context.clock
    }

    /// How long a success may answer later failures; the same precedence.
    #[inline]
    pub(crate) fn cache_ttl(&self, given: Option<Duration>) -> Option<Duration> {
        self.per_function.cache_ttl.pick(given)
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.context.cache
    }

    /// This breaker's part of the keys of cached results.
    pub(crate) fn cache_scope(&self) -> u64 {
        self.cache_scope
    }

    /// Lets calls meet the machine's state, as a new generation. Under the inner's lock.
    fn publish_state(&self, machine: &StateMachine) {
        self.due.store(due(machine), Ordering::Relaxed);
        self.next_check.store(0, Ordering::Relaxed);
        let now = self.context.clock.now();
        self.ramp.set(machine.ramp(now));
        self.gate.set(machine.state(), closed(machine, now));
    }

    /// Tells of a change that this instance has made for itself: the store will not.
    fn emit_local(&self, change: Option<Change>, epoch: u64) {
        let Some(Change { from, to, evidence, .. }) = change.filter(|change| change.private) else { return };
        self.context.events.emit(Event::LocalTransition(Arc::new(Transition {
            breaker: self.name.clone(),
            epoch,
            from,
            to: to.state,
            reason: to.reason,
            actor: to.actor,
            originator: to.originator,
            own: true,
            successes: evidence.successes,
            failures: evidence.failures,
            open_for: (to.state == State::Open).then_some(to.reset_timeout),
        })));
    }

    /// Metrics-only: tells of the opening that there would have been.
    fn emit_would_open(&self, reason: Option<String>) {
        if let Some(reason) = reason {
            self.context.events.emit(Event::WouldHaveOpened { breaker: self.name.clone(), reason });
        }
    }

    fn mark_dirty(&self, urgent: bool) {
        if urgent {
            self.urgent.store(true, Ordering::Release);
        }
        let fresh = !self.dirty.swap(true, Ordering::AcqRel);
        if fresh {
            if let Some(me) = self.me.upgrade() {
                self.context.mark_dirty(me, urgent);
            }
        } else if urgent {
            self.context.wake();
        }
    }

    pub(crate) fn clear_dirty(&self) {
        self.dirty.store(false, Ordering::Release);
    }

    /// Whether what it has to say could not wait; once it is asked, it is about to be said.
    pub(crate) fn take_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }

    /// Whether this breaker can be settled with the store.
    fn store_up(&self) -> bool {
        self.context.store_up() && !self.damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = self.context.clock.now();
        // Before the inner: whoever reloads has the layers and wants the inner.
        let layers = self.context.layers();
        let mut inner = lock(&self.inner);
        inner.machine.fold(self.counters.drain(), now);
        let machine = &inner.machine;
        let (standing, counts, input) =
            (machine.standing(), machine.counts(), machine.trip_input(now, self.context.skew()));
        let window = Calls::from(input.window);
        Snapshot {
            name: self.name.to_string(),
            state: standing.state,
            epoch: machine.epoch(),
            local: machine.is_local(),
            reason: standing.reason.clone(),
            actor: standing.actor.clone(),
            retry_after: standing.until.map(|until| self.left_of(until, standing.state, now)),
            failures: counts.failures,
            successes: counts.successes,
            consecutive_failures: input.streak,
            window: machine.settings().window.map(|_| WindowSnapshot {
                calls: window.total(),
                failures: window.failures,
                failure_rate: window.failure_rate(),
                slow: window.slow,
                slow_rate: window.slow_rate(),
            }),
            outcomes: self.counters.outcomes(),
            settings: layers.shown(&self.name, &inner.given, machine.settings()),
        }
    }
}

fn closed(machine: &StateMachine, now: Moment) -> Closed {
    if machine.ramp(now).is_some() {
        Closed::Ramping
    } else if machine.settings().slow.is_some() {
        Closed::Measuring
    } else {
        Closed::Plain
    }
}

impl Inner {
    /// Metrics-only: the reason for which it would open, if there was none before. `asked`: the reason that a call has given.
    fn would_open_now(
        &mut self,
        asked: Option<String>,
        now: Moment,
        skew: u64,
        store_up: bool,
    ) -> Option<String> {
        let reason = asked.or_else(|| self.machine.would_open(now, skew, store_up));
        let before = std::mem::replace(&mut self.would_open, reason.is_some());
        reason.filter(|_| !before)
    }
}

fn slow_us(settings: &Settings) -> u64 {
    settings.slow.map_or(u64::MAX, |slow| micros(slow.duration))
}

fn checked_every_us(settings: &Settings) -> u64 {
    settings.health.as_ref().map_or(0, |health| micros(health.interval))
}

/// When calls may ask for a probe (or a state held by hand ends); `u64::MAX` = nobody knows.
fn due(machine: &StateMachine) -> u64 {
    machine.standing().until.map_or(u64::MAX, |until| until.0)
}
