//! One name's guard: the shell around the state machine.
//!
//! Reading order: `handle` (what users hold), `calls` (admission and outcome of a call) with `gate` (the word
//! that a call reads), `permit` (what it holds), `counters` (where it counts) and `credit` (failures that
//! need not be judged). Then what happens off the fast path: [`transact`](Core::transact), the one door to
//! the lock; `exchange` and `health` (what the coordinator does with a breaker); `settings` and `figures`
//! (what others give it and read of it); and `machine`, which makes all decisions and has no clock, no
//! atomics and no I/O.

mod blueprint;
mod calls;
pub(crate) mod context;
pub(crate) mod counters;
mod credit;
mod exchange;
mod figures;
pub(crate) mod gate;
mod handle;
pub(crate) mod health;
pub(crate) mod machine;
pub(crate) mod permit;
pub(crate) mod ramp;
mod settings;
pub(crate) mod stopwatch;
#[cfg(test)]
mod tests;
mod transact;

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

pub(crate) use blueprint::{Blueprint, Held};
pub(crate) use figures::Figures;
pub use handle::Breaker;

use crate::cache::Cache;
use crate::clock::{Clock, Moment, micros};
use crate::config::{BreakerConfig, PerFunction};
use crate::error::Error;
#[cfg(feature = "metrics")]
use crate::metrics::Histogram;
use crate::name::BreakerName;
use crate::snapshot::State;
use crate::store::LeaseId;
#[cfg(feature = "metrics")]
use crate::sync::lock;
use context::RegistryContext;
use counters::{Outcome, ShardedCounter};
use credit::{FailureCredit, Granted};
use gate::{Closed, Gate};
use machine::{OverrideId, StateMachine};
use permit::Grant;
use ramp::Ramp;
use settings::SettingsLine;
use stopwatch::{SlowLimit, Stopwatch};

/// What all handles on one breaker share.
///
/// A call that succeeds, and one that is measured, reads only the first cache line, and writes only to its
/// thread's line of the counters. With a thousand breakers in turn, each further line would be a cache miss.
#[repr(C, align(64))]
pub(crate) struct Core {
    gate: Gate,
    counters: ShardedCounter,
    /// The [`SlowLimit`] of calls.
    slow_limit: AtomicU64,
    context: Arc<RegistryContext>,
    /// Until when the gate alone rejects calls, by the coarse clock: until an open circuit is due, or as long
    /// as no probe can be had while it is half-open.
    rejects_until: AtomicU64,
    /// When an open circuit is due for a probe, in the clock's µs: so that a rejection takes no lock.
    due: AtomicU64,
    /// How long after the beginning of the state that is, in µs.
    due_after: AtomicU64,
    name: Arc<str>,
    /// The name once more, for the errors of rejected calls.
    error_name: BreakerName,
    ramp: Ramp,
    /// The interval of health checks while open, in µs; 0 = there are none, and live traffic probes.
    checked_every_us: AtomicU64,
    /// When the next health check is due, in the clock's µs, if this instance makes it; 0 otherwise.
    next_check: AtomicU64,
    per_function: PerFunction,
    /// This breaker's part of the keys of cached results.
    cache_scope: u64,
    /// When the circuit opened last, and when a call failed last, in the clock's µs; 0 = never.
    opened_at: AtomicU64,
    last_failure: AtomicU64,
    credit: FailureCredit,
    /// How long calls took, if the registry measures them: until they are published.
    #[cfg(feature = "metrics")]
    durations: Option<Mutex<Histogram>>,
    me: Weak<Core>,
    /// Already in the context's list of breakers that have something to exchange.
    dirty: AtomicBool,
    /// Already in the context's list of breakers that have counted successes.
    counted: AtomicBool,
    /// When the coordinator will look at it again, in the clock's µs; 0 = when it is dirty.
    review_at: AtomicU64,
    /// Its exchange cannot wait: it goes before others.
    urgent: AtomicBool,
    /// Registered by a reader without settings: the first registration with settings decides them.
    provisional: AtomicBool,
    /// Its name is made of arguments: it has no key in the store as long as it only succeeds.
    is_keyed: AtomicBool,
    /// Two registrations with different settings have been reported.
    disputed: AtomicBool,
    /// Another instance's different settings have been reported.
    drift_reported: AtomicBool,
    /// Held by every health check that has not ended.
    check_slots: Arc<()>,
    /// A blocking mutex: it is held for microseconds, never across an await, and calls take it on any thread.
    inner: Mutex<Inner>,
}

const _: () = assert!(std::mem::offset_of!(Core, rejects_until) == 64);

/// What the slow paths work on, behind the breaker's one lock. [`Core::transact`] takes it.
struct Inner {
    machine: StateMachine,
    granted: Granted,
    /// The machine's generation that the gate shows.
    published: u64,
    /// The settings of the attribute, or of the call that registered the breaker.
    given: BreakerConfig,
    /// Where that stands.
    given_at: Option<&'static Location<'static>>,
    line: SettingsLine,
    /// Trips that a metrics-only breaker would have made, and the latest.
    would_have_opened: (u64, Option<Moment>),
    /// Callers that wait for a probe.
    callers: Vec<(LeaseId, oneshot::Sender<Grant>)>,
    /// Callers that wait for the store to take an override.
    overrides: Vec<(OverrideId, oneshot::Sender<Result<(), Error>>)>,
}

impl Core {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn error_name(&self) -> &BreakerName {
        &self.error_name
    }

    pub(crate) fn context(&self) -> &RegistryContext {
        &self.context
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.context.cache
    }

    /// This breaker's part of the keys of cached results.
    pub(crate) fn cache_scope(&self) -> u64 {
        self.cache_scope
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.context.clock
    }

    /// How long a call may take: the operator's setting, else what the function was `given` by its
    /// attribute, else the registry's default.
    #[inline]
    pub(crate) fn call_timeout(&self, given: Option<Duration>) -> Option<Duration> {
        self.per_function.call_timeout.pick(given)
    }

    /// How long a success may answer later failures; same precedence as [`call_timeout`](Self::call_timeout).
    #[inline]
    pub(crate) fn cache_ttl(&self, given: Option<Duration>) -> Option<Duration> {
        self.per_function.cache_ttl.pick(given)
    }

    #[inline]
    fn slow_limit(&self) -> SlowLimit {
        SlowLimit::of_word(self.slow_limit.load(Ordering::Relaxed))
    }

    /// Begins to measure a call, if a rule looks at durations, or a histogram of them is asked for.
    #[inline(never)]
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        // A histogram needs every duration exactly.
        #[cfg(feature = "metrics")]
        if self.context.measures_calls {
            return Stopwatch::start(&self.context.clock, SlowLimit::EXACT);
        }
        Stopwatch::start(&self.context.clock, self.slow_limit())
    }

    /// Measures a call that ends now. Returns whether it was slow. Not inlined: it would stand in every
    /// guarded function.
    #[inline(never)]
    pub(crate) fn measure(&self, watch: Stopwatch) -> bool {
        #[cfg(feature = "metrics")]
        if let (Some(durations), Some(took)) = (&self.durations, watch.elapsed(&self.context.clock)) {
            lock(durations).add(took);
        }
        watch.is_slow(&self.context.clock, self.slow_limit())
    }

    /// As [`measure`](Self::measure), for a call that is dropped after this time.
    pub(crate) fn measure_dropped(&self, took: Duration) -> bool {
        #[cfg(feature = "metrics")]
        if let Some(durations) = &self.durations {
            lock(durations).add(took);
        }
        self.slow_limit().is_reached(micros(took))
    }

    fn mark_dirty(&self, urgent: bool) {
        if urgent {
            self.urgent.store(true, Ordering::Release);
        }
        // A load finds no mark that has been cleared before the breaker's lock was taken last, and most
        // failures find one.
        let fresh = !self.dirty.load(Ordering::Acquire) && !self.dirty.swap(true, Ordering::AcqRel);
        if fresh {
            if let Some(me) = self.me.upgrade() {
                self.context.mark_dirty(me, urgent);
            }
        } else if urgent {
            self.context.wake();
        }
    }

    /// The first success since the counters were drained last.
    #[cold]
    pub(crate) fn mark_counted(&self) {
        if !self.counted.swap(true, Ordering::AcqRel) {
            self.context.mark_counted(self.me.clone());
        }
    }

    pub(crate) fn clear_counted(&self) {
        self.counted.store(false, Ordering::Release);
    }

    pub(crate) fn clear_dirty(&self) {
        self.dirty.store(false, Ordering::Release);
    }

    /// Whether its name is made of arguments.
    pub(crate) fn set_keyed(&self, keyed: bool) {
        self.is_keyed.store(keyed, Ordering::Relaxed);
    }

    /// Whether its exchange cannot wait.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Acquire)
    }

    /// Whether its exchange cannot wait. Clears the mark: the caller is about to make that exchange.
    pub(crate) fn take_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }

    /// A cached result has answered one of its calls.
    pub(crate) fn answered_from_cache(&self) {
        self.counters.add(Outcome::Cached);
    }
}

fn closed(machine: &StateMachine, context: &RegistryContext, now: Moment) -> Closed {
    if machine.ramp(now).is_some() {
        Closed::Ramping
    } else if machine.settings().slow.is_some() || context.measures_calls {
        Closed::Measuring
    } else {
        Closed::Plain
    }
}

/// Until when calls need not ask the machine for a probe, by the coarse clock; early enough for its error.
fn rejects_until(machine: &StateMachine, clock: &Clock, now: Moment) -> u64 {
    let until = match machine.state() {
        State::Open => Moment(due(machine)),
        State::HalfOpen => machine.probes_denied_until(now),
        _ => return 0,
    };
    clock.coarse_before(until)
}

/// When callers may ask for a probe, or a manual override expires; `u64::MAX` = never.
fn due(machine: &StateMachine) -> u64 {
    machine.record().until().map_or(u64::MAX, |until| until.0)
}
