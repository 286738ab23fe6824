//! Reading from the tier that the fleet shares: one request per key at a time, with a short deadline.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::envelope;
use super::freshness::{FreshnessSlot, FreshnessTable, Interval, Ticks};
use super::key::StoreKey;
use super::payload::Payload;
use super::reports::{Problem, Reports};
use crate::clock::{Clock, Moment};
use crate::deadline::within;
use crate::store::{Cached, ResultStore};
use crate::sync::lock;

/// The longest time that a failed call waits for the store.
const PATIENCE: Duration = Duration::from_millis(100);
/// The time after a miss in which the store is not asked for the same key, so that many failing calls do
/// not become many commands.
pub(super) const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// The time after a deadline has passed in which the store is not asked at all.
pub(super) const QUIET: Duration = Duration::from_secs(1);
/// The maximum number of concurrent requests.
pub(super) const MAX_FLIGHTS: usize = 256;
/// The number of places for remembering misses.
const ASKED_PLACES: usize = 1024;

/// Access to the store, which belongs to the coordinator.
#[derive(Clone)]
pub(super) struct StoreLink {
    /// Weak, because breakers, and the cache with them, may outlive their registry.
    store: Weak<dyn ResultStore>,
    store_up: Arc<AtomicBool>,
}

impl StoreLink {
    pub(super) fn new(store: &Arc<dyn ResultStore>, store_up: Arc<AtomicBool>) -> Self {
        StoreLink { store: Arc::downgrade(store), store_up }
    }

    /// The store, unless it is away.
    pub(super) fn store(&self) -> Option<Arc<dyn ResultStore>> {
        if self.store_up.load(Ordering::Relaxed) { self.store.upgrade() } else { None }
    }

    /// Whether the store was dropped.
    pub(super) fn is_gone(&self) -> bool {
        self.store.strong_count() == 0
    }
}

pub(super) struct SharedTier {
    link: StoreLink,
    background: Handle,
    /// The registry's clock: ages are measured on it.
    clock: Clock,
    reports: Arc<Reports>,
    /// The calls that wait for each result.
    flights: Mutex<HashMap<StoreKey, Vec<Waiter>>>,
    asked: FreshnessTable<ASKED_PLACES>,
    /// The machine's clock, even if a test moves the registry's: requests are limited in real time.
    pace: Clock,
    patience: Duration,
    /// The moment of `pace` until which the store is not asked.
    quiet_until: AtomicU64,
}

type Waiter = oneshot::Sender<Option<Arc<Found>>>;

/// The store's answer, for all calls that waited for it. The first of them opens it, because work in the
/// background would delay all others.
pub(super) struct Found {
    cached: Cached,
    asked_at: Moment,
    opened: OnceLock<Result<Opened, String>>,
    /// Whether one of the calls has reported that it cannot be read.
    reported: AtomicBool,
}

/// The content of an envelope, and its age at the time of the request.
pub(super) struct Opened {
    pub(super) payload: Payload,
    pub(super) ttl: Duration,
    pub(super) age: Duration,
    pub(super) at: Moment,
}

impl Opened {
    pub(super) fn age(&self, now: Moment) -> Duration {
        self.age.saturating_add(now.since(self.at))
    }
}

impl Found {
    fn new(cached: Cached, asked_at: Moment) -> Self {
        Found { cached, asked_at, opened: OnceLock::new(), reported: AtomicBool::new(false) }
    }

    pub(super) fn open(&self) -> &Result<Opened, String> {
        self.opened.get_or_init(|| {
            let (payload, ttl) = envelope::open(&self.cached.value)?;
            let remaining = self.cached.remaining.ok_or("it never expires, so its age is unknown")?;
            // The elapsed part of the TTL.
            let age = ttl.checked_sub(remaining).ok_or("it lives longer than its ttl")?;
            Ok(Opened { payload, ttl, age, at: self.asked_at })
        })
    }

    /// Returns `true` to the first caller only.
    pub(super) fn is_first_report(&self) -> bool {
        !self.reported.swap(true, Ordering::Relaxed)
    }
}

impl SharedTier {
    pub(super) fn new(link: StoreLink, background: Handle, clock: Clock, reports: Arc<Reports>) -> Self {
        SharedTier {
            link,
            background,
            clock,
            reports,
            flights: Mutex::default(),
            asked: FreshnessTable::new(),
            pace: Clock::system(),
            patience: PATIENCE,
            quiet_until: AtomicU64::new(0),
        }
    }

    pub(super) fn background(&self) -> &Handle {
        &self.background
    }

    pub(super) fn is_away(&self) -> bool {
        self.link.store().is_none()
    }

    /// The result, if the store has one and answers in time. Deadlines are kept in the background, so this
    /// works in any executor. Cancelling abandons the answer for this caller only.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        breaker: &Arc<str>,
        key: StoreKey,
        slot: FreshnessSlot,
    ) -> Option<Arc<Found>> {
        let answer = self.board(breaker, key, slot)?;
        if let Some(found) = within(2 * self.patience, answer).await {
            return found.ok().flatten();
        }
        // In a forked process, nothing runs in the background.
        self.be_quiet();
        lock(&self.flights).remove(&key);
        None
    }

    fn be_quiet(&self) {
        self.quiet_until.store(self.pace.now().after(QUIET).0, Ordering::Relaxed);
    }

    /// Joins the request for this result, or starts one. `None`: the store is not asked now.
    fn board(
        self: &Arc<Self>,
        breaker: &Arc<str>,
        key: StoreKey,
        slot: FreshnessSlot,
    ) -> Option<oneshot::Receiver<Option<Arc<Found>>>> {
        if self.pace.now() < Moment(self.quiet_until.load(Ordering::Relaxed))
            || self.asked.is_fresh(slot, Ticks::now(&self.pace))
        {
            return None;
        }
        let store = self.link.store()?;
        let (waiter, answer) = oneshot::channel();
        let mut flights = lock(&self.flights);
        if let Some(waiters) = flights.get_mut(&key) {
            waiters.push(waiter);
            return Some(answer);
        }
        if flights.len() >= MAX_FLIGHTS {
            drop(flights);
            self.reports.problem(Problem::Full, breaker, || {
                format!("{MAX_FLIGHTS} results are being read from the store already")
            });
            return None;
        }
        flights.insert(key, vec![waiter]);
        drop(flights);
        let flight = Flight { shared: self.clone(), key };
        let breaker = breaker.clone();
        self.background.spawn(async move {
            let found = flight.shared.ask(store, &breaker, key).await;
            if found.is_none() {
                flight.shared.note_miss(slot);
            }
            flight.land(found);
        });
        Some(answer)
    }

    /// Notes a miss or an unusable answer: the store is not asked for this key for [`ASK_INTERVAL`].
    pub(super) fn note_miss(&self, slot: FreshnessSlot) {
        const INTERVAL: Interval = Interval::of(ASK_INTERVAL);
        self.asked.set(slot, Ticks::now(&self.pace).end_of(INTERVAL, Duration::ZERO), false);
    }

    async fn ask(&self, store: Arc<dyn ResultStore>, breaker: &Arc<str>, key: StoreKey) -> Option<Found> {
        // Taken before the request, so that the age is over- rather than underestimated.
        let asked_at = self.clock.now();
        let answer = tokio::time::timeout(self.patience, store.cache_get(key.text(breaker))).await;
        let problem = match answer {
            Ok(Ok(cached)) => return cached.map(|cached| Found::new(cached, asked_at)),
            Ok(Err(error)) => format!("a cached result could not be read: {error}"),
            Err(_late) => {
                self.be_quiet();
                format!("the store did not give a cached result within {:?}", self.patience)
            }
        };
        self.reports.problem(Problem::Store, breaker, || problem);
        None
    }
}

#[cfg(test)]
impl SharedTier {
    /// For tests that stop the store: another deadline, and a clock for the limits of requests.
    pub(super) fn pace_by(&mut self, pace: Clock, patience: Duration) {
        (self.pace, self.patience) = (pace, patience);
    }

    /// The number of calls that wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.flights.lock().unwrap().values().map(Vec::len).sum()
    }
}

/// A request in flight. However it ends, all waiting calls are answered.
struct Flight {
    shared: Arc<SharedTier>,
    key: StoreKey,
}

impl Flight {
    fn waiters(&self) -> Vec<Waiter> {
        let mut flights = lock(&self.shared.flights);
        flights.remove(&self.key).unwrap_or_default()
    }

    fn land(self, found: Option<Found>) {
        let found = found.map(Arc::new);
        for waiter in self.waiters() {
            // The call may have been cancelled.
            let _ = waiter.send(found.clone());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        drop(self.waiters());
    }
}
