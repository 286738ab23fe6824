//! An estimate of the store's clock.

use crate::clock::Moment;

/// Bounds of the store's clock minus this instance's, in µs, from the times of requests and answers.
///
/// The estimate is the lower bound. A reported time must not lie in the store's future, and an estimate that
/// never moves back keeps the order of one instance's reports.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    bounds: Option<(i128, i128)>,
}

impl Skew {
    /// Takes a measurement: the store's clock showed `store_now` between `sent` and `received`.
    pub(crate) fn measure(&mut self, store_now: u64, sent: Moment, received: Moment) -> u64 {
        let new =
            (i128::from(store_now) - i128::from(received.0), i128::from(store_now) - i128::from(sent.0));
        let bounds = match self.bounds {
            // Two measurements of one clock overlap. If they do not, the store's clock was set, or the store
            // is another.
            Some((low, high)) if low.max(new.0) <= high.min(new.1) => (low.max(new.0), high.min(new.1)),
            _ => new,
        };
        self.bounds = Some(bounds);
        wrap(bounds.0)
    }

    /// The lower bound of the store's clock at `now`.
    pub(crate) fn estimate(&self, now: Moment) -> Option<u64> {
        self.bounds.map(|(low, _)| now.0.wrapping_add(wrap(low)))
    }
}

/// The skew as a number for a wrapping addition.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "two's complement is what is meant"
)]
fn wrap(skew: i128) -> u64 {
    skew as i64 as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimate_tightens_and_stays_behind_the_store() {
        let mut skew = Skew::default();
        // The store is 1,000 ahead. Answers travel for 50, 10 and 90.
        assert_eq!(skew.measure(1_120, Moment(100), Moment(150)), 970);
        assert_eq!(skew.measure(1_205, Moment(200), Moment(210)), 995);
        assert_eq!(skew.measure(1_310, Moment(300), Moment(390)), 995);
        assert_eq!(skew.estimate(Moment(400)), Some(1_395));
    }

    #[test]
    fn clock_step_of_the_store_is_adopted_at_once() {
        let mut skew = Skew::default();
        skew.measure(1_000_000, Moment(100), Moment(110));
        skew.measure(500, Moment(200), Moment(210));
        assert_eq!(skew.estimate(Moment(300)), Some(590));
    }
}
