//! What a circuit that has just recovered admits: a growing share of the calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::machine::policy;
use crate::clock::{Moment, micros};

/// Read by every call of that time, and so without a lock.
#[derive(Default)]
pub(crate) struct Ramp {
    since: AtomicU64,
    /// In µs; 0 = there is none.
    length: AtomicU64,
    /// Shares of the calls so far, summed up, in units of 2⁻³²: whenever that passes a whole number, a call is admitted.
    sum: AtomicU64,
}

const ONE: f64 = 4_294_967_296.0;

/// What the ramp says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ramped {
    /// It is over: all are admitted from now on.
    Over,
    Admitted,
    Rejected,
}

impl Ramp {
    /// Under the lock of the breaker; calls meet it after the gate has been set.
    pub(crate) fn set(&self, ramp: Option<(Moment, Duration)>) {
        let (since, length) = ramp.map_or((0, 0), |(since, length)| (since.0, micros(length)));
        self.since.store(since, Ordering::Relaxed);
        self.length.store(length, Ordering::Relaxed);
        // The first call is admitted, whatever its share: a breaker with few calls must not wait for the tenth.
        self.sum.store(u64::from(u32::MAX), Ordering::Relaxed);
    }

    pub(crate) fn ask(&self, now: Moment) -> Ramped {
        let length = Duration::from_micros(self.length.load(Ordering::Relaxed));
        let recovered_for = now.since(Moment(self.since.load(Ordering::Relaxed)));
        let Some(share) = Some(length)
            .filter(|length| !length.is_zero())
            .and_then(|length| policy::admitted_share(length, recovered_for))
        else {
            return Ramped::Over;
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.1 to 1")]
        let share = (share * ONE) as u64;
        let before = self.sum.fetch_add(share, Ordering::Relaxed);
        if before >> 32 == before.wrapping_add(share) >> 32 { Ramped::Rejected } else { Ramped::Admitted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_share_is_admitted_and_the_first_call_is() {
        let ramp = Ramp::default();
        let begin = Moment(1_000_000);
        ramp.set(Some((begin, Duration::from_secs(10))));
        let admitted = |now: Moment| (0..100).filter(|_| ramp.ask(now) == Ramped::Admitted).count();
        assert_eq!(ramp.ask(begin), Ramped::Admitted);
        assert!((9..=11).contains(&admitted(begin)));
        let half = begin.after(Duration::from_secs(5));
        assert!((54..=56).contains(&admitted(half)));
        assert_eq!(ramp.ask(begin.after(Duration::from_secs(10))), Ramped::Over);
        ramp.set(None);
        assert_eq!(ramp.ask(begin), Ramped::Over);
    }
}
