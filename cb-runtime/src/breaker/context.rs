//! The context that all breakers of a registry share, and through which they wake the coordinator.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::Core;
use crate::cache::Cache;
use crate::clock::{Clock, Moment, wall};
use crate::config::Layers;
use crate::error::{Error, ErrorKind};
use crate::event::EventBus;
use crate::status::Connection;
use crate::sync::lock;
use crate::timeouts::Timeouts;

pub(crate) struct RegistryContext {
    /// The id of this instance: unique for every registry of every process.
    pub(crate) instance: Arc<str>,
    /// The node's name, which survives restarts; by default the host's.
    pub(crate) node: Arc<str>,
    pub(crate) connection: Connection,
    pub(crate) timeouts: Timeouts,
    /// Whether a fleet shares the store. A shared store's clock counts from 1970; the memory store uses this
    /// instance's clock.
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
    /// The coordinator's latest heartbeat, in the clock's µs.
    alive_at: AtomicU64,
    notify: Notify,
    urgent: AtomicBool,
    dirty: Mutex<Vec<Arc<Core>>>,
    /// Breakers that have counted successes since their last review.
    counted: Mutex<Vec<Weak<Core>>>,
    /// Whether the coordinator has ended; it then answers no requests.
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
            timeouts: Timeouts::default(),
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

    pub(crate) fn with_timeouts(self, timeouts: Timeouts) -> Self {
        RegistryContext { timeouts, ..self }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn measuring_calls(self, measures_calls: bool) -> Self {
        RegistryContext { measures_calls, ..self }
    }

    pub(crate) fn with_shared_store(self, has_shared_store: bool) -> Self {
        RegistryContext { has_shared_store, ..self }
    }

    pub(crate) fn has_shared_store(&self) -> bool {
        self.has_shared_store
    }

    /// The estimated time of the store's clock.
    pub(crate) fn store_now(&self) -> u64 {
        self.time_of_store(self.clock.now())
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

    /// The wall-clock time of a moment: by the store's clock once it is known, by the machine's until then.
    pub(crate) fn wall(&self, at: Moment) -> SystemTime {
        self.wall_of_store(self.time_of_store(at))
    }

    /// A moment as an instant of the store's. A shared store's clock shows the time since 1970, as the
    /// machine's does, which stands in for it until the store has told its time.
    fn time_of_store(&self, at: Moment) -> u64 {
        match self.skew() {
            0 if self.has_shared_store => at.0.saturating_add(self.clock.epoch_us()),
            skew => at.0.wrapping_add(skew),
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

    /// Whether the store has answered the latest request.
    pub(crate) fn store_up(&self) -> bool {
        self.store_up.load(Ordering::Acquire)
    }

    /// Whether the coordinator is gone, because this process was forked or the coordinator panicked. The
    /// store cannot be reached then.
    pub(crate) fn is_abandoned(&self, now: Moment) -> bool {
        let alive_at = Moment(self.alive_at.load(Ordering::Relaxed));
        !self.clock.is_manual() && now.since(alive_at) >= self.timeouts.silence()
    }

    /// The coordinator's heartbeat, due well within [`Timeouts::silence`].
    pub(crate) fn sign_of_life(&self) {
        self.alive_at.store(self.clock.now().0, Ordering::Relaxed);
    }

    pub(crate) fn set_store_up(&self, up: bool) {
        self.store_up.store(up, Ordering::Release);
        if up {
            self.connection.set_up(self.wall(self.clock.now()), !self.has_shared_store);
        }
    }

    /// The store has not answered.
    pub(crate) fn store_failed(&self, error: &Error) {
        self.set_store_up(false);
        self.connection.set_lost(self.wall(self.clock.now()), error);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Notes the coordinator's end. Clears the dirty list, through which breakers and their context keep each
    /// other alive.
    pub(crate) fn end(&self) {
        self.store_failed(&Error::new(ErrorKind::ShutDown));
        let mut dirty = lock(&self.dirty);
        self.ended.store(true, Ordering::Release);
        dirty.clear();
    }

    /// Notes that this breaker must be exchanged: immediately if `urgent`, else within the pace.
    pub(crate) fn mark_dirty(&self, core: Arc<Core>, urgent: bool) {
        let mut dirty = lock(&self.dirty);
        if self.has_ended() {
            return;
        }
        dirty.push(core);
        // The first one has notified the coordinator.
        let is_first = dirty.len() == 1;
        drop(dirty);
        if urgent {
            self.urgent.store(true, Ordering::Release);
        }
        if urgent || is_first {
            self.notify.notify_one();
        }
    }

    /// Notes that this breaker has counted successes, for the next report.
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

    /// Wakes the coordinator.
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::config::{BreakerConfig, CacheLimits};

    fn context() -> (RegistryContext, Clock) {
        let (clock, _hands) = Clock::manual();
        let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
        let up = Arc::new(AtomicBool::new(true));
        let bus = Arc::new(EventBus::new(None));
        let context = RegistryContext::new("a".into(), clock.clone(), bus, cache, up);
        (context.with_shared_store(true), clock)
    }

    #[test]
    fn machines_clock_stands_in_for_a_shared_stores_until_that_is_known() {
        let (context, clock) = context();
        assert_eq!(context.store_now(), clock.now().0 + clock.epoch_us());
        context.set_skew(7);
        assert_eq!(context.store_now(), clock.now().0 + 7);
    }

    #[test]
    fn coordinator_is_woken_by_the_first_breaker_and_by_urgent_ones() {
        let context = Arc::new(context().0);
        let is_woken = || {
            let mut poll = std::task::Context::from_waker(std::task::Waker::noop());
            pin!(context.notified()).poll(&mut poll).is_ready()
        };
        let core = Core::new("b".into(), &BreakerConfig::default(), None, &context);
        context.take_dirty();
        is_woken();
        for (urgent, wakes) in [(false, true), (false, false), (true, true), (false, false)] {
            context.mark_dirty(core.clone(), urgent);
            assert_eq!(is_woken(), wakes, "urgent: {urgent}");
        }
        assert_eq!(context.take_dirty().len(), 4);
        context.mark_dirty(core, false);
        assert!(is_woken());
        context.take_dirty();
    }
}
