//! A cached result in this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::function::FunctionId;
use super::key::{EntryKey, LocalKey, StoreKey};
use super::payload::Payload;
use crate::clock::{Moment, micros};
use crate::name::BreakerName;

/// A result, its age, and the key under which it is written to the store.
#[derive(Debug)]
pub(super) struct CachedEntry {
    pub(super) owner: EntryOwner,
    pub(super) key: LocalKey,
    pub(super) store_key: Option<Box<StoreKey>>,
    pub(super) payload: Payload,
    /// The function's `cache_ttl`, in µs.
    ttl_us: u64,
    /// When the function returned the result, in the clock's µs. Negative, if the result is older than the
    /// clock.
    returned_at: i64,
    /// The writer has taken the result, or does not have to write it.
    taken: AtomicBool,
}

/// The breaker and the function of a result. Compared before the result is used, so that the hashes have to
/// distinguish only arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryOwner {
    pub(super) breaker: BreakerName,
    pub(super) function: FunctionId,
}

impl CachedEntry {
    pub(super) fn new(
        owner: EntryOwner,
        key: EntryKey,
        payload: Payload,
        ttl: Duration,
        age: Duration,
        at: Moment,
    ) -> Self {
        let EntryKey { local, store } = key;
        CachedEntry {
            owner,
            key: local,
            store_key: store,
            payload,
            ttl_us: micros(ttl),
            returned_at: signed(at.0).saturating_sub(signed(micros(age))),
            taken: AtomicBool::new(false),
        }
    }

    pub(super) fn age(&self, now: Moment) -> Duration {
        let age = signed(now.0).saturating_sub(self.returned_at);
        Duration::from_micros(u64::try_from(age).unwrap_or(0))
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_micros(self.ttl_us)
    }

    /// The rest of the TTL; zero once it has elapsed.
    pub(super) fn remaining(&self, now: Moment) -> Duration {
        self.ttl().saturating_sub(self.age(now))
    }

    pub(super) fn is_of(&self, breaker: &str, function: FunctionId) -> bool {
        self.owner.function == function && *self.owner.breaker == *breaker
    }

    /// Returns `true` once: to the writer.
    pub(super) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::SeqCst)
    }

    /// The approximate size in memory.
    pub(super) fn size(&self) -> usize {
        /// The entry, its slot in the cache, and the allocator's overhead.
        const OVERHEAD: usize = 256;
        self.payload.len() + OVERHEAD
    }
}

/// Saturates after a quarter of a million years.
fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::tests::key;

    #[test]
    fn age_may_exceed_that_of_the_clock() {
        let week = Duration::from_secs(7 * 86_400);
        let owner = EntryOwner { breaker: "b".into(), function: FunctionId(1) };
        let entry = CachedEntry::new(owner, key(1), Payload::json(b"1"), week * 2, week, Moment(1));
        assert_eq!(entry.age(Moment(1_000_001)), week + Duration::from_secs(1));
        assert_eq!(entry.remaining(Moment(1_000_001)) + Duration::from_secs(1), week);
    }
}
