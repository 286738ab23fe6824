//! One round of publishing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::metrics::{Label, SharedString};

use super::reading::{InstanceReading, Labels, MetricReading, MetricRow, MetricSource, StateReading};
use super::table::{self, Metric, MetricKind};
use crate::metrics::{By, Fact, Facts, Histogram, OUTCOMES, OutcomeCounts};
use crate::snapshot::State;

/// The rounds after which a row is published although nothing has changed, for a recorder that was installed
/// later, or that drops what is not updated.
pub(super) const REPEAT: u32 = 10;

/// Publishes the metrics of all registries of a process.
#[derive(Default)]
pub(super) struct Publisher {
    sources: Vec<Arc<dyn MetricSource>>,
    /// The unpublished counts of registries that have left since the last round. Their namespaces are no
    /// longer degraded.
    left: MetricReading,
    shown: HashMap<Labels, Shown>,
}

/// The gauges of a row, as they were published.
#[derive(Clone, Copy)]
struct Shown {
    standing: StateReading,
    /// The rounds until the row is published anyway.
    repeat_in: u32,
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

    /// Publishes the counts since the last round and the gauges that have changed. No lock is held while the
    /// user's recorder runs. A panic in it loses one value.
    pub(super) fn round(&mut self) {
        let mut reading = std::mem::take(&mut self.left);
        for source in &self.sources {
            source.read(&mut reading);
        }
        // Handles are not cached and descriptions are repeated, because the recorder may be installed at any
        // time.
        table::ALL.into_iter().for_each(describe);
        let mut before = std::mem::take(&mut self.shown);
        for (labels, row) in reading.breakers {
            let shown = before.remove(&labels);
            self.publish_row(labels, &row, shown);
        }
        // Breakers that have gone.
        for (labels, shown) in before {
            self.publish_row(labels, &MetricRow::default(), Some(shown));
        }
        for (namespace, InstanceReading { degraded, arrivals }) in &reading.instances {
            gauge(&table::STORE_DEGRADED, &[namespace], f64::from(*degraded));
            histogram(&table::PROPAGATION, &[namespace], arrivals);
        }
    }

    /// Publishes what is new in a row, and resets the gauges that it no longer has.
    fn publish_row(&mut self, labels: Labels, row: &MetricRow, shown: Option<Shown>) {
        let (namespace, breaker) = (&labels.0, &labels.1);
        let before = shown.map(|shown| shown.standing);
        let reset = before.map(StateReading::reset);
        let standing = match (row.standing, reset) {
            // Its settings may have no rate any more.
            (Some(now), Some(reset)) => {
                Some(StateReading { failure_rate: now.failure_rate.or(reset.failure_rate), ..now })
            }
            (now, reset) => now.or(reset),
        };
        let repeat = shown.is_some_and(|shown| shown.repeat_in == 0);
        let changed = standing != before || repeat;
        if changed || row.calls != MetricRow::default().calls {
            publish_calls([namespace, breaker], row.calls);
        }
        if let (Some(standing), true) = (standing, changed) {
            publish_standing([namespace, breaker], standing);
        }
        publish_facts([namespace, breaker], &row.facts);
        if let Some(standing) = row.standing
            && standing.states != StateReading::default().states
        {
            let repeat_in = match shown {
                Some(shown) if !repeat => shown.repeat_in - 1,
                _ => REPEAT - 1,
            };
            self.shown.insert(labels, Shown { standing, repeat_in });
        }
    }
}

fn publish_calls([namespace, breaker]: [&SharedString; 2], calls: OutcomeCounts) {
    let text = SharedString::const_str;
    for (outcome, count) in OUTCOMES.into_iter().zip(calls) {
        counter(&table::CALLS, &[namespace, breaker, &text(outcome)], count);
    }
    let [.., slow] = calls;
    counter(&table::SLOW_CALLS, &[namespace, breaker], slow);
}

fn publish_standing([namespace, breaker]: [&SharedString; 2], standing: StateReading) {
    let text = SharedString::const_str;
    let StateReading { states, epoch, failure_rate } = standing;
    if let Some(rate) = failure_rate {
        gauge(&table::FAILURE_RATE, &[namespace, breaker], rate);
    }
    for (state, count) in State::ALL.into_iter().zip(states) {
        gauge(&table::STATE, &[namespace, breaker, &text(state.as_str())], f64::from(count));
    }
    if let Some(epoch) = epoch {
        #[allow(clippy::cast_precision_loss, reason = "gauges are floats; exact for 10^15 changes of state")]
        gauge(&table::EPOCH, &[namespace, breaker], epoch as f64);
    }
}

fn publish_facts([namespace, breaker]: [&SharedString; 2], facts: &Facts) {
    let text = SharedString::const_str;
    for (fact, noted) in &facts.0 {
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
