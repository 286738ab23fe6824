//! A streak of failures in the memory store.

use super::When;
use crate::clock::Moment;
use crate::store::{MAX_COUNT, Streak};

/// The latest success, and the failures since. All instants are the store's.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredStreak(Streak<Moment>);

impl StoredStreak {
    /// The number of failures.
    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn success_age_us(&self, now: u64) -> Option<u64> {
        self.0.success.map(|at| now.saturating_sub(at.0))
    }

    /// Adds outcomes, and keeps as many `pairs` of an instant and its failures. Instants in the future are
    /// limited to now: they come from a clock that was set back, and no later one could follow them.
    pub(super) fn merge(&mut self, more: &Streak, pairs: usize, when: When) {
        let at = |age: u64| Moment(when.base.saturating_sub(age));
        let StoredStreak(streak) = self;
        let now = Moment(when.now);
        streak.success = streak.success.map(|at| at.min(now));
        streak.failures.iter_mut().for_each(|(at, _)| *at = (*at).min(now));
        streak.success = streak.success.max(more.success.map(at));
        let failures = more.failures.iter().filter(|&&(_, count)| count > 0);
        streak.failures.extend(failures.map(|&(age, count)| (at(age), count)));
        streak.failures.retain(|&(at, _)| Some(at) >= streak.success);
        streak.failures.sort_by_key(|&(at, _)| at);
        streak.failures.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = earlier.1.saturating_add(later.1).min(MAX_COUNT);
            }
            same
        });
        streak.bound(pairs);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{StoredStreak, When};
    use crate::store::{MAX_STREAK, Streak};

    proptest! {
        /// A streak with as many pairs as the limit reaches the limit exactly when the whole streak does, in
        /// any order of failures and successes.
        #[test]
        fn bounded_streak_decides_like_the_whole_one(
            limit in 1..6_usize,
            steps in prop::collection::vec((prop::option::of(0..60_u64), prop::collection::vec(0..60_u64, 0..4)), 1..20),
        ) {
            let (mut whole, mut bounded) = (StoredStreak::default(), StoredStreak::default());
            for (success, mut ages) in steps {
                ages.sort_unstable_by(|one, other| other.cmp(one));
                ages.retain(|age| success.is_none_or(|success| *age <= success));
                let streak = Streak { success, failures: ages.iter().map(|age| (*age, 1)).collect() };
                let when = When { now: 100, base: 100, retry: false };
                whole.merge(&streak, MAX_STREAK, when);
                bounded.merge(&streak, limit, when);
                prop_assert_eq!(bounded.len() >= limit as u64, whole.len() >= limit as u64);
            }
        }
    }
}
