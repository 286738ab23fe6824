//! The last good result of a function, for calls that fail.
//!
//! *Stale-if-error* (RFC 5861), never memoization: a cached success answers only a later call that fails or
//! is rejected. There are two tiers: this process, and the store that the fleet shares. For a success, one
//! load shows that the cached result is fresh; everything else is off the path of successful calls.

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
use crate::config::CacheLimits;
use crate::event::CacheTier;
use crate::name::BreakerName;
use crate::store::ResultStore;
use entry::{CachedEntry, EntryOwner};
use freshness::{FreshnessTable, Interval, Ticks};
pub use function::CacheSite;
pub(crate) use function::{Function, FunctionId};
pub(crate) use key::{Arguments, CacheKey};
use key::{EntryKey, LocalKey, Secret, StoreKey};
use local::LocalTier;
use payload::{Payload, Refusal};
pub(crate) use reports::Reporter;
use reports::{Problem, Reports};
use shared::{Found, SharedTier, StoreLink};
use writer::Writer;

/// A success replaces the cached result only if that is older than this, or than a tenth of its TTL.
const FRESH: Duration = Duration::from_secs(5);
/// Results with a shorter TTL are dated by the exact clock. Others may expire a few milliseconds early.
const DATED_EXACTLY: Duration = Duration::from_secs(10);
/// The longest TTL. It keeps the arithmetic of all stores far from overflows.
const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The number of places for stamps. If more keys are hot at one time, some take the slower path.
const FRESH_PLACES: usize = 1 << 14;

type FreshStamps = FreshnessTable<FRESH_PLACES>;

/// The cached results of all breakers of one registry.
pub(crate) struct Cache {
    clock: Clock,
    secret: Secret,
    limits: CacheLimits,
    /// Until when results are fresh, for the fast path.
    fresh: Arc<FreshStamps>,
    local: Arc<LocalTier>,
    remote: Option<Remote>,
    reports: Arc<Reports>,
}

/// The reader and the writer of the store's tier.
struct Remote {
    shared: Arc<SharedTier>,
    writer: Writer,
}

/// The breaker and the function of a call.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) breaker: &'a Arc<str>,
    /// The breaker's name once more, for entries: they write to no reference count that threads share.
    pub(crate) name: &'a BreakerName,
    /// See [`Cache::scope`].
    pub(crate) scope: u64,
    pub(crate) function: &'static Function,
}

impl Caller<'_> {
    fn owner(self) -> EntryOwner {
        EntryOwner { breaker: self.name.clone(), function: self.function.id() }
    }
}

/// The result of a look-up in this process.
pub(crate) enum Here<T> {
    Found(T),
    /// A value that cannot be read as the function's type.
    Undecodable,
    /// The store may have it, under this key.
    Nothing(Option<Box<StoreKey>>),
}

/// The age up to which a cached result is fresh.
fn interval(ttl: Duration) -> Duration {
    (ttl / 10).min(FRESH)
}

impl Cache {
    /// Creates a cache with the local tier only. Ages are measured on `clock`; hits and problems are sent to
    /// `reporter`.
    pub(crate) fn new(clock: Clock, limits: CacheLimits, reporter: Reporter) -> Self {
        let fresh = Arc::new(FreshStamps::new());
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

    /// Adds the tier that the fleet shares. Tasks that wait for `store` run on `background`. While
    /// `store_up` is false, and once the store has no other owner, it is neither read nor written.
    pub(crate) fn with_store(
        mut self,
        store: &Arc<dyn ResultStore>,
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

    /// The part of a key that depends on the breaker.
    pub(crate) fn scope(&self, breaker: &str) -> u64 {
        self.secret.hash(breaker)
    }

    /// The key of a call's result. `None`: the arguments cannot be serialized, so the call does without a
    /// cache; this is reported once per function.
    #[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "a call would copy the key"))]
    #[cfg_attr(not(debug_assertions), inline(always))]
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
        let words = self.secret.words(id, scope, &arguments.buffer);
        let store = match &self.remote {
            Some(remote) if !self.fresh.is_held(self.secret.slot(scope, words)) => {
                remote.store_key(breaker, function(), arguments)
            }
            _ => None,
        };
        Some(CacheKey { words, store })
    }

    /// The key in this process.
    fn local_key(&self, caller: Caller<'_>, key: &CacheKey) -> LocalKey {
        self.secret.local(caller.function.id(), caller.scope, key.words)
    }

    /// The time by the coarse clock, unless the cached result is certainly younger than `min(ttl / 10, 5 s)`:
    /// then a success need not replace it. That is the TTL with which the result was cached; a change takes
    /// effect afterwards.
    #[inline]
    pub(crate) fn stale_at(&self, scope: u64, key: &CacheKey) -> Option<u64> {
        let now = self.clock.coarse();
        (!self.fresh.is_fresh(self.secret.slot(scope, key.words), Ticks::of(now))).then_some(now)
    }

    /// Caches a successful result, unless the cached one is younger than `min(ttl / 10, 5 s)`. It neither
    /// waits nor fails; problems are reported. `coarse`: the time, from [`stale_at`](Self::stale_at).
    #[cold]
    pub(crate) fn keep<T: Serialize + DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: CacheKey,
        ttl: Duration,
        value: &T,
        coarse: u64,
    ) {
        if ttl.is_zero() {
            return;
        }
        let local = self.local_key(caller, &key);
        let (ttl, slot) = (ttl.min(LONGEST_TTL), local.slot());
        let ticks = Ticks::of(coarse);
        // By the coarse clock, an age is up to twice a tick too high.
        let now = if ttl < DATED_EXACTLY { self.clock.now() } else { self.clock.not_after(coarse) };
        let stamp = |age| ticks.end_of(Interval::of(interval(ttl)), age);
        let replaced = self.held(caller, local);
        let store_key = key.store.or_else(|| replaced.as_ref()?.store_key.clone());
        // The key for the store is found again with the entry, so the next call need not make it.
        let held = store_key.is_some() || self.remote.is_none();
        // The table may have lost the stamp; the entry has its age.
        if let Some(age) = replaced.as_ref().map(|entry| entry.age(now))
            && age < interval(ttl)
        {
            return self.fresh.set(slot, stamp(age), held);
        }
        // Of several calls that find the result stale, one replaces it. The stamp remains if the value
        // cannot be serialized: that is tried once per interval, not once per call.
        let end = stamp(Duration::ZERO);
        let Some(recurring) = self.fresh.claim(slot, ticks, end) else { return };
        let unchecked = caller.function.is_unchecked();
        let payload = match Payload::write(value, self.limits.result_bytes, unchecked) {
            Ok(payload) => payload,
            Err(refusal) => {
                self.fresh.set(slot, end, false);
                return self.refused(caller, &refusal);
            }
        };
        if unchecked {
            caller.function.check_passed();
        }
        let key = EntryKey { local, store: store_key };
        let entry = CachedEntry::new(caller.owner(), key, payload, ttl, Duration::ZERO, now);
        let entry = Arc::new(entry);
        self.keep_here(&entry, end, held, recurring);
        if let (Some(remote), Some(_)) = (&self.remote, &entry.store_key) {
            remote.writer.write(&entry, replaced.as_deref());
        }
    }

    /// The entry under the key, if it belongs to this caller's breaker and function.
    fn held(&self, caller: Caller<'_>, key: LocalKey) -> Option<Arc<CachedEntry>> {
        self.local.get(key).filter(|entry| entry.is_of(caller.breaker, caller.function.id()))
    }

    fn keep_here(&self, entry: &Arc<CachedEntry>, stamp: Ticks, held: bool, recurring: bool) {
        let slot = entry.key.slot();
        let (size, most) = (entry.size(), self.local.max_entry_size());
        if size > most {
            self.fresh.set(slot, stamp, false);
            return self.reports.problem(Problem::Full, &entry.owner.breaker, || {
                format!("a result of {size} bytes is not kept in this process, which takes up to {most}")
            });
        }
        // The stamp comes first: if the entry is evicted immediately, the eviction removes the stamp.
        self.fresh.set(slot, stamp, held);
        self.local.insert(entry.clone(), recurring);
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

    /// The cached result, if this process has one that is younger than `ttl`.
    pub(crate) fn recall_here<T: DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: &CacheKey,
        ttl: Duration,
    ) -> Here<T> {
        let now = self.clock.now();
        let local = self.local_key(caller, key);
        let Some(entry) = self.held(caller, local) else {
            if key.store.is_none() {
                // The entry has been evicted since the key was made. The next call makes both keys.
                self.fresh.clear(local.slot());
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
                    self.fresh.clear(local.slot());
                    self.undecodable(caller, &problem);
                }
                Here::Undecodable
            }
        }
    }

    /// The cached result, if the store has one that is younger than `ttl` and answers in time. Works in any
    /// executor. Cancelling abandons only the answer.
    pub(crate) async fn recall_shared<T: DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: CacheKey,
        ttl: Duration,
    ) -> Option<T> {
        let (shared, store_key) = (&self.remote.as_ref()?.shared, **key.store.as_ref()?);
        let local = self.local_key(caller, &key);
        let slot = local.slot();
        let found = shared.fetch(caller.breaker, store_key, slot).await?;
        let value = self.read_shared(caller, EntryKey { local, store: key.store }, ttl, &found);
        if value.is_none() {
            shared.has_nothing_for(slot);
        }
        value
    }

    /// Reads the store's answer, and adds it to the local tier.
    fn read_shared<T: DeserializeOwned>(
        &self,
        caller: Caller<'_>,
        key: EntryKey,
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

    fn keep_found(&self, caller: Caller<'_>, key: EntryKey, found: &shared::Opened, now: Moment) {
        let age = found.age(now);
        if self.held(caller, key.local).is_some_and(|held| held.age(now) <= age) {
            return;
        }
        let entry =
            CachedEntry::new(caller.owner(), key, found.payload.clone(), found.ttl, found.age, found.at);
        // The store has it.
        entry.take();
        let end = Ticks::now(&self.clock).end_of(Interval::of(interval(found.ttl)), age);
        self.keep_here(&Arc::new(entry), end, true, false);
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

    /// Returns once all results have been written to the store or given up, after `limit` at the latest, and
    /// immediately if the store is away. Works in any executor. Cancelling does not stop the writes.
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
