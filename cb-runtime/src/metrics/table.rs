//! The metrics. A test compares docs/metrics.md with this table.

use ::metrics::Unit;

/// A metric's name and meaning. Label values are given in the order of `labels`.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: MetricKind,
    pub(super) unit: Unit,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, unit: Unit::Count, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, unit: Unit::Count, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, unit: Unit::Seconds, labels, help }
}

pub(super) static CALLS: Metric = counter(
    "circuit_breaker_calls_total",
    &["namespace", "breaker", "outcome"],
    "Calls on this instance, by outcome",
);
pub(super) static SLOW_CALLS: Metric = counter(
    "circuit_breaker_slow_calls_total",
    &["namespace", "breaker"],
    "Successes and failures that took longer than slow_call_duration; circuit_breaker_calls_total includes them",
);
pub(super) static CALL: Metric = histogram(
    "circuit_breaker_call_seconds",
    &["namespace", "breaker"],
    "Duration of calls that were made, where the registry measures them (RegistryBuilder::measure_calls)",
);
pub(super) static STATE: Metric = gauge(
    "circuit_breaker_state",
    &["namespace", "breaker", "state"],
    "Breakers of this label in this state: 1 or 0, or more for keyed breakers, which are aggregated",
);
pub(super) static EPOCH: Metric = gauge(
    "circuit_breaker_epoch",
    &["namespace", "breaker"],
    "The epoch of the fleet's state, as known to this instance",
);
pub(super) static FAILURE_RATE: Metric = gauge(
    "circuit_breaker_failure_rate",
    &["namespace", "breaker"],
    "The share of failures, from 0 to 1, in the window of a breaker that judges by one; not of keyed breakers",
);
pub(super) static TRANSITIONS: Metric = counter(
    "circuit_breaker_transitions_total",
    &["namespace", "breaker", "from", "to", "by"],
    "Transitions by originator: this instance, another one, or this one locally",
);
pub(super) static PROPAGATION: Metric = histogram(
    "circuit_breaker_propagation_seconds",
    &["namespace"],
    "Time from the store's acceptance of another instance's transition to its arrival here",
);
pub(super) static STORE_DEGRADED: Metric = gauge(
    "circuit_breaker_store_degraded",
    &["namespace"],
    "1 while the store does not answer and this instance decides locally, else 0",
);
pub(super) static CACHE_HITS: Metric = counter(
    "circuit_breaker_cache_hits_total",
    &["namespace", "breaker", "tier"],
    "Failed or rejected calls answered by a cached result, by its tier",
);
pub(super) static CACHE_AGE: Metric =
    histogram("circuit_breaker_cache_age_seconds", &["namespace", "breaker", "tier"], "Age of those results");
pub(super) static HEALTH_CHECKS: Metric = counter(
    "circuit_breaker_health_checks_total",
    &["namespace", "breaker", "result"],
    "Health checks made by this instance",
);
pub(super) static HEALTH_CHECK: Metric = histogram(
    "circuit_breaker_health_check_seconds",
    &["namespace", "breaker", "result"],
    "Duration of those health checks",
);
pub(super) static WOULD_HAVE_OPENED: Metric = counter(
    "circuit_breaker_would_have_opened_total",
    &["namespace", "breaker"],
    "Trips that a metrics-only breaker would have made",
);

pub(super) static ALL: [&Metric; 14] = [
    &CALLS,
    &SLOW_CALLS,
    &CALL,
    &STATE,
    &EPOCH,
    &FAILURE_RATE,
    &TRANSITIONS,
    &PROPAGATION,
    &STORE_DEGRADED,
    &CACHE_HITS,
    &CACHE_AGE,
    &HEALTH_CHECKS,
    &HEALTH_CHECK,
    &WOULD_HAVE_OPENED,
];
