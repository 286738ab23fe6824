//! One instance: its coordinator and stream follower as tasks that can be paused and killed.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::checks::Begun;
use super::network::Wire;
use super::{KEYED, PINNED, PLACES, Rules, config};
use crate::breaker::context::RegistryContext;
use crate::breaker::{Breaker, Core};
use crate::breakers::{BreakerKind, BreakerMap, KeyedSite, Steered};
use crate::cache::Cache;
use crate::clock::{Clock, Moment};
use crate::config::{BreakerConfig, CacheLimits, PerFunction};
use crate::coordinator::follower::Follower;
use crate::coordinator::pace::Pace;
use crate::coordinator::stream::Stream;
use crate::coordinator::{Command, Coordinator};
use crate::event::{EventBus, Events};
use crate::snapshot::State;
use crate::store::Store;
use crate::sync::lock;

pub(super) struct Instance {
    pub(super) wire: Arc<Wire>,
    pub(super) context: Arc<RegistryContext>,
    pub(super) events: Events,
    breakers: Arc<BreakerMap>,
    pub(super) rules: Rules,
    pub(super) had_other_rules: bool,
    /// It registers all of `PINNED` at its start.
    pub(super) pins: bool,
    pause: Arc<Pause>,
    tasks: Vec<JoinHandle<()>>,
    requests: mpsc::UnboundedSender<Command>,
    /// What the invariants compare the next step with.
    pub(super) before: Before,
}

/// What was seen of an instance.
#[derive(Default)]
pub(super) struct Before {
    /// Since when it has been connected without a break.
    pub(super) connected_since: Option<Moment>,
    /// How often a request had failed.
    pub(super) failures: u64,
    pub(super) seen: HashMap<Arc<str>, Seen>,
    /// By breaker: the epoch of the latest transition that a subscriber was told of, and its event's serial.
    pub(super) announced: HashMap<Arc<str>, (u64, u64)>,
}

/// What was seen of a breaker.
pub(super) struct Seen {
    /// A keyed breaker that is evicted begins anew.
    pub(super) core: Weak<Core>,
    pub(super) state: State,
    pub(super) epoch: u64,
    /// When the state began, by this instance's clock: the store's may jump.
    pub(super) since: Option<Moment>,
    /// The store answers, and the state has not begun without it.
    pub(super) is_shared: bool,
    pub(super) is_local: bool,
}

const TENANTS: KeyedSite = KeyedSite { bit: 1, pattern: "tenant-{id}", at: std::panic::Location::caller() };

pub(super) fn context(name: &str, clock: Clock) -> RegistryContext {
    let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
    let up = Arc::new(AtomicBool::new(false));
    let bus = Arc::new(EventBus::new(None));
    RegistryContext::new(name.into(), clock, bus, cache, up).with_shared_store(true)
}

impl Instance {
    pub(super) fn start(name: &str, wire: Wire, rules: Rules, pins: bool, checks: Begun) -> Instance {
        let (clock, wire) = (wire.clock.clone(), Arc::new(wire));
        let context = Arc::new(context(name, clock.clone()));
        let events = context.events.subscribe();
        let breakers = Arc::new(BreakerMap::new(PLACES, clock.now()));
        let (requests, receiver) = mpsc::unbounded_channel();
        let stream = Arc::new(Stream::default());
        let store: Arc<dyn Store> = wire.clone();
        let follower = Follower {
            context: context.clone(),
            breakers: breakers.clone(),
            store: store.clone(),
            stream: stream.clone(),
            requests: requests.downgrade(),
        };
        let pace = Pace::steady(clock.now());
        let run_check = Box::new(move |core, check| lock(&checks).push((core, check)));
        let (known, all) = (context.clone(), breakers.clone());
        let coordinator = Coordinator::new(known, all, store, stream, receiver, pace, run_check);
        let (ready, _) = std::sync::mpsc::sync_channel(1);
        let pause = Arc::new(Pause::default());
        let tasks = vec![pause.spawn(coordinator.run(ready)), pause.spawn(follower.run())];
        let instance = Instance {
            wire,
            context,
            events,
            breakers,
            rules,
            pins,
            had_other_rules: false,
            pause,
            tasks,
            requests,
            before: Before::default(),
        };
        for name in PINNED.into_iter().filter(|_| pins) {
            instance.pinned(name);
        }
        instance
    }

    fn config(&self, name: &str) -> BreakerConfig {
        config(name, self.rules)
    }

    /// The breakers that it has registered get the settings of other rules.
    pub(super) fn configure(&mut self, rules: Rules) {
        self.had_other_rules |= self.rules != rules;
        self.rules = rules;
        for core in self.registered().into_iter().filter(|core| !core.is_provisional()) {
            let settings = self.config(core.name()).resolve().expect("valid settings");
            core.configure(settings, &PerFunction::default());
        }
    }

    fn register(&self, name: &str, kind: BreakerKind) -> Arc<Core> {
        let settings = self.config(name);
        let make = |name, held| Core::new(name, &settings, held, &self.context);
        self.breakers.entry(name).insert(kind, make)
    }

    fn register_again(&self, core: Arc<Core>) -> Arc<Core> {
        let given = self.config(core.name());
        core.registered_again(&given, &given.resolve().expect("valid settings"), TENANTS.at);
        core.registered();
        core
    }

    /// The breaker for a call; `None` if there is no place for it.
    pub(super) fn breaker(&self, number: usize) -> Option<Arc<Core>> {
        let Some(name) = number.checked_sub(PINNED.len()).map(|keyed| KEYED[keyed]) else {
            return Some(self.pinned(PINNED[number]));
        };
        if let Some(known) = self.breakers.get_keyed(name, &self.config(name), TENANTS) {
            return Some(if known.first { self.register_again(known.core) } else { known.core });
        }
        let has_room = self.breakers.entry(name).has_room();
        has_room.then(|| self.register(name, BreakerKind::Keyed(TENANTS)))
    }

    fn pinned(&self, name: &str) -> Arc<Core> {
        match self.breakers.pin(name) {
            Some(core) => self.register_again(core),
            None => self.register(name, BreakerKind::Pinned),
        }
    }

    /// Its program looks at a breaker, registered or not.
    pub(super) fn look(&self, name: &str) {
        let entry = self.breakers.entry(name);
        if entry.get().is_none() {
            entry.insert(BreakerKind::Observed, |name, held| Core::observed(name, held, &self.context));
        }
    }

    /// The breaker for an override, and what keeps it in the coordinator's care if it is not registered.
    pub(super) fn steered(&self, name: &str) -> (Breaker, Option<Steered>) {
        if let Some(core) = self.breakers.get(name) {
            return (Breaker::new(core), None);
        }
        let held = self.breakers.held_state(name);
        let core = Core::observed(name.into(), held, &self.context);
        let steered = self.breakers.steer(core);
        (Breaker::new(steered.core().clone()), Some(steered))
    }

    /// The epoch in which it knows a breaker.
    pub(super) fn known_epoch(&self, name: &str) -> u64 {
        let held = || self.breakers.held_state(name).map_or(0, |(record, _)| record.epoch);
        self.breakers.get(name).map_or_else(held, |core| core.snapshot_without_settings().epoch)
    }

    /// It knows the settings of this breaker.
    pub(super) fn has_registered(&self, name: &str) -> bool {
        self.breakers.get(name).is_some_and(|core| !core.is_provisional())
    }

    /// The breakers that it has, by name.
    pub(super) fn registered(&self) -> Vec<Arc<Core>> {
        let mut registered = self.breakers.registered();
        registered.sort_by(|a, b| a.name().cmp(b.name()));
        registered
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pause.paused.load(Ordering::Relaxed)
    }

    /// How often its tasks have run.
    pub(super) fn polls(&self) -> u64 {
        self.pause.polls.load(Ordering::Relaxed)
    }

    pub(super) fn pause(&self) {
        self.pause.paused.store(true, Ordering::Relaxed);
    }

    pub(super) fn resume(&self) {
        self.pause.paused.store(false, Ordering::Relaxed);
        lock(&self.pause.wakers).drain(..).for_each(Waker::wake);
    }

    /// Reports everything, returns all leases, and stops.
    pub(super) fn shut_down(&self) {
        let (done, _) = tokio::sync::oneshot::channel();
        let _ = self.requests.send(Command::Shutdown(done));
    }

    /// SIGKILL: nothing is given back.
    pub(super) fn kill(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // Breakers and their context keep each other alive through the list of what has changed.
        self.context.end();
    }
}

/// Keeps futures from being polled while the instance is paused, as SIGSTOP does.
#[derive(Default)]
struct Pause {
    paused: AtomicBool,
    /// How often a task was polled.
    polls: AtomicU64,
    wakers: Mutex<Vec<Waker>>,
}

impl Pause {
    fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(Pausable { future: Box::pin(future), pause: self.clone() })
    }
}

struct Pausable {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    pause: Arc<Pause>,
}

impl Future for Pausable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.pause.paused.load(Ordering::Relaxed) {
            lock(&self.pause.wakers).push(context.waker().clone());
            return Poll::Pending;
        }
        self.pause.polls.fetch_add(1, Ordering::Relaxed);
        self.future.as_mut().poll(context)
    }
}
