//! One round of publishing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::metrics::{Label, SharedString};

use super::reading::{InstanceReading, Labels, MetricReading, MetricRow, MetricSource, StateReading};
use super::table::{self, Metric, MetricKind};
use crate::metrics::{By, Fact, Histogram, OUTCOMES};
use crate::snapshot::State;

/// Publishes the metrics of all registries of a process.
#[derive(Default)]
pub(super) struct Publisher {
    sources: Vec<Arc<dyn MetricSource>>,
    /// The unpublished counts of registries that have left since the last round. Their namespaces are no
    /// longer degraded.
    left: MetricReading,
    /// The labels with non-zero gauges, and whether they have an epoch. Gauges of gone breakers are reset to
    /// zero.
    shown: HashMap<Labels, (bool, bool)>,
}

impl Publisher {
    pub(super) fn enter(&mut self, source: Arc<dyn MetricSource>) {
        self.sources.push(source);
    }

    pub(super) fn leave(&mut self, source: &Arc<dyn MetricSource>) {
        source.read(&mut self.left);
        self.left.forget_standing();
        self.sources.retain(|other| !Arc::ptr_eq(other, source));
    }

    /// Publishes the counts since the last round and the current gauges. No lock is held while the user's
    /// recorder runs. A panic in it loses one value.
    pub(super) fn round(&mut self) {
        let mut reading = std::mem::take(&mut self.left);
        for source in &self.sources {
            source.read(&mut reading);
        }
        self.set_back(&mut reading);
        // Handles are not cached and descriptions are repeated, because the recorder may be installed at any
        // time.
        table::ALL.into_iter().for_each(describe);
        for ((namespace, breaker), row) in &reading.breakers {
            publish_row([namespace, breaker], row);
        }
        for (namespace, InstanceReading { degraded, arrivals }) in &reading.instances {
            gauge(&table::STORE_DEGRADED, &[namespace], f64::from(*degraded));
            histogram(&table::PROPAGATION, &[namespace], arrivals);
        }
    }

    /// Resets the gauges that have gone since the last round, mostly with their breakers.
    fn set_back(&mut self, reading: &mut MetricReading) {
        for (labels, (had_epoch, had_rate)) in self.shown.drain() {
            let gone = StateReading {
                epoch: had_epoch.then_some(0),
                failure_rate: had_rate.then_some(0.0),
                ..StateReading::default()
            };
            let standing = reading.breakers.entry(labels).or_default().standing.get_or_insert(gone);
            // Its settings may have no rate any more.
            standing.failure_rate = standing.failure_rate.or(gone.failure_rate);
        }
        for (labels, row) in &reading.breakers {
            if let Some(standing) = row.standing
                && standing.states != StateReading::default().states
            {
                self.shown
                    .insert(labels.clone(), (standing.epoch.is_some(), standing.failure_rate.is_some()));
            }
        }
    }
}

fn publish_row([namespace, breaker]: [&SharedString; 2], row: &MetricRow) {
    let text = SharedString::const_str;
    if row.standing.is_some() || row.calls != MetricRow::default().calls {
        for (outcome, count) in OUTCOMES.into_iter().zip(row.calls) {
            counter(&table::CALLS, &[namespace, breaker, &text(outcome)], count);
        }
        let [.., slow] = row.calls;
        counter(&table::SLOW_CALLS, &[namespace, breaker], slow);
    }
    if let Some(StateReading { states, epoch, failure_rate }) = row.standing {
        if let Some(rate) = failure_rate {
            gauge(&table::FAILURE_RATE, &[namespace, breaker], rate);
        }
        for (state, count) in State::ALL.into_iter().zip(states) {
            gauge(&table::STATE, &[namespace, breaker, &text(state.as_str())], f64::from(count));
        }
        if let Some(epoch) = epoch {
            #[allow(
                clippy::cast_precision_loss,
                reason = "gauges are floats; exact for 10^15 changes of state"
            )]
            gauge(&table::EPOCH, &[namespace, breaker], epoch as f64);
        }
    }
    for (fact, noted) in &row.facts.0 {
        match *fact {
            Fact::Transition { from, to, by } => {
                let by = match by {
                    By::This => "this",
                    By::Another => "another",
                    By::Alone => "alone",
                };
                let labels = [namespace, breaker, &text(from.as_str()), &text(to.as_str()), &text(by)];
                counter(&table::TRANSITIONS, &labels, noted.count);
            }
            Fact::CacheHit { shared } => {
                let labels = [namespace, breaker, &text(if shared { "shared" } else { "local" })];
                counter(&table::CACHE_HITS, &labels, noted.count);
                histogram(&table::CACHE_AGE, &labels, &noted.spans);
            }
            Fact::HealthCheck { passed } => {
                let labels = [namespace, breaker, &text(if passed { "passed" } else { "failed" })];
                counter(&table::HEALTH_CHECKS, &labels, noted.count);
                histogram(&table::HEALTH_CHECK, &labels, &noted.spans);
            }
            Fact::Call => histogram(&table::CALL, &[namespace, breaker], &noted.spans),
            Fact::WouldHaveOpened => {
                counter(&table::WOULD_HAVE_OPENED, &[namespace, breaker], noted.count);
            }
        }
    }
}

fn describe(metric: &'static Metric) {
    guarded(|| match metric.kind {
        MetricKind::Counter => ::metrics::describe_counter!(metric.name, metric.unit, metric.help),
        MetricKind::Gauge => ::metrics::describe_gauge!(metric.name, metric.unit, metric.help),
        MetricKind::Histogram => ::metrics::describe_histogram!(metric.name, metric.unit, metric.help),
    });
}

/// Increments a counter, also by zero: it then exists before its first event, and a rate sees its first step.
fn counter(metric: &'static Metric, values: &[&SharedString], count: u64) {
    guarded(|| ::metrics::counter!(metric.name, labels(metric, values)).increment(count));
}

fn gauge(metric: &'static Metric, values: &[&SharedString], value: f64) {
    guarded(|| ::metrics::gauge!(metric.name, labels(metric, values)).set(value));
}

fn histogram(metric: &'static Metric, values: &[&SharedString], spans: &Histogram) {
    for (span, count) in spans.iter() {
        guarded(|| ::metrics::histogram!(metric.name, labels(metric, values)).record_many(span, count));
    }
}

fn labels(metric: &Metric, values: &[&SharedString]) -> Vec<Label> {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    metric.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).clone())).collect()
}

/// Runs the user's recorder and ignores its panics.
fn guarded(publish: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(publish));
}
