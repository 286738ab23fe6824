//! Caching a success.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::entry::CachedEntry;
use super::freshness::{Interval, Ticks};
use super::key::{CacheKey, EntryKey};
use super::payload::{Payload, Refusal};
use super::reports::Problem;
use super::{Cache, Caller, interval};

/// Results with a shorter TTL are dated by the exact clock. Others may expire a few milliseconds early.
const DATED_EXACTLY: Duration = Duration::from_secs(10);
/// The longest TTL. It keeps the arithmetic of all stores far from overflows.
pub(super) const LONGEST_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Cache {
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

    pub(super) fn keep_here(&self, entry: &Arc<CachedEntry>, stamp: Ticks, held: bool, recurring: bool) {
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
}
