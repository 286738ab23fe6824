//! Until when each cached result is fresh: a lock-free table that is read by one load, and that may lose
//! entries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::FRESH;
use crate::clock::{COARSE, Clock};

/// A stamp per slot, with the time until which the slot's result is fresh. Two slots with one place overwrite
/// each other's stamps.
///
/// A stamp has the end of its interval rather than the beginning, so that a call needs only the clock to
/// judge it. A lost stamp sends its caller down the slower path. A stamp can also appear that was never made:
/// if two slots agree in 32 random bits and their place, or after exactly twelve days without a stamp. It
/// delays a write by one interval. Correctness must never depend on a stamp.
pub(super) struct FreshnessTable<const PLACES: usize>(Box<[AtomicU64; PLACES]>);

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
        Ticks::of(clock.coarse())
    }

    /// `coarse`: a time on the coarse clock.
    #[inline]
    pub(super) fn of(coarse: u64) -> Self {
        const PER_TICK: u32 = 22;
        const { assert!((COARSE * 1_000_000) >> PER_TICK == 1024) };
        Ticks(coarse >> PER_TICK)
    }

    /// The end of an interval of which `elapsed` has elapsed. The coarse clock is some milliseconds behind,
    /// so a short interval ends at once, and is measured exactly instead.
    pub(super) fn end_of(self, interval: Interval, elapsed: Duration) -> Self {
        const SHORTEST: u64 = 64;
        if interval.0 < SHORTEST {
            return self;
        }
        // Nothing is fresh for longer than the longest interval, whatever a caller asks for.
        Ticks(self.0.wrapping_add(interval.0.min(LONGEST.0)).wrapping_sub(Interval::of(elapsed).0))
    }
}

/// The longest interval.
const LONGEST: Interval = Interval::of(FRESH);

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
}

/// Bits 0–29 the end, bit 30 whether the stamp has been cleared, bit 31 whether this process holds the
/// result, bits 32–63 the slot.
#[derive(Clone, Copy)]
struct Stamp(u64);

const TIME: u64 = (1 << 30) - 1;
const CLEARED: u64 = 1 << 30;
const HELD: u64 = 1 << 31;
const SLOT: u64 = !(TIME | CLEARED | HELD);

impl Stamp {
    fn new(slot: FreshnessSlot, end: Ticks, held: bool) -> Self {
        Stamp(slot.0 & SLOT | end.0 & TIME | if held { HELD } else { 0 })
    }

    #[inline]
    fn is_of(self, slot: FreshnessSlot) -> bool {
        (self.0 ^ slot.0) & SLOT == 0
    }

    #[inline]
    fn is_fresh(self, slot: FreshnessSlot, now: Ticks) -> bool {
        // The remaining time is between 1 and the longest interval.
        let remaining = self.0.wrapping_sub(now.0) & TIME;
        let is_valid = (self.0 ^ slot.0 & SLOT) & (SLOT | CLEARED) == 0;
        is_valid && remaining.wrapping_sub(1) < LONGEST.0
    }
}

impl<const PLACES: usize> FreshnessTable<PLACES> {
    pub(super) fn new() -> Self {
        const { assert!(PLACES.is_power_of_two()) };
        let places: Box<[_]> = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        FreshnessTable(places.try_into().expect("there are as many places"))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits choose the place")]
    fn place(&self, slot: FreshnessSlot) -> &AtomicU64 {
        &self.0[slot.0 as usize & (PLACES - 1)]
    }

    #[inline]
    pub(super) fn is_fresh(&self, slot: FreshnessSlot, now: Ticks) -> bool {
        Stamp(self.place(slot).load(Ordering::Relaxed)).is_fresh(slot, now)
    }

    /// Whether this process holds the result, at any age.
    #[inline]
    pub(super) fn is_held(&self, slot: FreshnessSlot) -> bool {
        let stamp = Stamp(self.place(slot).load(Ordering::Relaxed));
        stamp.is_of(slot) && stamp.0 & HELD != 0
    }

    pub(super) fn set(&self, slot: FreshnessSlot, end: Ticks, held: bool) {
        self.place(slot).store(Stamp::new(slot, end, held).0, Ordering::Relaxed);
    }

    /// Stamps the slot unless it has a stamp that is fresh now. Of several concurrent callers, one gets
    /// `Some`: whether the slot had a stamp before.
    pub(super) fn claim(&self, slot: FreshnessSlot, now: Ticks, end: Ticks) -> Option<bool> {
        let claim = |old| {
            let stamp = Stamp(old);
            let held = stamp.is_of(slot) && old & HELD != 0;
            (!stamp.is_fresh(slot, now)).then(|| Stamp::new(slot, end, held).0)
        };
        let claimed = self.place(slot).fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim);
        claimed.ok().map(|old| Stamp(old).is_of(slot))
    }

    /// Invalidates the stamp, if it still has its place. It shows the next claim that the slot is not new.
    pub(super) fn clear(&self, slot: FreshnessSlot) {
        let place = self.place(slot);
        let old = place.load(Ordering::Relaxed);
        if Stamp(old).is_of(slot) {
            // A stamp that has changed meanwhile is younger or of another slot.
            let cleared = (old | CLEARED) & !HELD;
            let _ = place.compare_exchange(old, cleared, Ordering::Relaxed, Ordering::Relaxed);
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

    fn end() -> Ticks {
        NOW.end_of(SECOND, Duration::ZERO)
    }

    fn table() -> FreshnessTable<8> {
        FreshnessTable::new()
    }

    #[test]
    fn stamp_is_fresh_for_its_interval() {
        let table = table();
        assert!(!table.is_fresh(SLOT, NOW));
        table.set(SLOT, end(), false);
        assert!(table.is_fresh(SLOT, NOW) && table.is_fresh(SLOT, after(999)));
        assert!(!table.is_fresh(SLOT, after(1000)) && !table.is_fresh(SLOT, after(60_000)));
        table.set(SLOT, NOW.end_of(SECOND, Duration::from_millis(250)), false);
        assert!(table.is_fresh(SLOT, after(749)) && !table.is_fresh(SLOT, after(751)));
        let short = Interval::of(Duration::from_millis(60));
        table.set(SLOT, NOW.end_of(short, Duration::ZERO), false);
        assert!(!table.is_fresh(SLOT, NOW), "the coarse clock cannot tell");
    }

    #[test]
    fn slots_of_one_place_are_distinguished() {
        let table = table();
        let other = FreshnessSlot(0x1234_5679_0000_0005);
        table.set(SLOT, end(), true);
        assert!(!table.is_fresh(other, NOW) && !table.is_held(other));
        table.clear(other);
        assert!(table.is_fresh(SLOT, NOW) && table.is_held(SLOT));
        table.set(other, end(), false);
        assert!(!table.is_fresh(SLOT, NOW), "one place, one stamp");
        table.clear(other);
        assert!(!table.is_fresh(other, NOW));
        assert_eq!(table.claim(SLOT, NOW, end()), Some(false), "another slot has had the place");
        for _ in 0..2 {
            table.clear(SLOT);
            assert!(!table.is_fresh(SLOT, NOW) && !table.is_held(SLOT));
        }
        assert_eq!(table.claim(SLOT, NOW, end()), Some(true), "the slot has had a stamp");
    }

    #[test]
    fn one_of_many_claims_is_granted_and_the_held_flag_stays() {
        let table = table();
        table.set(SLOT, NOW, true);
        let won = std::thread::scope(|scope| {
            let claim = || usize::from(table.claim(SLOT, NOW, end()).is_some());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(won, 1);
        assert!(table.is_held(SLOT));
        assert_eq!(table.claim(SLOT, after(1000), after(2000)), Some(true));
    }

    #[test]
    fn time_wraps_after_twelve_days() {
        let table = table();
        let late = Ticks(TIME);
        table.set(SLOT, late.end_of(SECOND, Duration::ZERO), false);
        assert!(table.is_fresh(SLOT, late) && table.is_fresh(SLOT, Ticks(late.0 + 512)));
        assert!(!table.is_fresh(SLOT, Ticks(late.0 + 1536)));
    }
}
