//! A cached result, as this process holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::function::FunctionId;
use super::key::{CacheKey, LocalKey, StoreKey};
use super::payload::Payload;
use crate::clock::Moment;

/// A result with its age, and with what it takes to write it to the store.
#[derive(Debug)]
pub(super) struct CachedEntry {
    pub(super) owner: Owner,
    pub(super) key: LocalKey,
    pub(super) store_key: Option<Box<StoreKey>>,
    pub(super) payload: Payload,
    /// How long the function that returned the result wants it to be kept.
    pub(super) ttl: Duration,
    /// How old the result was at `at`. Two fields, because a result may be older than the clock.
    age: Duration,
    at: Moment,
    /// The writer has taken the result, or nobody asked it to.
    taken: AtomicBool,
}

/// Whose result it is. Compared before the result is used, so that the hashes have to tell arguments apart and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) breaker: Arc<str>,
    pub(super) function: FunctionId,
}

impl CachedEntry {
    pub(super) fn new(
        owner: Owner,
        key: CacheKey,
        payload: Payload,
        ttl: Duration,
        age: Duration,
        at: Moment,
    ) -> Self {
        let CacheKey { local, store } = key;
        CachedEntry {
            owner,
            key: local,
            store_key: store,
            payload,
            ttl,
            age,
            at,
            taken: AtomicBool::new(false),
        }
    }

    pub(super) fn age(&self, now: Moment) -> Duration {
        self.age.saturating_add(now.since(self.at))
    }

    /// How long the store is to keep the result; zero if it is too late.
    pub(super) fn remaining(&self, now: Moment) -> Duration {
        self.ttl.saturating_sub(self.age(now))
    }

    pub(super) fn is_of(&self, breaker: &str, function: FunctionId) -> bool {
        self.owner.function == function && *self.owner.breaker == *breaker
    }

    /// `true` once, for the writer.
    pub(super) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::SeqCst)
    }

    /// What the entry takes in memory, roughly.
    pub(super) fn size(&self) -> usize {
        /// The entry itself, its place in the cache, and what the allocator adds.
        const OVERHEAD: usize = 256;
        self.payload.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::tests::key;

    #[test]
    fn an_age_may_exceed_that_of_the_clock() {
        let week = Duration::from_secs(7 * 86_400);
        let owner = Owner { breaker: "b".into(), function: FunctionId(1) };
        let entry = CachedEntry::new(owner, key(1), Payload::json(b"1"), week * 2, week, Moment(1));
        assert_eq!(entry.age(Moment(1_000_001)), week + Duration::from_secs(1));
        assert_eq!(entry.remaining(Moment(1_000_001)) + Duration::from_secs(1), week);
    }
}
