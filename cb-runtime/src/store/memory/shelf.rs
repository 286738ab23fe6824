//! Cached results, bounded in bytes. The one that expires first is evicted first.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::store::Cached;

/// The limit of all keys and values together, so that a function with ever new arguments cannot exhaust
/// memory.
const MAX_BYTES: usize = 32 * 1024 * 1024;

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Shelf {
    results: HashMap<String, (u64, Vec<u8>)>,
    /// The keys by expiry.
    ends: BTreeSet<(u64, String)>,
    bytes: usize,
}

impl Shelf {
    pub(super) fn get(&self, key: &str, now: u64) -> Option<Cached> {
        let (end, value) = self.results.get(key).filter(|(end, _)| *end > now)?;
        Some(Cached { value: value.clone(), remaining: Some(Duration::from_micros(end - now)) })
    }

    /// Stores a result, unless it alone exceeds the limit.
    pub(super) fn put(&mut self, key: String, value: Vec<u8>, now: u64, end: u64) {
        self.remove(&key);
        self.sweep(now);
        let bytes = size(&key, &value);
        if bytes > MAX_BYTES || end <= now {
            return;
        }
        while self.bytes + bytes > MAX_BYTES
            && let Some((_, first)) = self.ends.first().cloned()
        {
            self.remove(&first);
        }
        self.bytes += bytes;
        self.ends.insert((end, key.clone()));
        self.results.insert(key, (end, value));
    }

    pub(super) fn sweep(&mut self, now: u64) {
        while let Some((end, first)) = self.ends.first().cloned()
            && end <= now
        {
            self.remove(&first);
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some((end, value)) = self.results.remove(key) {
            self.bytes -= size(key, &value);
            self.ends.remove(&(end, key.to_owned()));
        }
    }
}

/// The size of an entry, including the tables' overhead.
fn size(key: &str, value: &[u8]) -> usize {
    2 * key.len() + value.len() + 128
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, Shelf};

    #[test]
    fn what_ends_first_makes_room() {
        let mut shelf = Shelf::default();
        let third = vec![7; MAX_BYTES / 3];
        shelf.put("late".into(), third.clone(), 0, 900);
        shelf.put("early".into(), third.clone(), 0, 100);
        shelf.put("new".into(), third, 0, 500);
        assert_eq!(shelf.get("early", 0), None);
        assert!(shelf.get("late", 0).is_some() && shelf.get("new", 0).is_some());
        assert!(shelf.bytes <= MAX_BYTES);
        shelf.put("giant".into(), vec![0; MAX_BYTES], 0, 900);
        assert_eq!(shelf.get("giant", 0), None);
        assert!(shelf.get("late", 0).is_some());
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let mut shelf = Shelf::default();
        shelf.put("a".into(), vec![1], 0, 10);
        shelf.put("a".into(), vec![2], 0, 20);
        assert_eq!(shelf.get("a", 19).map(|cached| cached.value), Some(vec![2]));
        assert_eq!(shelf.get("a", 20), None);
        shelf.sweep(20);
        assert_eq!((shelf.bytes, shelf.results.len(), shelf.ends.len()), (0, 0, 0));
    }
}
