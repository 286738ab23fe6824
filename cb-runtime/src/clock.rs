//! The source of time: the machine's monotonic clock, or one that a test moves.
//!
//! Nothing in this crate compares wall clocks of several machines. An instance measures spans on its own
//! monotonic clock; instants that several instances compare are the store's. Wall-clock times are for
//! display, and show for how long the machine has slept.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::sync::lock;

/// A point on a [`Clock`]: microseconds since the clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// The span since `earlier`; zero if `earlier` is not earlier.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(micros(span)))
    }
}

/// Whole microseconds; saturates after half a million years.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A time of the wall clock, from microseconds since 1970.
pub(crate) fn wall(us: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(us)).unwrap_or(UNIX_EPOCH)
}

/// Microseconds since 1970.
pub(crate) fn unix_us_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, micros)
}

fn unix_us() -> u64 {
    unix_us_of(SystemTime::now())
}

/// Units of the coarse clock (2⁻³² s) per microsecond, to a hundred-thousandth.
pub(crate) const COARSE: u64 = 4295;

/// When a manual clock begins, in µs: at times of 16 digits, as Redis has. Its scripts compare some as texts.
/// A day of them has passed: "a moment before now" must exist for a clock that has just been made.
pub(crate) const MANUAL_START: u64 = MANUAL_ZERO + 86_400_000_000;
/// Where a manual clock's coarse time is zero.
const MANUAL_ZERO: u64 = 1_000_000_000_000_000;

/// The largest error of the coarse clock.
pub(crate) const TICK: Duration = Duration::from_millis(5);

#[inline]
fn coarse_ticks() -> u64 {
    // Its plain `now` would write to a word that all threads share.
    coarsetime::Instant::now_without_cache_update().as_ticks()
}

/// The clock of a registry.
///
/// The default is the machine's monotonic clock. [`Clock::manual`] makes one for tests: it stands
/// still until the test moves it, so a `reset_timeout` of an hour takes no time to elapse.
#[derive(Clone)]
pub struct Clock {
    source: Source,
    /// The wall clock at moment zero, in microseconds since 1970. It is read once, when the clock is made,
    /// so that a moment always has the same wall-clock time.
    epoch_us: u64,
}

#[derive(Clone)]
enum Source {
    /// When it began, by the exact clock and by the coarse one.
    System(Instant, u64),
    Manual(Arc<Hands>),
}

struct Hands {
    now: AtomicU64,
    /// For how long the machine has slept, while this clock stood still.
    slept: AtomicU64,
    moved: Notify,
    /// How many hold it still.
    holders: Mutex<u32>,
    released: Condvar,
}

/// Holds a manual clock still until it is dropped.
pub(crate) struct Held(Arc<Hands>);

impl Drop for Held {
    fn drop(&mut self) {
        *lock(&self.0.holders) -= 1;
        self.0.released.notify_all();
    }
}

/// A clock is held for no longer than this, should what holds it never end.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// Moves the [`Clock`] it was made with.
#[derive(Clone)]
pub struct ManualClock(Arc<Hands>);

impl Clock {
    /// The machine's monotonic clock.
    pub fn system() -> Self {
        Clock { source: Source::System(Instant::now(), coarse_ticks()), epoch_us: unix_us() }
    }

    /// A clock that stands still until [`ManualClock::advance`] moves it.
    pub fn manual() -> (Self, ManualClock) {
        let hands = Arc::new(Hands {
            now: AtomicU64::new(MANUAL_START),
            slept: AtomicU64::new(0),
            moved: Notify::new(),
            holders: Mutex::default(),
            released: Condvar::new(),
        });
        let epoch_us = unix_us().saturating_sub(MANUAL_START);
        (Clock { source: Source::Manual(hands.clone()), epoch_us }, ManualClock(hands))
    }

    /// The wall clock at moment zero, in microseconds since 1970.
    pub(crate) fn epoch_us(&self) -> u64 {
        self.epoch_us
    }

    /// Keeps a manual clock from being moved: a request of one moment is then handled at that moment.
    pub(crate) fn hold(&self) -> Option<Held> {
        let Source::Manual(hands) = &self.source else { return None };
        *lock(&hands.holders) += 1;
        Some(Held(hands.clone()))
    }

    /// It moves only by hand, so that a span on it says nothing about the machine's threads.
    pub(crate) fn is_manual(&self) -> bool {
        matches!(self.source, Source::Manual(_))
    }

    #[inline]
    pub(crate) fn now(&self) -> Moment {
        match &self.source {
            Source::System(start, _) => Moment(micros(start.elapsed()).saturating_add(1)),
            Source::Manual(hands) => Moment(hands.now.load(Ordering::Acquire)),
        }
    }

    /// The wall clock, in microseconds since 1970. Unlike the monotonic clock, it goes on while the machine
    /// sleeps, and may be set.
    pub(crate) fn wall_us(&self) -> u64 {
        match &self.source {
            Source::System(..) => unix_us(),
            Source::Manual(hands) => self.epoch_us + self.now().0 + hands.slept.load(Ordering::Acquire),
        }
    }

    /// The time to about four milliseconds, in units of which [`COARSE`] make a microsecond. Its zero is not
    /// that of [`now`](Self::now), so only differences mean something. On Linux it costs a fifth of `now`.
    #[inline]
    pub(crate) fn coarse(&self) -> u64 {
        match &self.source {
            Source::System(..) => coarse_ticks(),
            Source::Manual(hands) => (hands.now.load(Ordering::Acquire) - MANUAL_ZERO) * COARSE,
        }
    }

    /// As [`now`](Self::now), but up to [`TICK`] off either way, for a fifth of its cost on Linux.
    #[inline]
    pub(crate) fn coarse_now(&self) -> Moment {
        self.of_coarse(self.coarse())
    }

    /// A moment that is not after now, and twice [`TICK`] before it at the most, for the cost of
    /// [`coarse_now`](Self::coarse_now).
    #[inline]
    pub(crate) fn coarse_before_now(&self) -> Moment {
        self.not_after(self.coarse())
    }

    /// A moment that is not after the one at which [`coarse`](Self::coarse) returned this, and twice [`TICK`]
    /// before it at the most.
    #[inline]
    pub(crate) fn not_after(&self, coarse: u64) -> Moment {
        let early = if self.is_manual() { 0 } else { micros(TICK) };
        Moment(self.of_coarse(coarse).0.saturating_sub(early))
    }

    /// The moment at which [`coarse`](Self::coarse) returned this, up to [`TICK`] off either way. Its three
    /// lowest bits may have been cleared.
    #[inline]
    pub(crate) fn of_coarse(&self, coarse: u64) -> Moment {
        match &self.source {
            Source::System(_, begin) => {
                let ticks = coarse.saturating_sub(*begin);
                // Ticks are 2⁻³² s: whole seconds and the rest apart, so that nothing overflows.
                Moment((ticks >> 32) * 1_000_000 + (((ticks & 0xFFFF_FFFF) * 1_000_000) >> 32))
            }
            Source::Manual(_) => Moment(MANUAL_ZERO + (coarse | 7) / COARSE),
        }
    }

    /// What [`coarse`](Self::coarse) returns before this moment has come, and not long before.
    pub(crate) fn coarse_before(&self, moment: Moment) -> u64 {
        let early = u128::from(moment.0.saturating_sub(micros(TICK)));
        let ticks = match &self.source {
            _ if moment.0 == u64::MAX => return u64::MAX,
            Source::System(_, begin) => u128::from(*begin) + (early << 32) / 1_000_000,
            Source::Manual(_) => early.saturating_sub(u128::from(MANUAL_ZERO)) * u128::from(COARSE),
        };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Returns once `until` has come. Needs a tokio runtime with a timer; cancelling loses nothing.
    pub(crate) async fn sleep_until(&self, until: Moment) {
        match &self.source {
            Source::System(start, _) => {
                let deadline = start.checked_add(Duration::from_micros(until.0));
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            }
            Source::Manual(hands) => loop {
                let moved = hands.moved.notified();
                if hands.now.load(Ordering::Acquire) >= until.0 {
                    return;
                }
                moved.await;
            },
        }
    }
}

impl ManualClock {
    /// Moves the clock on by `span`, and wakes what was waiting for that. A due probe is admitted at once.
    /// What is done in the background, such as the end of an override, has to be awaited. If a registry is
    /// just writing to its memory store, this waits until it has, a second at most.
    pub fn advance(&self, span: Duration) {
        let holders = lock(&self.0.holders);
        let still = self.0.released.wait_timeout_while(holders, LONGEST_HOLD, |holders| *holders > 0);
        self.0.now.fetch_add(micros(span), Ordering::AcqRel);
        drop(still);
        self.0.moved.notify_waiters();
    }

    /// The machine sleeps, in which this clock stands still.
    #[cfg(test)]
    pub(crate) fn sleep(&self, span: Duration) {
        self.0.slept.fetch_add(micros(span), Ordering::AcqRel);
    }

    /// Moves the clock back, as only a machine's wall clock can be moved: for a store's clock.
    #[cfg(test)]
    pub(crate) fn set_back(&self, span: Duration) {
        self.0.now.fetch_sub(micros(span), Ordering::AcqRel);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::System(..) => "Clock::system",
            Source::Manual(_) => "Clock::manual",
        })
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManualClock")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn clock_that_is_held_is_moved_afterwards() {
        let (clock, hands) = Clock::manual();
        let (begun, is_released) = (AtomicBool::new(false), AtomicBool::new(false));
        let start = clock.now();
        let held = clock.hold().expect("it is moved by hand");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begun.store(true, Ordering::Release);
                hands.advance(Duration::from_secs(5));
                assert!(is_released.load(Ordering::Acquire), "it is moved while it is held");
            });
            while !begun.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(clock.now(), start);
            is_released.store(true, Ordering::Release);
            drop(held);
        });
        assert_eq!(clock.now().since(start), Duration::from_secs(5));
    }
}
