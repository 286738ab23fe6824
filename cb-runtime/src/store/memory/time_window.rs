//! The time windows of one breaker, by length and width.

use std::collections::BTreeMap;
use std::time::Duration;

use super::When;
use crate::clock::micros;
use crate::store::{Counts, WindowRequest, WindowView};

/// The time for which a window is kept in addition to its length, as in Redis.
const MARGIN: Duration = Duration::from_secs(600);

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredTimeWindows(BTreeMap<(u64, u64), StoredTimeWindow>);

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
struct StoredTimeWindow {
    buckets: BTreeMap<u64, Counts>,
    merged_at: u64,
}

impl StoredTimeWindows {
    pub(super) fn merge(&mut self, ask: WindowRequest, buckets: &[(u64, Counts)], when: When) {
        let first = first_bucket(ask, when.now);
        // Longer than its length: what is in it is of no use any more.
        self.0.retain(|&(length, _), window| {
            when.now.saturating_sub(window.merged_at) <= length + micros(MARGIN)
        });
        for (age, counts) in buckets {
            let bucket = when.base.saturating_sub(*age) / ask.width_us;
            if bucket < first || counts.is_nothing() {
                continue;
            }
            let window = self.0.entry((ask.length_us, ask.width_us)).or_default();
            window.merged_at = when.now;
            window.buckets.retain(|&bucket, _| bucket >= first);
            let sum = window.buckets.entry(bucket).or_default();
            *sum = sum.plus(*counts);
        }
    }

    pub(super) fn view(&self, ask: WindowRequest, now: u64) -> WindowView {
        // Later ones come from a clock that was set back.
        let (first, current) = (first_bucket(ask, now).max(ask.since), now / ask.width_us);
        match self.0.get(&(ask.length_us, ask.width_us)) {
            None => WindowView::default(),
            Some(window) => WindowView {
                buckets: window
                    .buckets
                    .iter()
                    .filter(|(bucket, _)| (first..=current).contains(bucket))
                    .map(|(&bucket, &counts)| (bucket, counts))
                    .collect(),
            },
        }
    }
}

/// The oldest bucket that is in the window now.
fn first_bucket(ask: WindowRequest, now: u64) -> u64 {
    let buckets = ask.length_us.div_ceil(ask.width_us);
    (now / ask.width_us + 1).saturating_sub(buckets)
}
