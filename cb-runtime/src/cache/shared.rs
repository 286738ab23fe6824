//! The tier that the fleet shares: reading from the store, once per key at a time and never for long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::envelope::Envelope;
use super::key::Identity;
use super::local::Aged;
use super::pending::Pending;
use super::reports::{Reports, Trouble};
use super::stamps::{Spot, Stamps};
use crate::clock::{Clock, Moment};
use crate::store::{Cached, Store};
use crate::sync::lock;

/// How long a failed call waits for the store at most.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the store is not asked again for what it did not have: a crowd of failing calls must not
/// become a crowd of commands.
pub(super) const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// How long nothing is asked of a store that has let a call wait in vain.
pub(super) const QUIET: Duration = Duration::from_secs(1);
/// The most results that are asked for at one time.
pub(super) const MAX_FLIGHTS: usize = 256;
/// Places for remembering what the store did not have.
const ASKED_PLACES: usize = 1024;

pub(super) struct Shared {
    /// The coordinator's. Not kept from ending with it: breakers, and with them this, may outlive their registry.
    store: Weak<dyn Store>,
    store_up: Arc<AtomicBool>,
    pub(super) background: Handle,
    /// The registry's clock: ages are measured on it.
    pub(super) clock: Clock,
    pub(super) reports: Arc<Reports>,
    pub(super) pending: Mutex<Pending>,
    /// Told when nothing waits to be written any more.
    pub(super) settled: Notify,
    /// Who waits for which result.
    flights: Mutex<HashMap<Identity, Vec<Waiter>>>,
    asked: Stamps,
    /// The machine's clock: a store is spared in real time, also where a test holds the registry's.
    pace: Clock,
    /// How long a failed call waits for the store at most.
    patience: Duration,
    /// The moment of `pace` before which the store is not asked.
    quiet_until: AtomicU64,
}

type Waiter = oneshot::Sender<Option<Arc<Found>>>;

/// A result as the store gave it, for all who waited for it. The first of them opens it, and not the
/// background: that must stay quick for everyone else, and a result may be large.
pub(super) struct Found {
    bytes: Arc<Vec<u8>>,
    remaining: Option<Duration>,
    asked_at: Moment,
    opened: OnceLock<Result<Aged, String>>,
    /// One of them has said that it cannot be used.
    complained: AtomicBool,
}

impl Found {
    fn new(cached: Cached, asked_at: Moment) -> Self {
        Found {
            bytes: Arc::new(cached.value),
            remaining: cached.remaining,
            asked_at,
            opened: OnceLock::new(),
            complained: AtomicBool::new(false),
        }
    }

    pub(super) fn open(&self) -> &Result<Aged, String> {
        self.opened.get_or_init(|| {
            let envelope = Envelope::open(self.bytes.clone())?;
            let remaining = self.remaining.ok_or("it never expires, so its age is unknown")?;
            // What has passed of the ttl that its writer gave it.
            let age = envelope.ttl().checked_sub(remaining).ok_or("it lives longer than its ttl says")?;
            Ok(Aged::new(envelope, age, self.asked_at))
        })
    }

    /// `true` for one caller.
    pub(super) fn is_first_complaint(&self) -> bool {
        !self.complained.swap(true, Ordering::Relaxed)
    }
}

impl Shared {
    pub(super) fn new(
        store: Weak<dyn Store>,
        store_up: Arc<AtomicBool>,
        background: Handle,
        clock: Clock,
        reports: Arc<Reports>,
    ) -> Self {
        Shared {
            store,
            store_up,
            background,
            clock,
            reports,
            pending: Mutex::default(),
            settled: Notify::new(),
            flights: Mutex::default(),
            asked: Stamps::new(ASKED_PLACES),
            pace: Clock::system(),
            patience: PATIENCE,
            quiet_until: AtomicU64::new(0),
        }
    }

    /// The store, unless it is away.
    pub(super) fn store(&self) -> Option<Arc<dyn Store>> {
        if self.store_up.load(Ordering::Relaxed) { self.store.upgrade() } else { None }
    }

    /// It will not come back.
    pub(super) fn is_store_gone(&self) -> bool {
        self.store.strong_count() == 0
    }

    /// The result, if the store has one and says so in time. Needs no runtime of the caller's:
    /// the background keeps the deadline. Cancelling abandons the answer for this caller only.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        breaker: &Arc<str>,
        identity: Identity,
        spot: Spot,
    ) -> Option<Arc<Found>> {
        let answer = self.board(breaker, identity, spot)?;
        answer.await.ok().flatten()
    }

    /// Joins the flight for this result, or starts one. `None`: there is no point in asking now.
    fn board(
        self: &Arc<Self>,
        breaker: &Arc<str>,
        identity: Identity,
        spot: Spot,
    ) -> Option<oneshot::Receiver<Option<Arc<Found>>>> {
        let now = self.pace.now();
        if now < Moment(self.quiet_until.load(Ordering::Relaxed))
            || self.asked.is_younger(spot, now, ASK_INTERVAL)
        {
            return None;
        }
        let store = self.store()?;
        let (waiter, answer) = oneshot::channel();
        let mut flights = lock(&self.flights);
        if let Some(waiters) = flights.get_mut(&identity) {
            waiters.push(waiter);
            return Some(answer);
        }
        if flights.len() >= MAX_FLIGHTS {
            drop(flights);
            let problem = format!("{MAX_FLIGHTS} results are being read from the store already");
            self.reports.trouble(Trouble::Full, breaker, problem);
            return None;
        }
        flights.insert(identity, vec![waiter]);
        drop(flights);
        let flight = Flight { shared: self.clone(), identity };
        let breaker = breaker.clone();
        self.background.spawn(async move {
            let found = flight.shared.ask(store, &breaker, identity).await;
            if found.is_none() {
                flight.shared.has_nothing_for(spot);
            }
            flight.land(found);
        });
        Some(answer)
    }

    /// What the store gave is of no use: it is not asked again for a while.
    pub(super) fn has_nothing_for(&self, spot: Spot) {
        self.asked.set(spot, self.pace.now());
    }

    async fn ask(&self, store: Arc<dyn Store>, breaker: &Arc<str>, identity: Identity) -> Option<Found> {
        // Taken before asking, so that the result counts as rather too old than too young.
        let asked_at = self.clock.now();
        let answer = tokio::time::timeout(self.patience, store.cache_get(identity.store_key(breaker))).await;
        let problem = match answer {
            Ok(Ok(cached)) => return cached.map(|cached| Found::new(cached, asked_at)),
            Ok(Err(error)) => format!("a cached result could not be read: {error}"),
            Err(_late) => {
                self.quiet_until.store(self.pace.now().after(QUIET).0, Ordering::Relaxed);
                format!("the store did not give a cached result within {:?}", self.patience)
            }
        };
        self.reports.trouble(Trouble::Store, breaker, problem);
        None
    }
}

#[cfg(test)]
impl Shared {
    /// For tests that stop the store on purpose: more patience, and a hand on the time for which it is spared.
    pub(super) fn pace_by(&mut self, pace: Clock, patience: Duration) {
        (self.pace, self.patience) = (pace, patience);
    }

    /// How many calls wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.flights.lock().unwrap().values().map(Vec::len).sum()
    }
}

/// A question to the store that is under way. However it ends, nobody goes on waiting.
struct Flight {
    shared: Arc<Shared>,
    identity: Identity,
}

impl Flight {
    fn waiters(&self) -> Vec<Waiter> {
        let mut flights = lock(&self.shared.flights);
        flights.remove(&self.identity).unwrap_or_default()
    }

    fn land(self, found: Option<Found>) {
        let found = found.map(Arc::new);
        for waiter in self.waiters() {
            // Who has gone has no use for it.
            let _ = waiter.send(found.clone());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        drop(self.waiters());
    }
}
