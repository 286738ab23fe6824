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
mod keep;
mod key;
mod local;
mod payload;
mod program;
mod recall;
mod reports;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::CacheLimits;
use crate::name::BreakerName;
use crate::store::ResultStore;
use entry::{CachedEntry, EntryOwner};
use freshness::{FreshnessTable, Ticks};
pub use function::CacheSite;
pub(crate) use function::{Function, FunctionId};
pub(crate) use key::{Arguments, CacheKey};
use key::{LocalKey, Secret, StoreKey};
use local::LocalTier;
pub(crate) use recall::Here;
pub(crate) use reports::Reporter;
use reports::Reports;
use shared::{SharedTier, StoreLink};
use writer::Writer;

/// A success replaces the cached result only if that is older than this, or than a tenth of its TTL.
const FRESH: Duration = Duration::from_secs(5);
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

    /// The entry under the key, if it belongs to this caller's breaker and function.
    fn held(&self, caller: Caller<'_>, key: LocalKey) -> Option<Arc<CachedEntry>> {
        self.local.get(key).filter(|entry| entry.is_of(caller.breaker, caller.function.id()))
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
