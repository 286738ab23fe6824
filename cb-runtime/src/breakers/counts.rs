//! What the breakers of one registry have counted, for publishing.

use std::sync::Arc;

use super::{BreakerMap, CHUNK, Registered};
use crate::metrics::{Histogram, OTHERS, OutcomeCounts, calls};
use crate::snapshot::State;
use crate::strategy::Calls;
use crate::sync::lock;

/// One breaker, and what is new about it.
pub(crate) struct BreakerCounts<'a> {
    pub(crate) name: &'a Arc<str>,
    /// The name as it stands in the attribute, of a keyed breaker.
    pub(crate) pattern: Option<&'static str>,
    pub(crate) state: State,
    /// `None` for keyed breakers, which are summed up.
    pub(crate) epoch: Option<u64>,
    /// The share of failures in its window; `None` if it judges by no window, and for keyed breakers.
    pub(crate) failure_rate: Option<f64>,
    /// Its calls by outcome since they were asked for the last time.
    pub(crate) calls: OutcomeCounts,
    /// How long they took, if the registry measures that.
    pub(crate) durations: Histogram,
}

impl BreakerMap {
    /// Shows every registered breaker to `read`. None of them is referred to meanwhile: that would keep idle
    /// ones from being evicted.
    pub(crate) fn for_each_count(&self, mut read: impl FnMut(BreakerCounts<'_>)) {
        let names: Vec<_> = self.read().registered.keys().cloned().collect();
        for chunk in names.chunks(CHUNK) {
            let breakers = self.read();
            for name in chunk {
                if let Some(breaker) = breakers.registered.get(name) {
                    let (epoch, window) = breaker.epoch_and_window();
                    read(BreakerCounts {
                        name,
                        pattern: breaker.pattern(),
                        state: breaker.core.state(),
                        epoch,
                        failure_rate: window.map(Calls::failure_rate),
                        calls: breaker.new_calls(),
                        durations: breaker.core.take_durations(),
                    });
                }
            }
        }
    }
}

impl Registered {
    /// It is about to be evicted: what has not been published of it goes to the sum of its pattern.
    pub(super) fn count_out(&self, name: &Arc<str>) {
        let sum = self.pattern().unwrap_or(OTHERS);
        self.core.context().events.meter.took(name, self.core.take_durations());
        self.core.context().events.meter.leave(name, sum, self.new_calls());
    }

    /// `None` for keyed breakers, which are summed up.
    fn epoch_and_window(&self) -> (Option<u64>, Option<Calls>) {
        if self.keyed {
            return (None, None);
        }
        let (epoch, window) = self.core.epoch_and_window();
        (Some(epoch), window)
    }

    fn pattern(&self) -> Option<&'static str> {
        self.keyed.then(|| self.pattern.get().copied().unwrap_or(OTHERS))
    }

    fn new_calls(&self) -> OutcomeCounts {
        let now = calls(self.core.outcomes());
        let mut published = lock(&self.published);
        let new = std::array::from_fn(|at| now[at].saturating_sub(published[at]));
        *published = now;
        new
    }
}
