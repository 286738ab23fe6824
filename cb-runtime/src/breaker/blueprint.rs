//! What a breaker is made of.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::context::RegistryContext;
use super::counters::ShardedCounter;
use super::credit::{FailureCredit, Granted};
use super::gate::Gate;
use super::machine::state::DatedRecord;
use super::machine::{StateMachine, policy};
use super::ramp::Ramp;
use super::settings::{self, SettingsLine};
use super::{Core, Inner, closed, due, rejects_until};
use crate::clock::Moment;
use crate::config::{BreakerConfig, PerFunction, Settings};
use crate::name;
use crate::snapshot::State;
use crate::store::Record;

/// A state that the fleet has a breaker in, as of a moment.
pub(crate) type Held = (Record, Moment);

/// The parts of a new breaker.
pub(crate) struct Blueprint {
    /// The settings of the attribute, or of the call that registers the breaker.
    pub(crate) given: BreakerConfig,
    /// Where that stands.
    pub(crate) given_at: Option<&'static Location<'static>>,
    pub(crate) settings: Settings,
    pub(crate) per_function: PerFunction,
    pub(crate) context: Arc<RegistryContext>,
}

impl Blueprint {
    /// A breaker in the state that the fleet has it in, if that is known.
    pub(crate) fn build(self, name: Arc<str>, held: Option<Held>) -> Arc<Core> {
        let core = self.unscheduled(name, held);
        core.mark_dirty(false);
        core
    }

    /// A breaker that this instance only looks at, or steers.
    pub(crate) fn observed(self, name: Arc<str>, held: Option<Held>) -> Arc<Core> {
        let core = self.unscheduled(name, held);
        core.transact(|inner, _| inner.machine.observe());
        core.mark_dirty(false);
        core
    }

    /// A disabled breaker that no registry has: it lets calls through and counts nothing.
    pub(crate) fn detached(self, name: Arc<str>) -> Arc<Core> {
        let now = self.context.clock.now();
        let disabled = Record { state: State::Disabled, ..Record::closed() };
        self.unscheduled(name, Some((disabled, now)))
    }

    /// A breaker that the coordinator does not know of yet.
    fn unscheduled(self, name: Arc<str>, held: Option<Held>) -> Arc<Core> {
        let Blueprint { given, given_at, settings, per_function, context } = self;
        let now = context.clock.now();
        let line = SettingsLine::new(&settings, now);
        let provisional = !given.is_about_the_breaker();
        let held = held.map(|(record, as_of)| DatedRecord::new(record, as_of));
        let machine = StateMachine::new(settings, context.instance.to_string(), held, now);
        let opened_at = if machine.state() == State::Open { machine.record().since().0 } else { 0 };
        let ramp = Ramp::default();
        ramp.set(machine.ramp(now));
        let cache_scope = context.cache.scope(&name);
        Arc::new_cyclic(|me| Core {
            error_name: name::of(&name),
            name,
            gate: Gate::new(machine.state(), closed(&machine, &context, now)),
            due: AtomicU64::new(due(&machine)),
            due_after: AtomicU64::new(due(&machine).saturating_sub(now.0)),
            rejects_until: AtomicU64::new(rejects_until(&machine, &context.clock, now)),
            slow_limit: AtomicU64::new(settings::slow_limit(machine.settings(), &context).word()),
            ramp,
            checked_every_us: AtomicU64::new(settings::checked_every_us(machine.settings())),
            next_check: AtomicU64::new(0),
            per_function,
            cache_scope,
            opened_at: AtomicU64::new(opened_at),
            last_failure: AtomicU64::new(0),
            counters: ShardedCounter::new(policy::looks_at_streaks(machine.settings())),
            credit: FailureCredit::default(),
            #[cfg(feature = "metrics")]
            durations: context.measures_calls.then(Mutex::default),
            context,
            me: me.clone(),
            dirty: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            review_at: AtomicU64::new(0),
            urgent: AtomicBool::new(false),
            provisional: AtomicBool::new(provisional),
            is_keyed: AtomicBool::new(false),
            disputed: AtomicBool::new(false),
            drift_reported: AtomicBool::new(false),
            check_slots: Arc::new(()),
            inner: Mutex::new(Inner {
                published: machine.generation(),
                machine,
                granted: Granted::default(),
                given,
                given_at,
                line,
                would_have_opened: (0, None),
                callers: Vec::new(),
                overrides: Vec::new(),
            }),
        })
    }
}

#[cfg(test)]
impl Core {
    /// A breaker with these settings alone.
    pub(crate) fn new(
        name: Arc<str>,
        given: &BreakerConfig,
        held: Option<Held>,
        context: &Arc<RegistryContext>,
    ) -> Arc<Self> {
        Blueprint::of(given, context).build(name, held)
    }

    /// A breaker that its instance only looks at, or steers.
    pub(crate) fn observed(name: Arc<str>, held: Option<Held>, context: &Arc<RegistryContext>) -> Arc<Self> {
        Blueprint::of(&BreakerConfig::default(), context).observed(name, held)
    }

    /// No call, and no function, has given it settings.
    pub(crate) fn is_provisional(&self) -> bool {
        self.provisional.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Blueprint {
    fn of(given: &BreakerConfig, context: &Arc<RegistryContext>) -> Blueprint {
        let settings = given.resolve().expect("valid settings");
        let (given, context) = (given.clone(), context.clone());
        Blueprint { given, given_at: None, settings, per_function: PerFunction::default(), context }
    }
}
