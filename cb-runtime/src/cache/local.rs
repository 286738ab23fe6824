//! The tier in this process: the results that were stored or used last, within bounds.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::envelope::Envelope;
use super::key::Identity;
use super::stamps::Spot;
use crate::clock::Moment;

/// The most results that are kept.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// The most bytes that they may take.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// What an entry takes besides its envelope, roughly: its places in the map and in the queue, and what
/// the allocator adds.
pub(super) const ENTRY_OVERHEAD: usize = 256;

pub(super) struct Local {
    entries: HashMap<Identity, Entry>,
    /// Every time that an entry was stored or used, oldest first. Only the one with the entry's own `turn` counts, and
    /// the others go when they come to the front or outnumber the entries.
    turns: VecDeque<(u64, Identity)>,
    next_turn: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

struct Entry {
    result: Aged,
    spot: Spot,
    turn: u64,
}

/// A result, and how old it is.
#[derive(Clone, Debug)]
pub(super) struct Aged {
    pub(super) envelope: Envelope,
    /// How old it was at `at`. Not folded into one moment, because it may be older than the clock.
    age: Duration,
    at: Moment,
}

impl Aged {
    pub(super) fn new(envelope: Envelope, age: Duration, at: Moment) -> Self {
        Aged { envelope, age, at }
    }

    pub(super) fn age(&self, now: Moment) -> Duration {
        self.age.saturating_add(now.since(self.at))
    }

    fn size(&self) -> usize {
        self.envelope.len() + ENTRY_OVERHEAD
    }
}

impl Local {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Local {
            entries: HashMap::new(),
            turns: VecDeque::new(),
            next_turn: 0,
            bytes: 0,
            max_entries,
            max_bytes,
        }
    }

    /// How old the result is, if there is one. Does not count as use.
    pub(super) fn age(&self, identity: &Identity, now: Moment) -> Option<Duration> {
        self.entries.get(identity).map(|entry| entry.result.age(now))
    }

    /// The result, if it is younger than `ttl`, and the turn by which it can be removed.
    pub(super) fn get(&mut self, identity: &Identity, now: Moment, ttl: Duration) -> Option<(Aged, u64)> {
        let turn = self.next_turn;
        let entry = self.entries.get_mut(identity).filter(|entry| entry.result.age(now) < ttl)?;
        entry.turn = turn;
        let found = (entry.result.clone(), turn);
        self.took_turn(*identity);
        Some(found)
    }

    /// Keeps a result instead of the one before, unless that one is younger, and gives the spots of those that
    /// had to go for it. One that is bigger than the whole tier is not kept.
    pub(super) fn put(&mut self, identity: Identity, spot: Spot, result: Aged, now: Moment) -> Vec<Spot> {
        let mut gone = Vec::new();
        if self.age(&identity, now).is_some_and(|age| age < result.age(now)) {
            return gone;
        }
        let size = result.size();
        if size > self.max_bytes {
            self.take(&identity);
            return gone;
        }
        let entry = Entry { result, spot, turn: self.next_turn };
        self.bytes += size;
        if let Some(old) = self.entries.insert(identity, entry) {
            self.bytes -= old.result.size();
        }
        self.took_turn(identity);
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some((turn, oldest)) = self.turns.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|entry| entry.turn == turn) {
                gone.extend(self.take(&oldest));
            }
        }
        gone
    }

    /// Removes a result that has been found unusable, unless it has been used or replaced since.
    pub(super) fn remove(&mut self, identity: &Identity, turn: u64) -> bool {
        let same = self.entries.get(identity).is_some_and(|entry| entry.turn == turn);
        same && self.take(identity).is_some()
    }

    fn take(&mut self, identity: &Identity) -> Option<Spot> {
        let old = self.entries.remove(identity)?;
        self.bytes -= old.result.size();
        Some(old.spot)
    }

    fn took_turn(&mut self, identity: Identity) {
        self.turns.push_back((self.next_turn, identity));
        self.next_turn += 1;
        if self.turns.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.turns.retain(|(turn, identity)| entries.get(identity).is_some_and(|e| e.turn == *turn));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::{Identity, KeyHasher};

    const TTL: Duration = Duration::from_secs(300);
    const NOW: Moment = Moment(86_400_000_000);

    fn identity(number: u64) -> Identity {
        let mut key = KeyHasher::new("f", "");
        key.arg(&number);
        Identity::new("b", &key.finish().unwrap())
    }

    fn result(text: &str) -> Aged {
        Aged::new(Envelope::seal(text, TTL).unwrap(), Duration::ZERO, NOW)
    }

    impl Local {
        fn holds(&self, number: u64) -> bool {
            self.age(&identity(number), NOW).is_some()
        }

        fn add(&mut self, number: u64, text: &str) -> Vec<Spot> {
            self.put(identity(number), Spot(number), result(text), NOW)
        }

        fn check(&self) {
            assert!(self.entries.len() <= self.max_entries && self.bytes <= self.max_bytes);
            assert_eq!(self.bytes, self.entries.values().map(|entry| entry.result.size()).sum::<usize>());
            assert!(self.turns.len() <= 2 * self.entries.len() + 64, "{}", self.turns.len());
        }
    }

    #[test]
    fn beyond_the_entries_the_one_stored_or_used_longest_ago_goes() {
        let mut local = Local::new(3, MAX_BYTES);
        for number in 1..=3 {
            assert_eq!(local.add(number, "x"), []);
        }
        assert!(local.get(&identity(1), NOW, TTL).is_some());
        assert_eq!(local.add(4, "x"), [Spot(2)]);
        assert_eq!(local.add(3, "y"), []);
        assert_eq!(local.add(5, "x"), [Spot(1)]);
        assert!(local.holds(3) && local.holds(4) && local.holds(5));
        local.check();
    }

    #[test]
    fn beyond_the_bytes_as_many_go_as_must() {
        let size = result("x").size();
        let mut local = Local::new(MAX_ENTRIES, 3 * size);
        for number in 1..=3 {
            local.add(number, "x");
        }
        assert_eq!(local.add(4, &"x".repeat(size + 1)), [Spot(1), Spot(2)]);
        local.check();
        assert!(local.holds(3) && local.holds(4));
    }

    #[test]
    fn what_is_bigger_than_the_tier_is_not_kept_and_empties_nothing_else() {
        let mut local = Local::new(MAX_ENTRIES, 2000);
        local.add(1, "x");
        local.add(2, "old");
        assert_eq!(local.add(2, &"x".repeat(2000)), [], "it is tried again at the next interval only");
        assert!(local.holds(1));
        assert!(!local.holds(2), "an older result must not stand for the newer one");
        local.check();
    }

    #[test]
    fn using_one_entry_for_ever_takes_no_memory() {
        let mut local = Local::new(10, MAX_BYTES);
        for number in 0..10 {
            local.add(number, "x");
        }
        for _ in 0..100_000 {
            assert!(local.get(&identity(7), NOW, TTL).is_some());
        }
        local.check();
        for number in 100..110_000 {
            local.add(number, "x");
        }
        local.check();
        assert_eq!(local.entries.len(), 10);
    }

    #[test]
    fn an_older_result_does_not_replace_a_younger_one() {
        let mut local = Local::new(10, MAX_BYTES);
        local.add(1, "young");
        let old = Aged::new(Envelope::seal("old", TTL).unwrap(), Duration::from_secs(9), NOW);
        local.put(identity(1), Spot(1), old, NOW);
        let (found, _) = local.get(&identity(1), NOW, TTL).unwrap();
        assert_eq!(found.envelope.value::<String>().unwrap(), "young");
    }

    #[test]
    fn an_age_may_exceed_that_of_the_clock() {
        let week = Duration::from_secs(7 * 86_400);
        let aged = Aged::new(Envelope::seal(&1, TTL).unwrap(), week, Moment(1));
        assert_eq!(aged.age(Moment(1_000_001)), week + Duration::from_secs(1));
    }

    #[test]
    fn only_the_result_that_was_looked_at_is_removed() {
        let mut local = Local::new(10, MAX_BYTES);
        local.add(1, "bad");
        let (_, turn) = local.get(&identity(1), NOW, TTL).unwrap();
        local.add(1, "good");
        assert!(!local.remove(&identity(1), turn));
        assert!(local.holds(1));
        let (_, turn) = local.get(&identity(1), NOW, TTL).unwrap();
        assert!(local.remove(&identity(1), turn));
        assert!(!local.holds(1));
        local.check();
    }
}
