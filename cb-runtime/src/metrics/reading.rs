//! The values to publish, gathered from registries.

use std::collections::HashMap;
use std::sync::Arc;

use ::metrics::SharedString;

use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::metrics::{Facts, Histogram, OTHERS, OutcomeCounts};
use crate::snapshot::State;

/// The source of a registry's metrics.
pub(crate) struct MeteredRegistry {
    pub(crate) namespace: Arc<str>,
    pub(crate) context: Arc<RegistryContext>,
    pub(crate) breakers: Arc<BreakerMap>,
}

/// A breaker's labels: namespace, and name or pattern.
pub(super) type Labels = (SharedString, SharedString);

/// The counts since the last round, and the current gauges.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) breakers: HashMap<Labels, Row>,
    pub(super) instances: HashMap<SharedString, InstanceReading>,
}

#[derive(Default)]
pub(super) struct Row {
    /// `None` if only events are known.
    pub(super) standing: Option<StateReading>,
    pub(super) calls: OutcomeCounts,
    pub(super) facts: Facts,
}

/// The states of a row's breakers.
#[derive(Clone, Copy, Default)]
pub(super) struct StateReading {
    /// The number of breakers in each of [`State::ALL`].
    pub(super) states: [u32; State::ALL.len()],
    /// The highest epoch, if it has a meaning.
    pub(super) epoch: Option<u64>,
    /// The highest share of failures in a window, if there is one.
    pub(super) failure_rate: Option<f64>,
}

#[derive(Default)]
pub(super) struct InstanceReading {
    /// The number of registries without their store.
    pub(super) degraded: u32,
    pub(super) arrivals: Histogram,
}

impl Reading {
    /// Adds a registry's values.
    pub(super) fn read(&mut self, source: &MeteredRegistry) {
        let namespace = SharedString::from(source.namespace.clone());
        // Events are taken before breakers are counted, so that a breaker of a later event is known in the
        // next round.
        let mut notes = source.context.events.meter.take();
        source.breakers.for_each_count(|counted| {
            let label = match counted.pattern {
                Some(pattern) => SharedString::const_str(pattern),
                None => counted.name.clone().into(),
            };
            let row = self.row(&namespace, label);
            let standing = row.standing.get_or_insert_default();
            standing.states[counted.state as usize] += 1;
            standing.epoch = standing.epoch.max(counted.epoch);
            standing.failure_rate = match (standing.failure_rate, counted.failure_rate) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            };
            super::meter::add(&mut row.calls, counted.calls);
            row.facts.took(&counted.durations);
            if let Some(facts) = notes.by_name.remove(counted.name) {
                row.facts.absorb(facts);
            }
        });
        for (sum, left) in notes.gone {
            let row = self.row(&namespace, SharedString::const_str(sum));
            super::meter::add(&mut row.calls, left.calls);
            row.facts.absorb(left.facts);
        }
        for facts in notes.by_name.into_values() {
            self.row(&namespace, SharedString::const_str(OTHERS)).facts.absorb(facts);
        }
        let instance = self.instances.entry(namespace).or_default();
        instance.degraded += u32::from(!source.context.store_up() && !source.context.has_ended());
        instance.arrivals.absorb(&notes.arrivals);
    }

    /// Keeps the counts and drops the gauges.
    pub(super) fn forget_standing(&mut self) {
        for row in self.breakers.values_mut() {
            row.standing = None;
        }
        for instance in self.instances.values_mut() {
            instance.degraded = 0;
        }
    }

    fn row(&mut self, namespace: &SharedString, label: SharedString) -> &mut Row {
        self.breakers.entry((namespace.clone(), label)).or_default()
    }
}
