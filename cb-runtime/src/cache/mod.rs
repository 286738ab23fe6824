//! The last good result of a function, for calls that fail.
//!
//! *Stale-if-error* (RFC 5861), never memoization: a success is remembered, and answers only where a later call fails or is
//! rejected. There are two tiers: this process, and the store that the fleet shares. A success finds out by one load that
//! the kept result is fresh, and is done; everything else is off the path of calls that succeed.

mod encoding;
mod entry;
mod envelope;
mod freshness;
mod function;
mod key;
mod local;
mod payload;
mod program;
mod reports;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::clock::{Clock, Moment};
use crate::event::CacheTier;
use crate::store::Store;
use entry::{CachedEntry, Owner};
use freshness::{FreshnessTable, Interval, Ticks};
pub use function::CacheSite;
pub(crate) use function::{Function, FunctionId};
pub(crate) use key::{Arguments, CacheKey};
use key::{LocalKey, Secret, StoreKey};
pub(crate) use local::CacheLimits;
use local::LocalTier;
use payload::{Payload, Refusal};
pub(crate) use reports::Reporter;
use reports::{Problem, Reports};
use shared::{Found, SharedTier, StoreLink};
use writer::Writer;

/// A success replaces the kept result only if that is older than this, or than a tenth of its ttl.
const FRESH: Duration = Duration::from_secs(5);
/// No result is kept for longer; this also keeps every store's arithmetic far from its limits.
const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Places for remembering what is fresh. If more keys than that are hot at one time, some take the longer way.
const FRESH_PLACES: usize = 1 << 14;

/// One registry's cached results, of all its breakers.
pub(crate) struct Cache {
    clock: Clock,
    secret: Secret,
    limits: CacheLimits,
    /// When which result was kept last, for calls that ask only that.
    fresh: Arc<FreshnessTable>,
    local: Arc<LocalTier>,
    remote: Option<Remote>,
    reports: Arc<Reports>,
}

/// What reads from the store, and what writes to it.
struct Remote {
    shared: Arc<SharedTier>,
    writer: Writer,
}

/// The call that asks.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) breaker: &'a Arc<str>,
    pub(crate) function: &'static Function,
}

impl Caller<'_> {
    fn owner(self) -> Owner {
        Owner { breaker: self.breaker.clone(), function: self.function.id() }
    }
}

/// What this process holds of a result.
pub(crate) enum Here<T> {
    Found(T),
    /// Something that is not what the function returns.
    Undecodable,
    /// The store may have it, under this key.
    Nothing(Option<Box<StoreKey>>),
}

/// The age up to which a kept result is fresh.
fn interval(ttl: Duration) -> Duration {
    (ttl / 10).min(FRESH)
}

impl Cache {
    /// A cache in this process only. Ages are measured on `clock`; hits and problems go to `reporter`.
    pub(crate) fn new(clock: Clock, limits: CacheLimits, reporter: Reporter) -> Self {
        let fresh = Arc::new(FreshnessTable::new(FRESH_PLACES));
        Cache {
            clock,
            secret: Secret::new(),
            limits,
            fresh: fresh.clone(),
            local: Arc::new(LocalTier::new(limits, fresh)),
            remote: None,
            reports: Arc::new(Reports::new(reporter)),
        }
    }

    /// Adds the tier that the fleet shares. Everything that waits for `store` runs on `background`. While `store_up` is false,
    /// and once the store has no other owner, it is neither read nor written.
    pub(crate) fn with_store(
        mut self,
        store: &Arc<dyn Store>,
        store_up: Arc<AtomicBool>,
        background: Handle,
    ) -> Self {
        let (clock, reports) = (self.clock.clone(), self.reports.clone());
        let link = StoreLink::new(store, store_up);
        let writer =
            Writer::start(link.clone(), &self.local, clock.clone(), reports.clone(), background.clone());
        let shared = Arc::new(SharedTier::new(link, background, clock, reports));
        self.remote = Some(Remote { shared, writer });
        self
    }

    /// A breaker's part of its results' keys.
    pub(crate) fn scope(&self, breaker: &str) -> u64 {
        self.secret.hash(breaker)
    }

    /// The key of a call's result. `None`: the call does without a cache, which is reported once per function.
    #[inline]
    pub(crate) fn key(
        &self,
        breaker: &Arc<str>,
        scope: u64,
        function: (FunctionId, impl FnOnce() -> &'static Function),
        arguments: &Arguments,
    ) -> Option<CacheKey> {
        let (id, function) = function;
        if let Some(problem) = arguments.problem() {
            self.reports.without_key(breaker, function(), problem);
            return None;
        }
        let local = self.secret.key(id, scope, &arguments.buffer);
        let store = match &self.remote {
            Some(remote) if !self.fresh.is_held(local.slot()) => {
                remote.store_key(breaker, function(), arguments)
            }
            _ => None,
        };
        Some(CacheKey { local, store })
    }

    /// Whether the kept result is certainly younger than `min(ttl / 10, 5 s)`, so that a success has nothing to do.
    #[inline]
    pub(crate) fn is_fresh(&self, key: &CacheKey, ttl: Duration) -> bool {
        const LONGEST: Interval = Interval::of(FRESH);
        let interval = Interval::of(ttl).tenth().min(LONGEST);
        self.fresh.is_younger(key.local.slot(), Ticks::now(&self.clock), interval)
    }

    /// Keeps a successful result, unless the one that is kept is younger than `min(ttl / 10, 5 s)`. Never waits for anything,
    /// never fails: problems are reported.
    #[cold]
    pub(crate) fn keep<T: Serialize + DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: CacheKey,
        ttl: Duration,
        value: &T,
    ) {
        if ttl.is_zero() {
            return;
        }
        let (ttl, slot) = (ttl.min(LONGEST_TTL), key.local.slot());
        let (now, ticks) = (self.clock.now(), Ticks::now(&self.clock));
        let replaced = self.held(caller, key.local);
        let store_key = key.store.or_else(|| replaced.as_ref()?.store_key.clone());
        // The key for the store is found again with the entry, so the next call need not make it.
        let held = store_key.is_some() || self.remote.is_none();
        // The table forgets; the entry knows.
        if let Some(age) = replaced.as_ref().map(|entry| entry.age(now))
            && age < interval(ttl)
        {
            return self.fresh.set(slot, ticks.before(age), held);
        }
        // Of many calls that find the result stale at once, one goes on. The claim stands also where the value cannot be
        // written: that is tried once per interval, not once per call.
        if !self.fresh.claim(slot, ticks, Interval::of(interval(ttl))) {
            return;
        }
        let unchecked = caller.function.is_unchecked();
        let payload = match Payload::write(value, self.limits.result_bytes, unchecked) {
            Ok(payload) => payload,
            Err(refusal) => {
                self.fresh.set(slot, ticks, false);
                return self.refused(caller, &refusal);
            }
        };
        if unchecked {
            caller.function.check_passed();
        }
        let key = CacheKey { local: key.local, store: store_key };
        let entry = CachedEntry::new(caller.owner(), key, payload, ttl, Duration::ZERO, now);
        let entry = Arc::new(entry);
        self.keep_here(&entry, ticks, held);
        if let (Some(remote), Some(_)) = (&self.remote, &entry.store_key) {
            remote.writer.write(&entry, replaced.as_deref());
        }
    }

    /// The entry under the key, if it is this caller's.
    fn held(&self, caller: Caller<'_>, key: LocalKey) -> Option<Arc<CachedEntry>> {
        self.local.get(key).filter(|entry| entry.is_of(caller.breaker, caller.function.id()))
    }

    fn keep_here(&self, entry: &Arc<CachedEntry>, stamp: Ticks, held: bool) {
        let slot = entry.key.slot();
        let (size, most) = (entry.size(), self.local.max_entry_size());
        if size > most {
            self.fresh.set(slot, stamp, false);
            return self.reports.problem(Problem::Full, &entry.owner.breaker, || {
                format!("a result of {size} bytes is not kept in this process, which takes up to {most}")
            });
        }
        // First the stamp: if the entry is evicted at once, its stamp goes with it.
        self.fresh.set(slot, stamp, held);
        self.local.insert(entry.clone());
    }

    fn refused(&self, caller: Caller<'_>, refusal: &Refusal) {
        let function = caller.function.path();
        let kind = match refusal {
            Refusal::TooLarge => Problem::Full,
            Refusal::Unfaithful(_) => Problem::Unserializable,
        };
        self.reports.problem(kind, caller.breaker, || match refusal {
            Refusal::TooLarge => {
                let most = self.limits.result_bytes;
                format!("a result of {function} is not cached: it takes more than {most} bytes as text")
            }
            Refusal::Unfaithful(problem) => {
                format!("a result of {function} is not cached, as it could not be read back: {problem}")
            }
        });
    }

    /// The kept result, if this process has one that is younger than `ttl`.
    pub(crate) fn recall_here<T: DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: &CacheKey,
        ttl: Duration,
    ) -> Here<T> {
        let now = self.clock.now();
        let Some(entry) = self.held(caller, key.local) else {
            if key.store.is_none() {
                // The entry has been evicted since the key was made. The next call makes both keys.
                self.fresh.clear(key.local.slot());
            }
            return Here::Nothing(key.store.clone());
        };
        let age = entry.age(now);
        if age >= ttl {
            return Here::Nothing(key.store.clone().or_else(|| entry.store_key.clone()));
        }
        match entry.payload.read() {
            Ok(value) => {
                self.reports.hit(caller.breaker, CacheTier::Local, age);
                Here::Found(value)
            }
            Err(problem) => {
                if self.local.remove(&entry) {
                    self.fresh.clear(key.local.slot());
                    self.undecodable(caller, &problem);
                }
                Here::Undecodable
            }
        }
    }

    /// The kept result, if the store has one that is younger than `ttl` and gives it in time. Works in any executor. Cancelling
    /// loses nothing but the answer.
    pub(crate) async fn recall_shared<T: DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: CacheKey,
        ttl: Duration,
    ) -> Option<T> {
        let (shared, store_key) = (&self.remote.as_ref()?.shared, **key.store.as_ref()?);
        let found = shared.fetch(caller.breaker, store_key, key.local.slot()).await?;
        let slot = key.local.slot();
        let value = self.read_shared(caller, key, ttl, &found);
        if value.is_none() {
            shared.has_nothing_for(slot);
        }
        value
    }

    /// Reads what the store gave, and keeps it here, too.
    fn read_shared<T: DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: CacheKey,
        ttl: Duration,
        found: &Found,
    ) -> Option<T> {
        let result = match found.open() {
            Ok(result) => result,
            Err(problem) => {
                if found.is_first_report() {
                    self.reports.problem(Problem::Undecodable, caller.breaker, || {
                        format!("a cached result cannot be used: {problem}")
                    });
                }
                return None;
            }
        };
        let now = self.clock.now();
        let age = result.age(now);
        if age >= ttl {
            return None;
        }
        match result.payload.read() {
            Ok(value) => {
                self.reports.hit(caller.breaker, CacheTier::Shared, age);
                self.keep_found(caller, key, result, now);
                Some(value)
            }
            Err(problem) => {
                if found.is_first_report() {
                    self.undecodable(caller, &problem);
                }
                None
            }
        }
    }

    fn keep_found(&self, caller: Caller<'_>, key: CacheKey, found: &shared::Opened, now: Moment) {
        let age = found.age(now);
        if self.held(caller, key.local).is_some_and(|held| held.age(now) <= age) {
            return;
        }
        let entry =
            CachedEntry::new(caller.owner(), key, found.payload.clone(), found.ttl, found.age, found.at);
        // The store has it.
        entry.take();
        self.keep_here(&Arc::new(entry), Ticks::now(&self.clock).before(age), true);
    }

    fn undecodable(&self, caller: Caller<'_>, problem: &str) {
        self.reports.problem(Problem::Undecodable, caller.breaker, || {
            format!(
                "a cached result is not what {} returns ({problem}); a new cache_version keeps results of \
                 another type apart",
                caller.function.path()
            )
        });
    }

    /// Returns once everything kept has been written to the store or given up, after `limit` at the latest, and at once if the
    /// store is away. Works in any executor. Cancelling leaves the writing as it is.
    pub(crate) async fn flush(&self, limit: Duration) {
        if let Some(Remote { shared, writer }) = &self.remote
            && !shared.is_away()
        {
            writer.flush(limit).await;
        }
    }
}

impl Remote {
    #[cold]
    fn store_key(&self, breaker: &str, function: &Function, arguments: &Arguments) -> Option<Box<StoreKey>> {
        let function = function.store_key(self.shared.background())?;
        Some(Box::new(StoreKey::new(function, breaker, &arguments.buffer)))
    }
}
