//! What the breakers of one registry share, and how they wake the coordinator.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::Core;
use crate::cache::Cache;
use crate::clock::{Clock, Moment, wall};
use crate::config::Layers;
use crate::error::{Error, ErrorKind};
use crate::event::EventBus;
use crate::status::Connection;
use crate::sync::lock;

/// A coordinator that has given no sign of life for this long is gone, and the store with it.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

pub(crate) struct RegistryContext {
    /// The id of this instance: unique for every registry of every process.
    pub(crate) instance: Arc<str>,
    /// A name that stays the same when this instance is started again; the host's unless it is given.
    pub(crate) node: Arc<str>,
    pub(crate) connection: Connection,
    /// The store is one that a fleet shares. Its clock counts from 1970; the memory store's is this
    /// instance's.
    has_shared_store: bool,
    /// Every call is measured, for a histogram of durations.
    pub(crate) measures_calls: bool,
    pub(crate) clock: Clock,
    pub(crate) events: Arc<EventBus>,
    pub(crate) cache: Cache,
    /// The settings that do not come from attributes. A registration holds the read lock until it is done, so
    /// that no breaker misses a reload.
    layers: RwLock<Layers>,
    /// The store's clock minus this instance's, in µs (wrapping).
    skew: AtomicU64,
    store_up: Arc<AtomicBool>,
    /// When the coordinator has given its latest sign of life, in the clock's µs.
    alive_at: AtomicU64,
    notify: Notify,
    urgent: AtomicBool,
    dirty: Mutex<Vec<Arc<Core>>>,
    /// Breakers that have counted successes since they were looked at last.
    counted: Mutex<Vec<Weak<Core>>>,
    /// The coordinator has ended: no request is answered any more.
    ended: AtomicBool,
}

impl RegistryContext {
    pub(crate) fn new(
        instance: Arc<str>,
        clock: Clock,
        events: Arc<EventBus>,
        cache: Cache,
        store_up: Arc<AtomicBool>,
    ) -> Self {
        let alive_at = AtomicU64::new(clock.now().0);
        RegistryContext {
            node: instance.clone(),
            connection: Connection::default(),
            has_shared_store: false,
            measures_calls: false,
            instance,
            clock,
            events,
            cache,
            layers: RwLock::default(),
            skew: AtomicU64::new(0),
            store_up,
            alive_at,
            notify: Notify::new(),
            urgent: AtomicBool::new(false),
            dirty: Mutex::default(),
            counted: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn with_node(self, node: Arc<str>) -> Self {
        RegistryContext { node, ..self }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn measuring_calls(self, measures_calls: bool) -> Self {
        RegistryContext { measures_calls, ..self }
    }

    pub(crate) fn with_shared_store(self, has_shared_store: bool) -> Self {
        RegistryContext { has_shared_store, ..self }
    }

    /// What the store's clock shows now, as far as that is known.
    pub(crate) fn store_now(&self) -> u64 {
        self.clock.now().0.wrapping_add(self.skew())
    }

    /// The wall-clock time of an instant of the store's.
    pub(crate) fn wall_of_store(&self, at_us: u64) -> SystemTime {
        wall(self.unix_us(at_us))
    }

    /// An instant of the store's as microseconds since 1970.
    pub(crate) fn unix_us(&self, at_us: u64) -> u64 {
        let epoch_us = if self.has_shared_store { 0 } else { self.clock.epoch_us() };
        at_us.saturating_add(epoch_us)
    }

    /// The wall-clock time of a moment here: by the store's clock once that is known, by the machine's until
    /// then.
    pub(crate) fn wall(&self, at: Moment) -> SystemTime {
        match self.skew() {
            0 if self.has_shared_store => wall(at.0.saturating_add(self.clock.epoch_us())),
            skew => self.wall_of_store(at.0.wrapping_add(skew)),
        }
    }

    /// The wall-clock time of a moment that is kept as microseconds, 0 standing for none.
    pub(crate) fn wall_if_set(&self, at_us: &AtomicU64) -> Option<SystemTime> {
        let at_us = at_us.load(Ordering::Relaxed);
        (at_us != 0).then(|| self.wall(Moment(at_us)))
    }

    pub(crate) fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn layers_mut(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn skew(&self) -> u64 {
        self.skew.load(Ordering::Relaxed)
    }

    pub(crate) fn set_skew(&self, skew: u64) {
        self.skew.store(skew, Ordering::Relaxed);
    }

    /// The store answered the last time it was asked.
    pub(crate) fn store_up(&self) -> bool {
        self.store_up.load(Ordering::Acquire)
    }

    /// The coordinator, which alone talks to the store, is gone: this process was forked, or the coordinator
    /// panicked.
    pub(crate) fn is_abandoned(&self, now: Moment) -> bool {
        let alive_at = Moment(self.alive_at.load(Ordering::Relaxed));
        !self.clock.is_manual() && now.since(alive_at) >= SILENCE
    }

    /// The coordinator is alive: to be called well within every [`SILENCE`].
    pub(crate) fn sign_of_life(&self) {
        self.alive_at.store(self.clock.now().0, Ordering::Relaxed);
    }

    pub(crate) fn set_store_up(&self, up: bool) {
        self.store_up.store(up, Ordering::Release);
        if up {
            self.connection.is_up(self.wall(self.clock.now()), !self.has_shared_store);
        }
    }

    /// The store has not answered.
    pub(crate) fn store_failed(&self, error: &Error) {
        self.set_store_up(false);
        self.connection.is_lost(self.wall(self.clock.now()), error);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The coordinator ends. The dirty list is cleared, because breakers and their context keep each other
    /// alive through it.
    pub(crate) fn end(&self) {
        self.store_failed(&Error::new(ErrorKind::ShutDown));
        let mut dirty = lock(&self.dirty);
        self.ended.store(true, Ordering::Release);
        dirty.clear();
    }

    /// This breaker has something to exchange with the store: at once, or as soon as the pace allows.
    pub(crate) fn mark_dirty(&self, core: Arc<Core>, urgent: bool) {
        let mut dirty = lock(&self.dirty);
        if self.has_ended() {
            return;
        }
        dirty.push(core);
        drop(dirty);
        if urgent {
            self.urgent.store(true, Ordering::Release);
        }
        self.notify.notify_one();
    }

    /// This breaker has counted successes: they are reported when a report is due.
    pub(crate) fn mark_counted(&self, core: Weak<Core>) {
        let mut counted = lock(&self.counted);
        if self.has_ended() {
            return;
        }
        counted.push(core);
        let first = counted.len() == 1;
        drop(counted);
        if first {
            self.notify.notify_one();
        }
    }

    pub(crate) fn has_counted(&self) -> bool {
        !lock(&self.counted).is_empty()
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !lock(&self.dirty).is_empty()
    }

    /// The breakers that have counted successes, and still exist.
    pub(crate) fn take_counted(&self) -> Vec<Arc<Core>> {
        let counted = std::mem::take(&mut *lock(&self.counted));
        let counted: Vec<_> = counted.iter().filter_map(Weak::upgrade).collect();
        for core in &counted {
            core.clear_counted();
        }
        counted
    }

    /// Wakes the coordinator's next turn.
    pub(crate) fn wake(&self) {
        self.urgent.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn take_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn take_dirty(&self) -> Vec<Arc<Core>> {
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        for core in &dirty {
            core.clear_dirty();
        }
        dirty
    }
}
