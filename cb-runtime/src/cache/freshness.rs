//! The time at which each result was last cached: a lock-free table that is read by one load, and that may
//! lose entries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::FRESH;
use crate::clock::{COARSE, Clock};

/// The time of each slot's last stamp. Two slots with one place overwrite each other's stamps.
///
/// A lost stamp sends its caller down the slower path. A stamp can also appear that was never made: if two
/// slots agree in 32 random bits and their place, or after exactly 24 days without a stamp. It delays a
/// write by one interval. Correctness must never depend on a stamp.
pub(super) struct FreshnessTable(Box<[AtomicU64]>);

/// The place of a result's stamp, and the random bits that distinguish it from others of that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FreshnessSlot(pub(super) u64);

/// The time on the coarse clock, in 1024ths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks(u64);

/// The interval for which a stamp is fresh, in 1024ths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval(u64);

impl Ticks {
    #[inline]
    pub(super) fn now(clock: &Clock) -> Self {
        const PER_TICK: u32 = 22;
        const { assert!((COARSE * 1_000_000) >> PER_TICK == 1024) };
        Ticks(clock.coarse() >> PER_TICK)
    }

    pub(super) fn before(self, span: Duration) -> Self {
        Ticks(self.0.wrapping_sub(Interval::of(span).0))
    }
}

impl Interval {
    /// Rounded down, so that an age below the interval is below the span.
    #[inline]
    pub(super) const fn of(span: Duration) -> Self {
        Interval(
            span.as_secs()
                .saturating_mul(1024)
                .saturating_add(span.subsec_nanos() as u64 * 1024 / 1_000_000_000),
        )
    }

    /// A tenth of a TTL, at most [`FRESH`].
    #[inline]
    pub(super) fn of_ttl(ttl: Duration) -> Self {
        const LONGEST: Interval = Interval::of(FRESH);
        if ttl.as_secs() >= 10 * FRESH.as_secs() { LONGEST } else { Interval::tenth_of(ttl) }
    }

    #[inline(never)]
    fn tenth_of(ttl: Duration) -> Self {
        Interval(Interval::of(ttl).0 / 10)
    }

    /// The coarse clock is some milliseconds behind, so a shorter interval is measured exactly instead.
    #[inline]
    fn is_measurable(self) -> bool {
        const SHORTEST: u64 = 64;
        self.0 >= SHORTEST
    }
}

/// Bits 0–30 the time, bit 31 whether this process holds the result, bits 32–63 the slot. 0 = no stamp.
#[derive(Clone, Copy)]
struct Stamp(u64);

const TIME: u64 = (1 << 31) - 1;
const HELD: u64 = 1 << 31;
const SLOT: u64 = !(TIME | HELD);

impl Stamp {
    fn new(slot: FreshnessSlot, at: Ticks, held: bool) -> Self {
        Stamp(slot.0 & SLOT | at.0 & TIME | if held { HELD } else { 0 })
    }

    #[inline]
    fn is_of(self, slot: FreshnessSlot) -> bool {
        self.0 != 0 && (self.0 ^ slot.0) & SLOT == 0
    }

    #[inline]
    fn is_younger(self, slot: FreshnessSlot, now: Ticks, interval: Interval) -> bool {
        self.is_of(slot) && (now.0.wrapping_sub(self.0) & TIME) < interval.0 && interval.is_measurable()
    }
}

impl FreshnessTable {
    /// `places`: a power of two.
    pub(super) fn new(places: usize) -> Self {
        debug_assert!(places.is_power_of_two());
        FreshnessTable((0..places).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits choose the place")]
    fn place(&self, slot: FreshnessSlot) -> &AtomicU64 {
        &self.0[slot.0 as usize & (self.0.len() - 1)]
    }

    #[inline]
    pub(super) fn is_younger(&self, slot: FreshnessSlot, now: Ticks, interval: Interval) -> bool {
        Stamp(self.place(slot).load(Ordering::Relaxed)).is_younger(slot, now, interval)
    }

    /// Whether this process holds the result, at any age.
    #[inline]
    pub(super) fn is_held(&self, slot: FreshnessSlot) -> bool {
        let stamp = Stamp(self.place(slot).load(Ordering::Relaxed));
        stamp.is_of(slot) && stamp.0 & HELD != 0
    }

    pub(super) fn set(&self, slot: FreshnessSlot, at: Ticks, held: bool) {
        self.place(slot).store(Stamp::new(slot, at, held).0, Ordering::Relaxed);
    }

    /// Stamps the slot unless it has a stamp younger than the interval. Of several concurrent callers, one
    /// gets `true`.
    pub(super) fn claim(&self, slot: FreshnessSlot, now: Ticks, interval: Interval) -> bool {
        let claim = |old| {
            let stamp = Stamp(old);
            let held = stamp.is_of(slot) && old & HELD != 0;
            (!stamp.is_younger(slot, now, interval)).then(|| Stamp::new(slot, now, held).0)
        };
        self.place(slot).fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).is_ok()
    }

    /// Removes the stamp, if it still has its place.
    pub(super) fn clear(&self, slot: FreshnessSlot) {
        let place = self.place(slot);
        let old = place.load(Ordering::Relaxed);
        if Stamp(old).is_of(slot) {
            // A stamp that has changed meanwhile is younger or of another slot.
            let _ = place.compare_exchange(old, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: FreshnessSlot = FreshnessSlot(0x1234_5678_0000_0005);
    const SECOND: Interval = Interval::of(Duration::from_secs(1));
    const NOW: Ticks = Ticks(86_400 * 1024);

    fn after(millis: u64) -> Ticks {
        Ticks(NOW.0 + Interval::of(Duration::from_millis(millis)).0)
    }

    #[test]
    fn stamp_is_fresh_for_its_interval() {
        let table = FreshnessTable::new(8);
        assert!(!table.is_younger(SLOT, NOW, SECOND));
        table.set(SLOT, NOW, false);
        assert!(table.is_younger(SLOT, after(999), SECOND));
        assert!(!table.is_younger(SLOT, after(1000), SECOND));
        let short = Interval::of(Duration::from_millis(60));
        assert!(!table.is_younger(SLOT, NOW, short), "the coarse clock cannot tell");
    }

    #[test]
    fn slots_of_one_place_are_distinguished() {
        let table = FreshnessTable::new(8);
        let other = FreshnessSlot(0x1234_5679_0000_0005);
        table.set(SLOT, NOW, true);
        assert!(!table.is_younger(other, NOW, SECOND) && !table.is_held(other));
        table.clear(other);
        assert!(table.is_younger(SLOT, NOW, SECOND) && table.is_held(SLOT));
        table.set(other, NOW, false);
        assert!(!table.is_younger(SLOT, NOW, SECOND), "one place, one stamp");
        table.clear(other);
        assert!(!table.is_younger(other, NOW, SECOND));
    }

    #[test]
    fn one_of_many_claims_is_granted_and_the_held_flag_stays() {
        let table = FreshnessTable::new(8);
        table.set(SLOT, Ticks(0), true);
        let won = std::thread::scope(|scope| {
            let claim = || usize::from(table.claim(SLOT, NOW, SECOND));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(won, 1);
        assert!(table.is_held(SLOT));
        assert!(table.claim(SLOT, after(1000), SECOND));
    }

    #[test]
    fn time_wraps_after_24_days() {
        let table = FreshnessTable::new(8);
        let late = Ticks(TIME);
        table.set(SLOT, late, false);
        assert!(table.is_younger(SLOT, Ticks(late.0 + 512), SECOND));
        assert!(!table.is_younger(SLOT, Ticks(late.0 + 1536), SECOND));
    }
}
