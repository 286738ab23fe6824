//! The cached result in place of a failure or a rejection.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::entry::CachedEntry;
use super::freshness::{Interval, Ticks};
use super::key::{CacheKey, EntryKey, StoreKey};
use super::reports::Problem;
use super::shared::{Found, Opened};
use super::{Cache, Caller, interval};
use crate::clock::Moment;
use crate::event::CacheTier;

/// The result of a look-up in this process.
pub(crate) enum Here<T> {
    Found(T),
    /// A value that cannot be read as the function's type.
    Undecodable,
    /// The store may have it, under this key.
    Nothing(Option<Box<StoreKey>>),
}

impl Cache {
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
            shared.note_miss(slot);
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

    fn keep_found(&self, caller: Caller<'_>, key: EntryKey, found: &Opened, now: Moment) {
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
}
