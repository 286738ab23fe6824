//! The keyed breakers that a thread has called: its own table, so that a call finds its breaker without a
//! lock, without a memory line that other threads write to, and without an allocation.
//!
//! A slot only says where a breaker may be found: the name is compared each time, and a breaker that has been
//! evicted is not found.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr;
use std::sync::{Arc, Weak};

use super::pattern_site::KeyedSettings;
use crate::breakers::SiteBreaker;
use crate::registry::Registry;

/// A thread that calls more breakers than that forgets them all, and looks them up again in the registry.
const MOST: usize = 4096;

thread_local!(static TABLE: RefCell<Table> = RefCell::default());

type Table = HashMap<u64, Slot, BuildHasherDefault<Hashed>>;

struct Slot {
    /// The function and its settings.
    settings: &'static KeyedSettings,
    registry: u64,
    breaker: Weak<SiteBreaker>,
}

/// The breaker of that name for a call of this function, if this thread has called it before.
#[inline]
pub(super) fn find(
    registry: &Registry,
    settings: &'static KeyedSettings,
    name: &[u8],
) -> Option<Arc<SiteBreaker>> {
    let found = {
        // There is no table any more if a thread that ends makes calls in its destructors.
        let find = |table: &RefCell<Table>| {
            let table = table.borrow();
            let slot = table.get(&hash(settings, name))?;
            let is_same = ptr::eq(slot.settings, settings) && slot.registry == registry.id();
            if is_same { slot.breaker.upgrade() } else { None }
        };
        TABLE.try_with(find).ok()??
    };
    if found.core().name().as_bytes() != name {
        return None;
    }
    registry.used(&found);
    Some(found)
}

/// Lets this thread's later calls find the breaker.
pub(super) fn keep(
    registry: &Registry,
    settings: &'static KeyedSettings,
    name: &[u8],
    breaker: &Arc<SiteBreaker>,
) {
    let slot = Slot { settings, registry: registry.id(), breaker: Arc::downgrade(breaker) };
    put(hash(settings, name), slot);
}

fn put(hash: u64, slot: Slot) {
    let _ = TABLE.try_with(|table| {
        let mut table = table.borrow_mut();
        if table.len() >= MOST {
            table.clear();
        }
        table.insert(hash, slot);
    });
}

/// A fast hash without a secret: names that are chosen to have one hash make their calls look the breakers up
/// in the registry, and do nothing else.
#[inline]
fn hash(settings: &'static KeyedSettings, name: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let fold = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(FACTOR);
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        let folded = product as u64 ^ (product >> 64) as u64;
        folded
    };
    // Bit by bit, because a copy of unknown length is a function call.
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let begin = fold(ptr::from_ref(settings).addr() as u64, name.len() as u64);
    let (words, rest) = name.as_chunks::<8>();
    let hash = words.iter().fold(begin, |hash, bytes| fold(hash, u64::from_le_bytes(*bytes)));
    fold(hash, word(rest))
}

/// What is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the table's keys are numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;

    #[test]
    fn names_spread_over_the_table() {
        let names = (0..10_000).map(|number| format!("tenant-{number}"));
        let settings = KeyedSettings::of_test();
        let mut hashes: Vec<_> = names.map(|name| hash(settings, name.as_bytes())).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 10_000);
    }

    #[test]
    fn a_table_is_bounded() {
        let settings = KeyedSettings::of_test();
        for hash in 0..3 * MOST as u64 {
            put(hash, Slot { settings, registry: 1, breaker: Weak::new() });
        }
        assert!(TABLE.with(|table| table.borrow().len()) <= MOST);
    }
}
