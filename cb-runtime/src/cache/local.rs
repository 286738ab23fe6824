//! The tier in this process: bounded in entries and in bytes.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::FreshStamps;
use super::entry::CachedEntry;
use super::key::LocalKey;
use crate::config::CacheLimits;

pub(super) struct LocalTier {
    cache: Cache<LocalKey, Arc<CachedEntry>, AtLeast, Unhashed, Forgets>,
}

impl LocalTier {
    /// Removes the stamps of evicted entries from `fresh`.
    pub(super) fn new(limits: CacheLimits, fresh: Arc<FreshStamps>) -> Self {
        let CacheLimits { entries, bytes, result_bytes } = limits;
        // More shards mean less contention. But an entry cannot be larger than its shard, and small shards
        // evict unevenly.
        let shards = (bytes / (4 * result_bytes)).min(entries / 64).clamp(1, 16);
        let options = OptionsBuilder::new()
            .shards(1 << shards.ilog2())
            .estimated_items_capacity(entries)
            .weight_capacity(bytes as u64)
            // Half of the tier is for entries of recurring arguments, which have been replaced at least
            // once; the other half is for arguments that may not recur.
            .hot_allocation(0.5)
            .build()
            .expect("all options are set");
        let weighter = AtLeast((bytes / entries).max(1) as u64);
        LocalTier { cache: Cache::with_options(options, weighter, Unhashed, Forgets(fresh)) }
    }

    /// The entry under this key. Counts as use.
    pub(super) fn get(&self, key: LocalKey) -> Option<Arc<CachedEntry>> {
        self.cache.get(&key)
    }

    /// The entry under this key, without counting as use.
    pub(super) fn peek(&self, key: LocalKey) -> Option<Arc<CachedEntry>> {
        self.cache.peek(&key)
    }

    pub(super) fn insert(&self, entry: Arc<CachedEntry>) {
        self.cache.insert(entry.key, entry);
    }

    /// Removes this entry, unless another has replaced it.
    pub(super) fn remove(&self, entry: &Arc<CachedEntry>) -> bool {
        self.cache.remove_if(&entry.key, |found| Arc::ptr_eq(found, entry)).is_some()
    }

    /// The size of the largest entry that the tier takes.
    pub(super) fn max_entry_size(&self) -> usize {
        usize::try_from(self.cache.shard_capacity()).unwrap_or(usize::MAX)
    }
}

/// Weighs an entry by its bytes, and a small one by its share of the tier, so that one weight bounds both
/// the bytes and the number.
#[derive(Clone)]
struct AtLeast(u64);

impl Weighter<LocalKey, Arc<CachedEntry>> for AtLeast {
    fn weight(&self, _: &LocalKey, entry: &Arc<CachedEntry>) -> u64 {
        self.0.max(entry.size() as u64)
    }
}

/// Keys are hashes.
#[derive(Clone)]
struct Unhashed;

struct Unhasher(u64);

impl BuildHasher for Unhashed {
    type Hasher = Unhasher;

    fn build_hasher(&self) -> Unhasher {
        Unhasher(0)
    }
}

impl Hasher for Unhasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one word");
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Clears the stamps of evicted entries: a stamp without an entry would prevent the next success from being
/// cached.
#[derive(Clone)]
struct Forgets(Arc<FreshStamps>);

impl Lifecycle<LocalKey, Arc<CachedEntry>> for Forgets {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: LocalKey, _: Arc<CachedEntry>) {
        self.0.clear(key.slot());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::entry::EntryOwner;
    use crate::cache::freshness::{Interval, Ticks};
    use crate::cache::function::FunctionId;
    use crate::cache::key::tests::key;
    use crate::cache::payload::Payload;
    use crate::clock::{Clock, Moment};

    const TTL: Duration = Duration::from_secs(300);

    fn entry(number: u64, len: usize) -> Arc<CachedEntry> {
        let owner = EntryOwner { breaker: "b".into(), function: FunctionId(1) };
        let payload = Payload::json(&vec![b'x'; len]);
        Arc::new(CachedEntry::new(owner, key(number), payload, TTL, Duration::ZERO, Moment(1)))
    }

    fn tier(entries: usize, bytes: usize) -> (LocalTier, Arc<FreshStamps>) {
        let fresh = Arc::new(FreshStamps::new());
        let limits = CacheLimits { entries, bytes, ..CacheLimits::default() };
        (LocalTier::new(limits, fresh.clone()), fresh)
    }

    fn held(tier: &LocalTier, numbers: std::ops::Range<u64>) -> Vec<Arc<CachedEntry>> {
        numbers.filter_map(|number| tier.peek(key(number).local)).collect()
    }

    #[test]
    fn entries_and_bytes_are_bounded_and_mostly_used() {
        for (entries, bytes, len) in
            [(3, 1 << 20, 1), (1000, 16 << 20, 10), (1000, 1 << 20, 5000), (10_000, 16 << 20, 10_000)]
        {
            let (tier, _) = tier(entries, bytes);
            (0..4000).for_each(|number| tier.insert(entry(number, len)));
            let held = held(&tier, 0..4000);
            let bytes: usize = held.iter().map(|entry| entry.size()).sum();
            assert!(held.len() <= entries && bytes <= bytes + 16, "{} {bytes}", held.len());
            assert!(held.len() * 2 > entries || bytes * 2 > bytes, "{} {bytes}", held.len());
        }
    }

    #[test]
    fn entry_that_is_evicted_loses_its_stamp() {
        let (tier, fresh) = tier(64, 1 << 20);
        let end = Ticks::now(&Clock::manual().0).end_of(Interval::of(TTL), Duration::ZERO);
        for number in 0..1000 {
            fresh.set(key(number).local.slot(), end, true);
            tier.insert(entry(number, 1));
        }
        for number in 0..1000 {
            let key = key(number).local;
            assert!(tier.peek(key).is_some() || !fresh.is_held(key.slot()), "{number}");
        }
        assert!(held(&tier, 0..1000).iter().any(|entry| fresh.is_held(entry.key.slot())));
    }

    #[test]
    fn entries_that_are_kept_again_outlast_others() {
        let (tier, _) = tier(100, 1 << 20);
        for round in 0..50 {
            for number in 0..20 {
                tier.get(key(number).local);
                tier.insert(entry(number, 1));
            }
            (0..100).for_each(|number| tier.insert(entry(1000 + 100 * round + number, 1)));
        }
        assert_eq!(held(&tier, 0..20).len(), 20);
    }

    #[test]
    fn remove_spares_an_entry_that_replaced_the_given_one() {
        let (tier, _) = tier(10, 1 << 20);
        let (bad, good) = (entry(1, 1), entry(1, 2));
        tier.insert(bad.clone());
        tier.insert(good.clone());
        assert!(!tier.remove(&bad));
        assert!(tier.remove(&good));
        assert!(tier.peek(good.key).is_none());
    }
}
