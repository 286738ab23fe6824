//! A thread's own table of the keyed breakers that it has called. With it, a call finds its breaker without a
//! lock, without a cache line that other threads write to, without an allocation, and without writing the
//! name.
//!
//! A slot has a weak reference: an evicted breaker is not found.

use std::cell::RefCell;
use std::ptr;
use std::sync::{Arc, Weak};

use super::keyed_settings::KeyedSettings;
use super::name_part::{KeptPart, NamePart};
use crate::breakers::SiteBreaker;

/// A slot is among this many after the place of its hash. If all of them are taken, the table grows.
const WINDOW: usize = 8;
/// The maximum number of slots, 512 KB. In a thread that calls more breakers, they replace each other.
const MOST: usize = 8192;

thread_local!(static TABLE: RefCell<Table> = const { RefCell::new(Table { slots: Vec::new() }) });

struct Table {
    /// A power of two, or none.
    slots: Vec<Option<Slot>>,
}

/// One cache line.
#[repr(align(64))]
struct Slot {
    /// The function and its settings.
    settings: &'static KeyedSettings,
    registry: u64,
    breaker: Weak<SiteBreaker>,
    first: KeptPart,
    others: Box<[KeptPart]>,
}

const _: () = assert!(size_of::<Option<Slot>>() == 64);

/// The breaker of that name for a call of this function, if this thread has called it before.
#[inline]
pub(super) fn find(
    registry: u64,
    settings: &'static KeyedSettings,
    parts: &[NamePart<'_>],
) -> Option<Arc<SiteBreaker>> {
    let hash = hash(settings, parts)?;
    // A thread that is ending and makes calls in destructors has no table any more.
    TABLE.try_with(|table| table.borrow().find(hash, registry, settings, parts)).ok()?
}

/// Lets this thread's later calls find the breaker.
pub(super) fn keep(
    registry: u64,
    settings: &'static KeyedSettings,
    parts: &[NamePart<'_>],
    breaker: &Arc<SiteBreaker>,
) {
    let (Some(hash), Some((first, others))) = (hash(settings, parts), parts.split_first()) else { return };
    let others = others.iter().copied().map(KeptPart::of).collect::<Option<_>>();
    let (Some(first), Some(others)) = (KeptPart::of(*first), others) else { return };
    let slot = Slot { settings, registry, breaker: Arc::downgrade(breaker), first, others };
    let _ = TABLE.try_with(|table| table.borrow_mut().put(hash, slot));
}

impl Slot {
    #[inline]
    fn is_of(&self, registry: u64, settings: &'static KeyedSettings, parts: &[NamePart<'_>]) -> bool {
        let [first, others @ ..] = parts else { return false };
        ptr::eq(self.settings, settings)
            && self.registry == registry
            && self.first.is(*first)
            && self.others.len() == others.len()
            && self.others.iter().zip(others).all(|(kept, part)| kept.is(*part))
    }

    fn hash(&self) -> u64 {
        let parts = self.others.iter().map(KeptPart::as_part);
        let parts: Vec<_> = [self.first.as_part()].into_iter().chain(parts).collect();
        hash(self.settings, &parts).unwrap_or_default()
    }
}

impl Table {
    /// The slots in which a breaker of this hash may be.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits choose the slot")]
    fn window(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len().wrapping_sub(1);
        (0..WINDOW).map(move |step| (hash as usize).wrapping_add(step) & mask)
    }

    #[inline]
    fn find(
        &self,
        hash: u64,
        registry: u64,
        settings: &'static KeyedSettings,
        parts: &[NamePart<'_>],
    ) -> Option<Arc<SiteBreaker>> {
        for at in self.window(hash) {
            let slot = self.slots.get(at)?.as_ref()?;
            if slot.is_of(registry, settings, parts) {
                return slot.breaker.upgrade();
            }
        }
        None
    }

    fn put(&mut self, hash: u64, slot: Slot) {
        let parts: Vec<_> = [&slot.first].into_iter().chain(&slot.others).map(KeptPart::as_part).collect();
        let is_place = |kept: &Option<Slot>| {
            kept.as_ref().is_none_or(|kept| kept.is_of(slot.registry, slot.settings, &parts))
        };
        let place = loop {
            let mut window = self.window(hash);
            if let Some(at) = window.find(|at| self.slots.get(*at).is_some_and(is_place)) {
                break Some(at);
            }
            if self.slots.len() == MOST {
                break self.window(hash).next();
            }
            self.grow();
        };
        if let Some(at) = place {
            self.slots[at] = Some(slot);
        }
    }

    /// Slots that find no place in the larger table are forgotten.
    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(2 * WINDOW);
        let before = std::mem::take(&mut self.slots);
        self.slots.resize_with(size, || None);
        for slot in before.into_iter().flatten() {
            if let Some(at) = self.window(slot.hash()).find(|at| self.slots[*at].is_none()) {
                self.slots[at] = Some(slot);
            }
        }
    }
}

/// A fast hash without a secret. If an attacker chooses names with equal hashes, their calls look the
/// breakers up in the registry, and nothing else is affected. `None`: a part can be compared only as text.
#[inline]
fn hash(settings: &'static KeyedSettings, parts: &[NamePart<'_>]) -> Option<u64> {
    let mut hash = settings.number();
    for part in parts {
        hash = match part {
            NamePart::Number(number) => fold(hash, *number),
            NamePart::Text(text) => fold_text(hash, text.as_bytes()),
            NamePart::Other => return None,
        };
    }
    Some(hash)
}

#[inline]
fn fold(hash: u64, word: u64) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let product = u128::from(hash ^ word) * u128::from(FACTOR);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

#[inline]
fn fold_text(hash: u64, text: &[u8]) -> u64 {
    // Bit by bit, because a copy of unknown length is a function call.
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let (words, rest) = text.as_chunks::<8>();
    let hash = words
        .iter()
        .fold(fold(hash, text.len() as u64), |hash, bytes| fold(hash, u64::from_le_bytes(*bytes)));
    fold(hash, word(rest))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::BreakerConfig;
    use crate::registry::Registry;

    fn breaker(registry: &Registry, name: &str) -> Arc<SiteBreaker> {
        let settings = KeyedSettings::of_test();
        registry.keyed(name, &BreakerConfig::default(), settings.site).unwrap_or_else(|breaker| breaker)
    }

    #[test]
    fn names_spread_over_the_table() {
        let settings = KeyedSettings::of_test();
        let texts: Vec<_> = (0..10_000).map(|number| format!("tenant-{number}")).collect();
        let of = |part| hash(settings, &[part]).unwrap();
        for mut hashes in [
            texts.iter().map(|text| of(NamePart::Text(text))).collect::<Vec<_>>(),
            (0..10_000).map(|number| of(NamePart::Number(number))).collect(),
            (0..10_000).map(|number| of(NamePart::Number(number << 40))).collect(),
        ] {
            for hash in &mut hashes {
                *hash &= 0xFFFF_FFFF;
            }
            hashes.sort_unstable();
            hashes.dedup();
            assert!(hashes.len() > 9_990, "{}", hashes.len());
        }
    }

    #[test]
    fn breakers_are_found_by_all_parts_of_their_names() {
        let registry = Registry::builder().build().unwrap();
        let settings = KeyedSettings::of_test();
        let lists: [&[NamePart<'_>]; 5] = [
            &[NamePart::Number(1)],
            &[NamePart::Text("1")],
            &[NamePart::Number(1), NamePart::Text("eu")],
            &[NamePart::Number(1), NamePart::Text("us")],
            &[NamePart::Text(""), NamePart::Text("1eu")],
        ];
        let breakers: Vec<_> =
            (0..lists.len()).map(|n| breaker(&registry, &format!("by-parts-{n}"))).collect();
        for (parts, breaker) in lists.into_iter().zip(&breakers) {
            assert!(find(7, settings, parts).is_none());
            keep(7, settings, parts, breaker);
        }
        for (parts, breaker) in lists.into_iter().zip(&breakers) {
            assert!(Arc::ptr_eq(&find(7, settings, parts).unwrap(), breaker));
            assert!(find(8, settings, parts).is_none(), "another registry's");
            assert!(find(7, KeyedSettings::of_test(), parts).is_none(), "another function's");
        }
        let unknown = [NamePart::Number(1), NamePart::Other];
        keep(7, settings, &unknown, &breakers[0]);
        assert!(find(7, settings, &unknown).is_none());
    }

    #[test]
    fn table_is_bounded_and_forgets_evicted_breakers() {
        let registry = Registry::builder().build().unwrap();
        let settings = KeyedSettings::of_test();
        let kept = breaker(&registry, "kept");
        for number in 0..3 * MOST as u64 {
            keep(1, settings, &[NamePart::Number(number)], &kept);
        }
        assert_eq!(TABLE.with(|table| table.borrow().slots.len()), MOST);
        let last = [NamePart::Number(3 * MOST as u64 - 1)];
        assert!(find(1, settings, &last).is_some());
        keep(1, settings, &last, &Arc::new(SiteBreaker::of(registry_core(&registry), &timeouts())));
        assert!(find(1, settings, &last).is_none(), "nothing but the table refers to it");
    }

    fn timeouts() -> BreakerConfig {
        BreakerConfig::default().call_timeout(Duration::from_secs(1))
    }

    fn registry_core(registry: &Registry) -> Arc<crate::breaker::Core> {
        registry.core("core", &BreakerConfig::default(), std::panic::Location::caller())
    }
}
