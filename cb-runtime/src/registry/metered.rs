//! A registry's metrics.

use std::sync::Arc;

use ::metrics::SharedString;

use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::metrics::{self, MetricReading, MetricSource, OTHERS};

/// The source of a registry's metrics.
pub(crate) struct MeteredRegistry {
    pub(crate) namespace: Arc<str>,
    pub(crate) context: Arc<RegistryContext>,
    pub(crate) breakers: Arc<BreakerMap>,
}

impl MetricSource for MeteredRegistry {
    fn read(&self, reading: &mut MetricReading) {
        let namespace = SharedString::from(self.namespace.clone());
        // Events are taken before breakers are counted, so that a breaker of a later event is known in the
        // next round.
        let mut notes = self.context.events.meter.take();
        self.breakers.for_each_count(|counted| {
            let label = match counted.pattern {
                Some(pattern) => SharedString::const_str(pattern),
                None => counted.name.clone().into(),
            };
            let row = reading.row(&namespace, label);
            let standing = row.standing.get_or_insert_default();
            standing.states[counted.state as usize] += 1;
            standing.epoch = standing.epoch.max(counted.epoch);
            standing.failure_rate = match (standing.failure_rate, counted.failure_rate) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            };
            metrics::add(&mut row.calls, counted.calls);
            row.facts.took(&counted.durations);
            if let Some(facts) = notes.by_name.remove(counted.name) {
                row.facts.absorb(facts);
            }
        });
        for (sum, left) in notes.gone {
            let row = reading.row(&namespace, SharedString::const_str(sum));
            metrics::add(&mut row.calls, left.calls);
            row.facts.absorb(left.facts);
        }
        for facts in notes.by_name.into_values() {
            reading.row(&namespace, SharedString::const_str(OTHERS)).facts.absorb(facts);
        }
        let instance = reading.instances.entry(namespace).or_default();
        instance.degraded += u32::from(!self.context.store_up() && !self.context.has_ended());
        instance.arrivals.absorb(&notes.arrivals);
    }
}
