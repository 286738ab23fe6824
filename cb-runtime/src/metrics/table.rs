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
    "What has become of this instance's calls",
);
pub(super) static SLOW_CALLS: Metric = counter(
    "circuit_breaker_slow_calls_total",
    &["namespace", "breaker"],
    "Successes and failures that took longer than slow_call_duration; they are in circuit_breaker_calls_total, too",
);
pub(super) static STATE: Metric = gauge(
    "circuit_breaker_state",
    &["namespace", "breaker", "state"],
    "How many breakers of this label are in this state: 1 or 0, or more where names made of arguments are summed up",
);
pub(super) static EPOCH: Metric = gauge(
    "circuit_breaker_epoch",
    &["namespace", "breaker"],
    "The number of the fleet's last change of state that this instance knows",
);
pub(super) static TRANSITIONS: Metric = counter(
    "circuit_breaker_transitions_total",
    &["namespace", "breaker", "from", "to", "by"],
    "Changes of state, by who brought them about: this instance, another one, or this one for itself alone",
);
pub(super) static PROPAGATION: Metric = histogram(
    "circuit_breaker_propagation_seconds",
    &["namespace"],
    "From the store's taking another instance's change of state to its arrival here",
);
pub(super) static STORE_DEGRADED: Metric = gauge(
    "circuit_breaker_store_degraded",
    &["namespace"],
    "1 while the store does not answer and this instance decides by itself, else 0",
);
pub(super) static CACHE_HITS: Metric = counter(
    "circuit_breaker_cache_hits_total",
    &["namespace", "breaker", "tier"],
    "Failed or rejected calls that a cached result has answered, by where it was",
);
pub(super) static CACHE_AGE: Metric = histogram(
    "circuit_breaker_cache_age_seconds",
    &["namespace", "breaker", "tier"],
    "How old those results were",
);
pub(super) static HEALTH_CHECKS: Metric = counter(
    "circuit_breaker_health_checks_total",
    &["namespace", "breaker", "result"],
    "Health checks that this instance has made",
);
pub(super) static HEALTH_CHECK: Metric = histogram(
    "circuit_breaker_health_check_seconds",
    &["namespace", "breaker", "result"],
    "How long those health checks took",
);
pub(super) static WOULD_HAVE_OPENED: Metric = counter(
    "circuit_breaker_would_have_opened_total",
    &["namespace", "breaker"],
    "How often a metrics-only breaker would have opened",
);

pub(super) static ALL: [&Metric; 12] = [
    &CALLS,
    &SLOW_CALLS,
    &STATE,
    &EPOCH,
    &TRANSITIONS,
    &PROPAGATION,
    &STORE_DEGRADED,
    &CACHE_HITS,
    &CACHE_AGE,
    &HEALTH_CHECKS,
    &HEALTH_CHECK,
    &WOULD_HAVE_OPENED,
];
