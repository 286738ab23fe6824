//! The tier in this process: bounded in entries and in bytes.
//!
//! Each shard evicts in the order of insertion (a FIFO queue with a second chance, as S3-FIFO): an insertion
//! touches fewer cache lines than a list in the order of use would, and cache lines that threads take from
//! each other are the cost of a new entry.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::mem;
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;
use smallvec::SmallVec;

use super::FreshStamps;
use super::entry::CachedEntry;
use super::key::LocalKey;
use crate::config::CacheLimits;
use crate::sync::lock;

pub(super) struct LocalTier {
    /// Their number is a power of two.
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    limits: ShardLimits,
    fresh: Arc<FreshStamps>,
}

#[derive(Clone, Copy)]
struct ShardLimits {
    /// The maximum weight of the entries.
    weight: usize,
    /// The weight of a small entry: its share of the tier. One weight then bounds the bytes and the number.
    least: usize,
}

#[derive(Default)]
struct Shard {
    places: HashMap<LocalKey, Place, Unhashed>,
    /// The keys of entries that may not recur, and of recurring ones, which have been replaced or cached
    /// before. In the order of insertion.
    new: VecDeque<LocalKey>,
    recurring: VecDeque<LocalKey>,
    /// Of all entries, and of recurring ones.
    weight: usize,
    recurring_weight: usize,
}

struct Place {
    entry: Arc<CachedEntry>,
    /// Used since it was inserted, or since its last second chance.
    used: bool,
    /// Which queue has its key.
    recurring: bool,
}

/// Entries that have left a shard. They are dropped when it is unlocked.
type Left = SmallVec<[Arc<CachedEntry>; 2]>;

impl LocalTier {
    /// Removes the stamps of evicted entries from `fresh`.
    pub(super) fn new(limits: CacheLimits, fresh: Arc<FreshStamps>) -> Self {
        let CacheLimits { entries, bytes, result_bytes } = limits;
        // More shards mean less contention. But an entry cannot be larger than its shard, and small shards
        // evict unevenly.
        let shards = (bytes / (2 * result_bytes)).min(entries / 64).clamp(1, 32);
        let shards = 1 << shards.ilog2();
        let limits = ShardLimits { weight: bytes.div_ceil(shards), least: (bytes / entries).max(1) };
        LocalTier { shards: (0..shards).map(|_| CachePadded::default()).collect(), limits, fresh }
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits choose the shard")]
    fn shard(&self, key: LocalKey) -> &Mutex<Shard> {
        &self.shards[key.bits() as usize & (self.shards.len() - 1)]
    }

    /// The entry under this key. Counts as use.
    pub(super) fn get(&self, key: LocalKey) -> Option<Arc<CachedEntry>> {
        let mut shard = lock(self.shard(key));
        let place = shard.places.get_mut(&key)?;
        place.used = true;
        Some(place.entry.clone())
    }

    /// The entry under this key, without counting as use.
    pub(super) fn peek(&self, key: LocalKey) -> Option<Arc<CachedEntry>> {
        lock(self.shard(key)).places.get(&key).map(|place| place.entry.clone())
    }

    /// `recurring`: there has been an entry under this key before, as far as is known.
    pub(super) fn insert(&self, entry: Arc<CachedEntry>, recurring: bool) {
        let key = entry.key;
        let mut left = Left::new();
        lock(self.shard(key)).insert(key, entry, recurring, self.limits, &mut left);
        for evicted in &left {
            if evicted.key != key {
                self.fresh.clear(evicted.key.slot());
            }
        }
    }

    /// Removes this entry, unless another has replaced it.
    pub(super) fn remove(&self, entry: &Arc<CachedEntry>) -> bool {
        let mut shard = lock(self.shard(entry.key));
        let found = shard.places.get(&entry.key).is_some_and(|place| Arc::ptr_eq(&place.entry, entry));
        if found {
            shard.remove(entry.key, self.limits);
        }
        found
    }

    /// The size of the largest entry that the tier takes.
    pub(super) fn max_entry_size(&self) -> usize {
        self.limits.weight
    }
}

impl ShardLimits {
    fn weight_of(self, entry: &CachedEntry) -> usize {
        self.least.max(entry.size())
    }
}

impl Shard {
    fn insert(
        &mut self,
        key: LocalKey,
        entry: Arc<CachedEntry>,
        recurring: bool,
        limits: ShardLimits,
        left: &mut Left,
    ) {
        let weight = limits.weight_of(&entry);
        match self.places.entry(key) {
            Entry::Occupied(mut place) => {
                let place = place.get_mut();
                place.used = true;
                let replaced = mem::replace(&mut place.entry, entry);
                let before = limits.weight_of(&replaced);
                left.push(replaced);
                self.weight = self.weight - before + weight;
                if place.recurring {
                    self.recurring_weight = self.recurring_weight - before + weight;
                }
            }
            Entry::Vacant(place) => {
                place.insert(Place { entry, used: false, recurring });
                self.weight += weight;
                if recurring {
                    self.recurring_weight += weight;
                    self.recurring.push_back(key);
                } else {
                    self.new.push_back(key);
                }
            }
        }
        while self.weight > limits.weight {
            left.extend(self.evict_or_spare(key, limits));
        }
    }

    /// Evicts the first entry of a queue, unless it has been used, or is the one that was just `inserted`.
    /// Half of the shard is for recurring entries, the other half for entries that may not recur.
    fn evict_or_spare(&mut self, inserted: LocalKey, limits: ShardLimits) -> Option<Arc<CachedEntry>> {
        let crowded = self.recurring_weight > limits.weight / 2 && self.recurring.len() > 1;
        let recurring = crowded || self.new.is_empty();
        let queue = if recurring { &mut self.recurring } else { &mut self.new };
        let Some(Entry::Occupied(mut found)) = queue.pop_front().map(|key| self.places.entry(key)) else {
            unreachable!("what has weight is in a queue and has its place")
        };
        let (key, place) = (*found.key(), found.get_mut());
        let weight = limits.weight_of(&place.entry);
        if place.used || key == inserted {
            (place.used, place.recurring) = (false, true);
            self.recurring.push_back(key);
            self.recurring_weight += if recurring { 0 } else { weight };
            return None;
        }
        self.weight -= weight;
        self.recurring_weight -= if recurring { weight } else { 0 };
        Some(found.remove().entry)
    }

    fn remove(&mut self, key: LocalKey, limits: ShardLimits) {
        if let Some(Place { entry, recurring, .. }) = self.places.remove(&key) {
            let weight = limits.weight_of(&entry);
            self.weight -= weight;
            self.recurring_weight -= if recurring { weight } else { 0 };
            let queue = if recurring { &mut self.recurring } else { &mut self.new };
            queue.retain(|queued| *queued != key);
        }
    }
}

/// Keys are hashes.
#[derive(Clone, Default)]
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
            (0..4000).for_each(|number| tier.insert(entry(number, len), number % 3 == 0));
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
            tier.insert(entry(number, 1), false);
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
                tier.insert(entry(number, 1), round > 0);
            }
            (0..100).for_each(|number| tier.insert(entry(1000 + 100 * round + number, 1), false));
        }
        assert_eq!(held(&tier, 0..20).len(), 20);
    }

    #[test]
    fn recurring_entries_leave_half_of_the_tier_to_new_ones() {
        let (tier, _) = tier(100, 1 << 20);
        (0..200).for_each(|number| tier.insert(entry(number, 1), true));
        assert_eq!(held(&tier, 0..200).len(), 100);
        (200..250).for_each(|number| tier.insert(entry(number, 1), false));
        assert_eq!(held(&tier, 200..250).len(), 50);
        (250..500).for_each(|number| tier.insert(entry(number, 1), false));
        assert_eq!(held(&tier, 150..200).len(), 50);
    }

    #[test]
    fn entry_as_large_as_its_shard_is_kept_and_replaced() {
        let (tier, _) = tier(100, 1 << 20);
        let large = tier.max_entry_size() - entry(0, 0).size();
        for round in 0..3 {
            for recurring in [false, true] {
                tier.insert(entry(round, 1), recurring);
                assert!(tier.peek(key(round).local).is_some(), "what was just inserted stays");
                tier.insert(entry(round + 10, large), recurring);
                tier.insert(entry(round + 10, large), !recurring);
                assert_eq!(held(&tier, 0..100).len(), 1);
            }
        }
    }

    #[test]
    fn remove_spares_an_entry_that_replaced_the_given_one() {
        let (tier, _) = tier(10, 1 << 20);
        let (bad, good) = (entry(1, 1), entry(1, 2));
        tier.insert(bad.clone(), false);
        tier.insert(good.clone(), false);
        assert!(!tier.remove(&bad));
        assert!(tier.remove(&good));
        assert!(tier.peek(good.key).is_none());
    }
}
