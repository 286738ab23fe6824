//! The last good answer, beside the call.
//!
//! *Stale-if-error* (RFC 5861), never memoization: a success is remembered, and answers only where a
//! later call fails or is rejected. Two tiers: this process, and the store that the fleet shares.
//! A success finds out by one load that what is kept is fresh enough, and is done; all else is off
//! the path of calls that succeed.

mod digest;
mod encoding;
mod envelope;
mod key;
mod local;
mod pending;
mod reports;
mod shared;
mod stamps;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::breaker::Core;
use crate::clock::{Clock, Moment};
use crate::event::CacheTier;
use crate::store::Store;
use crate::sync::lock;
use envelope::Envelope;
use key::Identity;
pub(crate) use key::{CacheKey, KeyHasher, Unkeyable};
use local::{Aged, Local};
use pending::Write;
pub(crate) use reports::Reporter;
use reports::{Reports, Trouble};
use shared::{Found, Shared};
use stamps::{Spot, Stamps};

/// A success replaces what is kept only if that is older than this, or than a tenth of its ttl.
const FRESH: Duration = Duration::from_secs(5);
/// No result is kept for longer; it also keeps every store's arithmetic far from its limits.
const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);
/// A bigger result is not shared: all that this instance says to the store goes over one connection, and
/// what the breakers have to say must not wait behind it.
const MAX_SHARED: usize = 1 << 20;
/// Places for remembering what is fresh. If more keys than that are hot at one time, some take the longer way.
const FRESH_PLACES: usize = 4096;

/// One registry's cached results, of all its breakers.
pub(crate) struct Cache {
    clock: Clock,
    /// When which result was last kept, for those who ask only that.
    fresh: Stamps,
    local: Mutex<Local>,
    shared: Option<Arc<Shared>>,
    reports: Arc<Reports>,
}

impl Cache {
    /// A cache in this process only. Ages are measured on `clock`; hits and trouble go to `reporter`.
    pub(crate) fn new(clock: Clock, reporter: Reporter) -> Self {
        Cache {
            clock,
            fresh: Stamps::new(FRESH_PLACES),
            local: Mutex::new(Local::new(local::MAX_ENTRIES, local::MAX_BYTES)),
            shared: None,
            reports: Arc::new(Reports::new(reporter)),
        }
    }

    /// Adds the tier that the fleet shares. Everything that waits for `store` runs on `background`;
    /// while `store_up` is false, and once nobody else has it, the store is neither read nor written.
    pub(crate) fn with_store(
        mut self,
        store: &Arc<dyn Store>,
        store_up: Arc<AtomicBool>,
        background: Handle,
    ) -> Self {
        let (clock, reports) = (self.clock.clone(), self.reports.clone());
        self.shared =
            Some(Arc::new(Shared::new(Arc::downgrade(store), store_up, background, clock, reports)));
        self
    }

    /// Reports, once per function, that it does without a cache.
    pub(crate) fn unkeyable(&self, breaker: &Arc<str>, problem: &Unkeyable) {
        self.reports.unkeyable(breaker, problem);
    }

    /// Keeps a successful result, unless the one that is kept is younger than `min(ttl / 10, 5 s)`.
    /// Never waits, never fails: what goes wrong is reported.
    #[inline]
    pub(crate) fn remember<T: Serialize + ?Sized>(
        &self,
        breaker: &Arc<str>,
        key: &CacheKey,
        ttl: Duration,
        value: &T,
    ) {
        let now = self.clock.now();
        let spot = spot(breaker, key);
        let interval = (ttl / 10).min(FRESH);
        if !self.fresh.is_younger(spot, now, interval) {
            self.keep(breaker, key, spot, now, ttl.min(LONGEST_TTL), interval, value);
        }
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "what its one caller has found out already")]
    fn keep<T: Serialize + ?Sized>(
        &self,
        breaker: &Arc<str>,
        key: &CacheKey,
        spot: Spot,
        now: Moment,
        ttl: Duration,
        interval: Duration,
        value: &T,
    ) {
        if ttl.is_zero() {
            return;
        }
        let identity = Identity::new(breaker, key);
        // The table forgets; this knows.
        if let Some(age) = self.local().age(&identity, now)
            && age < interval
        {
            self.fresh.set(spot, now.before(age));
            return;
        }
        // Of many that find it stale at once, one goes on. It keeps its claim also where the value cannot
        // be serialized: that is tried once per interval, not once per call.
        if !self.fresh.claim(spot, now, interval) {
            return;
        }
        let envelope = match Envelope::seal(value, ttl) {
            Ok(envelope) => envelope,
            Err(problem) => {
                let problem = format!("a result cannot be serialized: {problem}");
                return self.reports.trouble(Trouble::Unserializable, breaker, problem);
            }
        };
        let size = envelope.len();
        self.keep_here(identity, spot, Aged::new(envelope.clone(), Duration::ZERO, now), now);
        if size + local::ENTRY_OVERHEAD > local::MAX_BYTES {
            let problem = format!("a result of {size} bytes is not cached: there are {}", local::MAX_BYTES);
            return self.reports.trouble(Trouble::Full, breaker, problem);
        }
        let Some(shared) = &self.shared else { return };
        if size > MAX_SHARED {
            let problem = format!(
                "a result of {size} bytes is cached in this process only: at most {MAX_SHARED} go to the store"
            );
            return self.reports.trouble(Trouble::Full, breaker, problem);
        }
        shared.write(identity, Write { breaker: breaker.clone(), envelope, made: now });
    }

    /// The kept result, if it is younger than `ttl`: from this process or from the store (with a
    /// short deadline). Works in any executor. Cancelling loses nothing but the answer.
    pub(crate) async fn recall<T: DeserializeOwned>(
        &self,
        breaker: &Arc<str>,
        key: &CacheKey,
        ttl: Duration,
    ) -> Option<T> {
        let identity = Identity::new(breaker, key);
        let spot = spot(breaker, key);
        match self.look_here(breaker, &identity, spot, ttl) {
            Here::Found(value) => return Some(value),
            // The store would have the same.
            Here::Undecodable => return None,
            Here::Nothing => {}
        }
        let shared = self.shared.as_ref()?;
        let found = shared.fetch(breaker, identity, spot).await?;
        let value = self.decode(breaker, identity, spot, ttl, &found);
        if value.is_none() {
            shared.has_nothing_for(spot);
        }
        value
    }

    /// What the store gave, as what the function returns; then it is kept here, too.
    fn decode<T: DeserializeOwned>(
        &self,
        breaker: &Arc<str>,
        identity: Identity,
        spot: Spot,
        ttl: Duration,
        found: &Found,
    ) -> Option<T> {
        let result = match found.open() {
            Ok(result) => result,
            Err(problem) => {
                if found.is_first_complaint() {
                    let problem = format!("a cached result cannot be used: {problem}");
                    self.reports.trouble(Trouble::Undecodable, breaker, problem);
                }
                return None;
            }
        };
        let now = self.clock.now();
        let age = result.age(now);
        if age >= ttl {
            return None;
        }
        match result.envelope.value() {
            Ok(value) => {
                self.keep_here(identity, spot, result.clone(), now);
                self.reports.hit(breaker, CacheTier::Shared, age);
                Some(value)
            }
            Err(problem) => {
                if found.is_first_complaint() {
                    self.undecodable(breaker, &problem);
                }
                None
            }
        }
    }

    fn look_here<T: DeserializeOwned>(
        &self,
        breaker: &Arc<str>,
        identity: &Identity,
        spot: Spot,
        ttl: Duration,
    ) -> Here<T> {
        let now = self.clock.now();
        let found = self.local().get(identity, now, ttl);
        let Some((result, turn)) = found else { return Here::Nothing };
        match result.envelope.value() {
            Ok(value) => {
                self.reports.hit(breaker, CacheTier::Local, result.age(now));
                Here::Found(value)
            }
            Err(problem) => {
                if self.local().remove(identity, turn) {
                    self.fresh.clear(spot);
                    self.undecodable(breaker, &problem);
                }
                Here::Undecodable
            }
        }
    }

    fn undecodable(&self, breaker: &Arc<str>, problem: &str) {
        let problem = format!(
            "a cached result is not what the function returns ({problem}); \
             a new cache_version keeps results of another type apart"
        );
        self.reports.trouble(Trouble::Undecodable, breaker, problem);
    }

    fn keep_here(&self, identity: Identity, spot: Spot, result: Aged, now: Moment) {
        for gone in self.local().put(identity, spot, result, now) {
            self.fresh.clear(gone);
        }
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        lock(&self.local)
    }

    /// Returns once everything remembered has been written to the store or given up, after `limit` at the
    /// latest, and at once if the store is away. Works in any executor. Cancelling leaves the writing as it is.
    pub(crate) async fn flush(&self, limit: Duration) {
        if let Some(shared) = &self.shared {
            shared.flush(limit).await;
        }
    }
}

/// What this process has of a result.
enum Here<T> {
    Found(T),
    /// Something, but not what the function returns.
    Undecodable,
    Nothing,
}

/// Where the tables have their stamps for a result. The breaker's address tells breakers apart here
/// and for a moment; what must be right goes by [`Identity`].
#[inline]
fn spot(breaker: &Arc<str>, key: &CacheKey) -> Spot {
    let address = Arc::as_ptr(breaker).addr() as u64;
    Spot(key.short() ^ address.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl Core {
    /// Keeps a successful result, unless the one that is kept is younger than `min(ttl / 10, 5 s)`.
    /// Never waits, never fails: what goes wrong is reported.
    pub(crate) fn remember<T: Serialize + ?Sized>(&self, key: &CacheKey, ttl: Duration, value: &T) {
        self.context().cache.remember(self.name(), key, ttl, value);
    }

    /// The kept result, from this process or from the store (with a short deadline).
    pub(crate) fn recall<T: DeserializeOwned>(
        &self,
        key: &CacheKey,
        ttl: Duration,
    ) -> impl Future<Output = Option<T>> {
        self.context().cache.recall(self.name(), key, ttl)
    }

    /// This call does without a cache, which is reported once per function.
    #[cold]
    pub(crate) fn unkeyable(&self, problem: &Unkeyable) {
        self.context().cache.unkeyable(self.name(), problem);
    }
}
