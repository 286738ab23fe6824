//! The values to publish, gathered from registries.

use std::collections::HashMap;

use ::metrics::SharedString;

use crate::metrics::{Facts, Histogram, OutcomeCounts};
use crate::snapshot::State;

/// A registry, as the publisher sees it.
pub(crate) trait MetricSource: Send + Sync + 'static {
    /// Adds the counts since the last reading, and the current gauges.
    fn read(&self, reading: &mut MetricReading);
}

/// A breaker's labels: namespace, and name or pattern.
pub(crate) type Labels = (SharedString, SharedString);

/// The counts since the last round, and the current gauges.
#[derive(Default)]
pub(crate) struct MetricReading {
    pub(crate) breakers: HashMap<Labels, MetricRow>,
    pub(crate) instances: HashMap<SharedString, InstanceReading>,
}

#[derive(Default)]
pub(crate) struct MetricRow {
    /// `None` if only events are known.
    pub(crate) standing: Option<StateReading>,
    pub(crate) calls: OutcomeCounts,
    pub(crate) facts: Facts,
}

/// The states of a row's breakers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StateReading {
    /// The number of breakers in each of [`State::ALL`].
    pub(crate) states: [u32; State::ALL.len()],
    /// The highest epoch, if it has a meaning.
    pub(crate) epoch: Option<u64>,
    /// The highest share of failures in a window, if there is one.
    pub(crate) failure_rate: Option<f64>,
}

impl StateReading {
    /// These gauges, but with the value zero.
    pub(super) fn reset(self) -> Self {
        StateReading {
            epoch: self.epoch.map(|_| 0),
            failure_rate: self.failure_rate.map(|_| 0.0),
            ..Self::default()
        }
    }
}

#[derive(Default)]
pub(crate) struct InstanceReading {
    /// The number of registries without their store.
    pub(crate) degraded: u32,
    pub(crate) arrivals: Histogram,
}

impl MetricReading {
    /// Keeps the counts and drops the gauges.
    pub(crate) fn forget_standing(&mut self) {
        for row in self.breakers.values_mut() {
            row.standing = None;
        }
        for instance in self.instances.values_mut() {
            instance.degraded = 0;
        }
    }

    /// The row of a breaker, or of a pattern of names.
    pub(crate) fn row(&mut self, namespace: &SharedString, label: SharedString) -> &mut MetricRow {
        self.breakers.entry((namespace.clone(), label)).or_default()
    }
}
