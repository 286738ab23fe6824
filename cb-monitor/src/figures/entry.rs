//! One breaker's figures: its latest reading, and the rates and the trend of the readings before.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::{State, WindowSnapshot};
use serde::Serialize;

use crate::fleet::Reading;
use crate::settings::Limits;

/// The number of points of a trend, one per reading.
const TREND: usize = 40;

/// One breaker's latest reading, and its rates and trend from the readings before.
pub(super) struct Entry {
    pub(super) reading: Reading,
    /// The moment to which the reading's `retry_after` refers.
    pub(super) read_at: Instant,
    pub(super) rates: Rates,
    trend: VecDeque<Option<f32>>,
}

/// Calls per second between the last two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) calls: f64,
    pub(crate) failures: f64,
    /// Calls that were rejected. This rate and the next two are unknown in the first seconds after the first
    /// reader has connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rejected: Option<f64>,
    /// Failed and rejected calls that were answered by a cached result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cached: Option<f64>,
    /// Failed and rejected calls that were answered by a fallback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<f64>,
}

/// One breaker in an answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: Arc<str>,
    pub(crate) state: State,
    pub(crate) epoch: u64,
    pub(crate) failure_count: u64,
    pub(crate) success_count: u64,
    pub(crate) consecutive_failures: u64,
    /// Seconds since 1970, like all other times.
    pub(crate) last_failure_time: Option<f64>,
    pub(crate) last_state_change: Option<f64>,
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) originator: String,
    /// Seconds until a probe is due, or until a manual override expires.
    pub(crate) retry_after: Option<f64>,
    /// The share of failures among the calls between the last two readings.
    pub(crate) failure_rate: Option<f64>,
    pub(crate) per_second: Rates,
    /// Calls since the last change of state that took longer than `slow_call_duration`.
    pub(crate) slow_count: u64,
    /// The fleet's window.
    pub(crate) window: Option<WindowSnapshot>,
    /// Probes that are under way.
    pub(crate) probes: u32,
    /// The number of consecutive openings without a close.
    pub(crate) openings: u32,
    /// The instance that runs the health checks.
    pub(crate) leader: Option<String>,
    /// How often a metrics-only breaker would have opened, and when it last would have.
    pub(crate) would_have_opened: u64,
    pub(crate) would_have_opened_at: Option<f64>,
    /// Instances that have opened the circuit locally only.
    pub(crate) isolated: Vec<String>,
    /// Whether instances have different settings for this breaker.
    pub(crate) drift: bool,
    /// Whether this process has decided on this state locally, because the store does not answer.
    pub(crate) local: bool,
    /// The failure rates of the latest readings, oldest first; `null` where there was no call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) trend: Vec<Option<f32>>,
    /// The limits at which the breaker trips, as far as instances have reported them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Limits>,
}

impl Entry {
    pub(super) fn new(reading: Reading, now: Instant) -> Entry {
        Entry { reading, read_at: now, rates: Rates::default(), trend: VecDeque::new() }
    }

    pub(super) fn update(&mut self, reading: Reading, now: Instant, span: Option<Duration>, settled: bool) {
        if let Some(seconds) = span.map(|span| span.as_secs_f64()).filter(|seconds| *seconds > 0.0) {
            let old = &self.reading;
            // Counts restart at zero with every epoch, and after the store has lost them.
            let continues = old.epoch == reading.epoch && !old.local;
            let more = |new: u64, old: u64| {
                let before = if continues && new >= old { old } else { 0 };
                (new - before) as f64
            };
            let failures = more(reading.failures, old.failures);
            let calls = failures + more(reading.successes, old.successes);
            let reported = |new: u64, old: u64| settled.then(|| new.saturating_sub(old) as f64 / seconds);
            self.rates = Rates {
                calls: calls / seconds,
                failures: failures / seconds,
                rejected: reported(reading.rejected, old.rejected),
                cached: reported(reading.cached, old.cached),
                fallback: reported(reading.fallback, old.fallback),
            };
            if self.trend.len() == TREND {
                self.trend.pop_front();
            }
            self.trend.push_back(self.failure_rate().map(|rate| rate as f32));
        }
        self.reading = reading;
        self.read_at = now;
    }

    fn failure_rate(&self) -> Option<f64> {
        (self.rates.calls > 0.0).then(|| self.rates.failures / self.rates.calls)
    }

    /// The sort key of [`Sort::Worst`]: the smallest comes first. Failure rates count in steps of a tenth, so
    /// that rows do not swap places at every reading.
    pub(super) fn urgency(&self) -> (u8, Reverse<u64>, Reverse<bool>) {
        let rank = match self.reading.state {
            State::Open => 0,
            State::ForcedOpen => 1,
            State::HalfOpen => 2,
            State::MetricsOnly => 3,
            State::Disabled => 4,
            _ => 5,
        };
        let step = (self.failure_rate().unwrap_or(0.0) * 10.0).ceil() as u64;
        (rank, Reverse(step), Reverse(self.reading.consecutive_failures > 0))
    }

    pub(super) fn row(&self, now: Instant, with_trend: bool) -> Row {
        let Reading { retry_after, since, last_failure_at, .. } = &self.reading;
        let elapsed = now.duration_since(self.read_at);
        Row {
            name: self.reading.name.clone(),
            state: self.reading.state,
            epoch: self.reading.epoch,
            failure_count: self.reading.failures,
            success_count: self.reading.successes,
            consecutive_failures: self.reading.consecutive_failures,
            last_failure_time: last_failure_at.map(seconds),
            last_state_change: since.map(seconds),
            reason: self.reading.reason.clone(),
            actor: self.reading.actor.clone(),
            originator: self.reading.originator.clone(),
            retry_after: retry_after.map(|span| span.saturating_sub(elapsed).as_secs_f64()),
            failure_rate: self.failure_rate(),
            per_second: self.rates,
            slow_count: self.reading.slow,
            window: self.reading.window,
            probes: self.reading.probes,
            openings: self.reading.openings,
            leader: self.reading.leader.clone(),
            would_have_opened: self.reading.would_have_opened,
            would_have_opened_at: self.reading.would_have_opened_at.map(seconds),
            isolated: self.reading.isolated.clone(),
            drift: false,
            local: self.reading.local,
            trend: if with_trend { self.trend.iter().copied().collect() } else { Vec::new() },
            limits: None,
        }
    }
}

/// Seconds since 1970, to the millisecond.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    let span = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    span.as_millis() as f64 / 1000.0
}
