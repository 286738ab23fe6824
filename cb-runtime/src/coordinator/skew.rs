//! The store's clock, seen from here.

use crate::clock::Moment;

/// Bounds for "the store's clock minus ours", in µs, from the times of questions and answers.
///
/// The estimate is the lower bound: a time that is told as "by your clock, at most now" must not lie
/// in the store's future, and one that only ever moves up keeps the order of what one instance reports.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    bounds: Option<(i128, i128)>,
}

impl Skew {
    /// The store's clock showed `store_now` some time between `sent` and `received`.
    pub(crate) fn measure(&mut self, store_now: u64, sent: Moment, received: Moment) -> u64 {
        let new =
            (i128::from(store_now) - i128::from(received.0), i128::from(store_now) - i128::from(sent.0));
        let bounds = match self.bounds {
            // Both are true: so is what they have in common. If they have nothing in common, the store's clock has been set, or it is another store.
            Some((low, high)) if low.max(new.0) <= high.min(new.1) => (low.max(new.0), high.min(new.1)),
            _ => new,
        };
        self.bounds = Some(bounds);
        wrap(bounds.0)
    }

    /// What the store's clock shows at `now`, at least.
    pub(crate) fn estimate(&self, now: Moment) -> Option<u64> {
        self.bounds.map(|(low, _)| now.0.wrapping_add(wrap(low)))
    }
}

/// As a number to be added with wrapping.
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
    fn the_estimate_tightens_and_never_runs_ahead() {
        let mut skew = Skew::default();
        // The store is 1,000 ahead. Answers travel for 50, 10 and 90.
        assert_eq!(skew.measure(1_120, Moment(100), Moment(150)), 970);
        assert_eq!(skew.measure(1_205, Moment(200), Moment(210)), 995);
        assert_eq!(skew.measure(1_310, Moment(300), Moment(390)), 995);
        assert_eq!(skew.estimate(Moment(400)), Some(1_395));
    }

    #[test]
    fn a_store_with_another_clock_is_believed_at_once() {
        let mut skew = Skew::default();
        skew.measure(1_000_000, Moment(100), Moment(110));
        skew.measure(500, Moment(200), Moment(210));
        assert_eq!(skew.estimate(Moment(300)), Some(590));
    }
}
