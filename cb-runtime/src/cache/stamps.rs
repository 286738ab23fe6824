//! "When was that last done?", answered by one load: a table without locks that may forget.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

/// For each spot the moment of its last stamp, to the millisecond; a spot that falls on another's place takes it.
///
/// Forgetting costs the caller a longer way. Seeing a stamp that was never made takes two spots that agree
/// in 32 random bits and in their place, or 49 days of silence to the millisecond, and costs one
/// interval; so nothing that must be right may depend on it.
pub(super) struct Stamps(Box<[AtomicU64]>);

/// Where something's stamp is: random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot(pub(super) u64);

/// A stamp: bits 0–31 the milliseconds, bits 32–63 whose it is. 0 = none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64);

#[expect(clippy::cast_possible_truncation, reason = "the clock's milliseconds are meant to wrap")]
fn millis(now: Moment) -> u32 {
    (now.0 / 1000) as u32
}

impl Stamp {
    fn new(spot: Spot, now: Moment) -> Self {
        Stamp(spot.0 & 0xffff_ffff_0000_0000 | u64::from(millis(now)))
    }

    /// Whether it is `spot`'s, and certainly younger than `interval`.
    fn is_younger(self, spot: Spot, now: Moment, interval: Duration) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "takes the lower half")]
        let age = millis(now).wrapping_sub(self.0 as u32);
        // Both moments lost what they had beyond whole milliseconds.
        self.0 != 0 && self.0 >> 32 == spot.0 >> 32 && u128::from(age) < interval.as_millis()
    }
}

impl Stamps {
    /// `places`: a power of two.
    pub(super) fn new(places: usize) -> Self {
        debug_assert!(places.is_power_of_two());
        Stamps((0..places).map(|_| AtomicU64::new(0)).collect())
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits choose the place")]
    fn place(&self, spot: Spot) -> &AtomicU64 {
        &self.0[spot.0 as usize & (self.0.len() - 1)]
    }

    #[inline]
    pub(super) fn is_younger(&self, spot: Spot, now: Moment, interval: Duration) -> bool {
        Stamp(self.place(spot).load(Ordering::Relaxed)).is_younger(spot, now, interval)
    }

    pub(super) fn set(&self, spot: Spot, at: Moment) {
        self.place(spot).store(Stamp::new(spot, at).0, Ordering::Relaxed);
    }

    /// Stamps it, unless it has a stamp younger than `interval`: of many who ask at once, one is told
    /// `true`.
    pub(super) fn claim(&self, spot: Spot, now: Moment, interval: Duration) -> bool {
        let place = self.place(spot);
        place
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                (!Stamp(old).is_younger(spot, now, interval)).then(|| Stamp::new(spot, now).0)
            })
            .is_ok()
    }

    /// Takes the stamp away, if it still has its place.
    pub(super) fn clear(&self, spot: Spot) {
        let place = self.place(spot);
        let old = place.load(Ordering::Relaxed);
        if old >> 32 == spot.0 >> 32 {
            // If it has changed meanwhile, it is a younger stamp or another's.
            let _ = place.compare_exchange(old, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOT: Spot = Spot(0x1234_5678_0000_0005);
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Moment = Moment(86_400_000_000);

    #[test]
    fn a_stamp_is_young_for_its_interval_and_no_longer() {
        let stamps = Stamps::new(8);
        assert!(!stamps.is_younger(SPOT, DAY, SECOND));
        stamps.set(SPOT, DAY);
        assert!(stamps.is_younger(SPOT, DAY.after(Duration::from_millis(999)), SECOND));
        assert!(!stamps.is_younger(SPOT, DAY.after(SECOND), SECOND));
        assert!(!stamps.is_younger(SPOT, DAY, Duration::from_micros(999)), "too short to be certain");
    }

    #[test]
    fn anothers_stamp_is_not_taken_for_ones_own() {
        let stamps = Stamps::new(8);
        let other = Spot(0x1234_5679_0000_0005);
        stamps.set(SPOT, DAY);
        assert!(!stamps.is_younger(other, DAY, SECOND));
        stamps.clear(other);
        assert!(stamps.is_younger(SPOT, DAY, SECOND));
        stamps.set(other, DAY);
        assert!(!stamps.is_younger(SPOT, DAY, SECOND), "one place, one stamp");
        stamps.clear(other);
        assert!(!stamps.is_younger(other, DAY, SECOND));
    }

    #[test]
    fn of_many_that_claim_one_gets_it() {
        let stamps = Stamps::new(8);
        let won = std::thread::scope(|scope| {
            let claim = || usize::from(stamps.claim(SPOT, DAY, SECOND));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(won, 1);
        assert!(stamps.claim(SPOT, DAY.after(SECOND), SECOND));
    }

    #[test]
    fn time_may_wrap() {
        let stamps = Stamps::new(8);
        let late = Moment(u64::from(u32::MAX) * 1000);
        stamps.set(SPOT, late);
        assert!(stamps.is_younger(SPOT, late.after(Duration::from_millis(500)), SECOND));
        assert!(!stamps.is_younger(SPOT, late.after(Duration::from_millis(1500)), SECOND));
    }
}
