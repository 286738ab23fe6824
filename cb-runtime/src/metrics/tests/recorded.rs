//! What a recorder has been told so far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ::metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::metrics::publisher::Publisher;
use crate::snapshot::State;
use crate::sync::lock;

/// Keys are name and labels: `"circuit_breaker_epoch breaker=orders namespace=test"`.
#[derive(Default)]
pub(super) struct Recorded {
    recorder: Panicking,
    pub(super) counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, f64>,
    pub(super) histograms: BTreeMap<String, Vec<f64>>,
    pub(super) units: BTreeMap<String, Option<Unit>>,
}

impl Recorded {
    pub(super) fn new() -> Self {
        Recorded::default()
    }

    /// One round, told to this recorder.
    pub(super) fn round(&mut self, publisher: &mut Publisher) {
        with_local_recorder(&self.recorder, || publisher.round());
        let gauges = lock(&self.recorder.gauges);
        self.gauges = gauges
            .iter()
            .map(|(id, bits)| (id.clone(), f64::from_bits(bits.load(Ordering::Relaxed))))
            .collect();
        drop(gauges);
        for (key, unit, _, value) in self.recorder.inner.snapshotter().snapshot().into_vec() {
            let name = key.key().name().to_owned();
            let id = id(key.key());
            self.units.insert(name, unit);
            match value {
                // The snapshot sets everything back to zero.
                DebugValue::Counter(more) => *self.counters.entry(id).or_default() += more,
                // So these are kept by ourselves: what nobody sets any more must not look like zero.
                DebugValue::Gauge(_) => {}
                DebugValue::Histogram(more) => {
                    self.histograms.entry(id).or_default().extend(more.iter().map(|span| span.0));
                }
            }
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.counters.keys().chain(self.gauges.keys()).chain(self.histograms.keys())
    }

    pub(super) fn calls(&self, breaker: &str, outcome: &str) -> u64 {
        self.counters
            [&format!("circuit_breaker_calls_total breaker={breaker} namespace=test outcome={outcome}")]
    }

    pub(super) fn gauge(&self, key: &str) -> Option<f64> {
        self.gauges.get(key).copied()
    }

    /// The states that are not zero.
    pub(super) fn states(&self, breaker: &str) -> Vec<(&'static str, f64)> {
        let value = |state: State| {
            let key = format!("circuit_breaker_state breaker={breaker} namespace=test state={state}");
            (state.as_str(), self.gauge(&key).expect("every state has its gauge"))
        };
        State::ALL.into_iter().map(value).filter(|(_, value)| *value != 0.0).collect()
    }

    pub(super) fn assert_spans(&self, key: &str, expected: &[f64]) {
        let spans = &self.histograms[key];
        let close = |(span, expected): (&f64, &f64)| (span - expected).abs() <= expected / 50.0;
        assert!(
            spans.len() == expected.len() && spans.iter().zip(expected).all(close),
            "{key}: {spans:?}, but {expected:?}"
        );
    }

    pub(super) fn panics_at(&mut self, text: &'static str) {
        self.recorder.at = Some(text);
    }
}

fn id(key: &Key) -> String {
    let mut labels: Vec<_> =
        key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
    labels.sort();
    format!("{}{}", key.name(), labels.concat())
}

/// A recorder that panics at labels with a certain text in them.
#[derive(Default)]
struct Panicking {
    inner: DebuggingRecorder,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    at: Option<&'static str>,
}

impl Panicking {
    fn look(&self, key: &Key) {
        let is_it = |text| key.labels().any(|label| label.value().contains(text));
        assert!(!self.at.is_some_and(is_it), "a recorder's panic, which a test wants");
    }
}

impl Recorder for Panicking {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(key, unit, description);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(key, unit, description);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_histogram(key, unit, description);
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.look(key);
        self.inner.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.look(key);
        let _ = self.inner.register_gauge(key, metadata);
        Gauge::from_arc(lock(&self.gauges).entry(id(key)).or_default().clone())
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.look(key);
        self.inner.register_histogram(key, metadata)
    }
}
