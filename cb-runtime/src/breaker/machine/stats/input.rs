//! What the trip rules look at: the fleet's counts, and this instance's since.

use std::collections::BTreeMap;
use std::time::Duration;

use super::time_window::TimeWindow;
use super::{CallStats, count_window};
use crate::breaker::machine::Now;
use crate::breaker::machine::policy::TripInput;
use crate::clock::Moment;
use crate::store::{Counts, Delta};
use crate::strategy::Bucket;

impl CallStats {
    /// The input of a closed breaker's rules.
    pub(crate) fn trip_input(&self, sent: Option<&Delta<Moment>>, now: Now, with_buckets: bool) -> TripInput {
        let streak = self.unconfirmed(sent).fold(self.streak, |before, delta| delta.streak_after(before));
        let streak_instances = if self.counts_instances { self.failing_in_streak(sent) } else { 0 };
        let shape = self.shape();
        let mut input = TripInput { streak, streak_instances, ..TripInput::default() };
        if let Some(time) = &self.time {
            let start = Moment(now.at.0.saturating_sub(time.length()));
            input.window = self
                .unconfirmed(sent)
                .fold(time.sum(now.store_time()), |sum, delta| sum.plus(delta.window_since(start, shape)));
            input.window = input.window.plus(self.previous.window_since(start));
            if self.counts_instances {
                input.window_instances = self.failing_since(start);
            }
            if with_buckets {
                input.buckets = self.buckets(time, sent, now);
            }
        }
        if let Some(last) = &self.last {
            let confirmed = self.previous.calls().chain([&last.outcomes]);
            let parts = confirmed.chain(self.unconfirmed(sent).map(|delta| &delta.calls));
            input.window = count_window::latest(last.calls(), parts);
            if self.counts_instances {
                let more = self.unconfirmed(sent).map(|delta| delta.calls.len()).sum();
                let fails = self.unconfirmed(sent).any(|delta| delta.calls.since_failure().is_some());
                input.window_instances = last.failing(more, fails);
            }
        }
        input
    }

    /// The input from the outcomes that the latest answer does not contain, without those of a time window.
    pub(crate) fn input_since_answer(&self, sent: Option<&Delta<Moment>>) -> TripInput {
        let streak = self.unconfirmed(sent).fold(0, |before, delta| delta.streak_after(before));
        let mut input = TripInput { streak, ..TripInput::default() };
        if let Some(last) = &self.last {
            let parts = self.unconfirmed(sent).map(|delta| &delta.calls);
            input.window = count_window::latest(last.calls(), parts);
        }
        input
    }

    /// The time until which no outcome leaves the time window, and until which outcomes fall into the bucket
    /// of `now`. `None`: there is no time window, or outcomes of a window before a reload count.
    ///
    /// A window is as long as ten buckets, less some µs. So outcomes that are counted here leave it when a
    /// bucket of this instance ends, and those of the fleet when one of the store's does.
    pub(crate) fn stays_until(&self, now: Now) -> Option<Moment> {
        let time = self.time.as_ref().filter(|_| self.previous.is_empty())?;
        let fleet = time.next_expiry(now.store_time()).map(|at| Moment(at.wrapping_sub(now.skew)));
        [self.end_of_bucket(now.at), fleet].into_iter().flatten().min()
    }

    /// When the bucket of this instance's window ends that holds the outcomes of this time.
    pub(crate) fn end_of_bucket(&self, at: Moment) -> Option<Moment> {
        let width = self.time.as_ref()?.width();
        Some(Moment((at.0 / width + 1) * width))
    }

    /// The input from this instance's outcomes alone, if they are kept.
    pub(crate) fn own_trip_input(&self, now: Now, with_buckets: bool) -> Option<TripInput> {
        let own = self.own.as_ref()?;
        let window = match (&self.time, &self.last) {
            (Some(time), _) => own.window_since(Moment(now.at.0.saturating_sub(time.length())), self.shape()),
            (None, Some(last)) => count_window::latest(last.calls(), std::iter::once(&own.calls)),
            (None, None) => Counts::default(),
        };
        Some(TripInput {
            streak: own.streak_after(0),
            window,
            streak_instances: 1,
            window_instances: 1,
            buckets: match &self.time {
                Some(time) if with_buckets => by_age(time, BTreeMap::new(), own.buckets.iter().copied(), now),
                _ => Vec::new(),
            },
        })
    }

    /// The number of instances with failures since the fleet's latest success.
    fn failing_in_streak(&self, sent: Option<&Delta<Moment>>) -> u32 {
        let success_at =
            self.unconfirmed(sent).filter_map(|delta| delta.streak.success).chain(self.success_at).max();
        let after = |at: &Moment| success_at.is_none_or(|success| *at >= success);
        let others = self.failing.iter().filter(|at| after(at)).count();
        let own = self.own.as_ref().and_then(Delta::latest_failure).is_some_and(|at| after(&at));
        number(others + usize::from(own))
    }

    fn failing_since(&self, start: Moment) -> u32 {
        let own = self.own.as_ref().is_some_and(|own| own.window_since(start, self.shape()).failures > 0);
        self.others_failing_since(start).saturating_add(u32::from(own))
    }

    /// The number of other instances with failures since `start`; known only for a quorum or a strategy.
    pub(crate) fn others_failing_since(&self, start: Moment) -> u32 {
        number(self.failing.iter().filter(|at| **at >= start).count())
    }

    fn buckets(&self, time: &TimeWindow, sent: Option<&Delta<Moment>>, now: Now) -> Vec<Bucket> {
        let unconfirmed = self.unconfirmed(sent).flat_map(|delta| delta.buckets.iter().copied());
        let here = self.previous.buckets().chain(unconfirmed);
        by_age(time, time.buckets(now.store_time()).collect(), here, now)
    }
}

/// The store's buckets, and those counted here (by the middle of each), by their age.
fn by_age(
    time: &TimeWindow,
    mut all: BTreeMap<u64, Counts>,
    here: impl Iterator<Item = (Moment, Counts)>,
    now: Now,
) -> Vec<Bucket> {
    for (middle, counts) in here {
        if middle.0.saturating_add(time.length()) > now.at.0 {
            let sum = all.entry(middle.0.wrapping_add(now.skew) / time.width()).or_default();
            *sum = sum.plus(counts);
        }
    }
    let age = |number: u64| now.store_time().saturating_sub((number + 1) * time.width());
    all.into_iter()
        .map(|(number, counts)| Bucket { age: Duration::from_micros(age(number)), calls: counts.into() })
        .collect()
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
