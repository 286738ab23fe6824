//! The resolved settings of one breaker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::layers::OFF;
use super::{Backoff, BreakerConfig, Written};
use crate::error::Error;
use crate::health::HealthCheck;
use crate::strategy::Strategy;

/// The settings by which a breaker trips and recovers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Consecutive failures.
    pub(crate) failure_threshold: Option<u64>,
    /// The window of the rates and the strategy. `None` without either.
    pub(crate) window: Option<WindowKind>,
    pub(crate) minimum_calls: u64,
    pub(crate) failure_rate: Option<f64>,
    pub(crate) slow: Option<Slow>,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) min_failing_instances: u32,
    pub(crate) reset_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) half_open_max_calls: u32,
    pub(crate) success_threshold: u64,
    /// The share of successes, and the number of probes that it is taken of.
    pub(crate) recovery: Option<(f64, u64)>,
    pub(crate) ramp_up: Option<Duration>,
    pub(crate) health: Option<Health>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowKind {
    Time(Duration),
    Calls(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slow {
    pub(crate) duration: Duration,
    pub(crate) rate: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    pub(crate) check: HealthCheck,
    pub(crate) interval: Duration,
    pub(crate) idle_interval: Option<Duration>,
}

impl BreakerConfig {
    /// Resolves all settings. Each layer has been validated; their combination is validated here.
    pub(crate) fn resolve(&self) -> Result<Settings, Error> {
        self.validate()?;
        let slow =
            self.slow_call_duration.map(|duration| Slow { duration, rate: self.slow_call_rate_threshold });
        if slow.is_none() && self.slow_call_rate_threshold.is_some() {
            return Err(Error::config(
                "slow_call_rate_threshold",
                "needs slow_call_duration, the duration from which a call is slow",
            ));
        }
        let has_window_rule = self.failure_rate_threshold.is_some()
            || self.slow_call_rate_threshold.is_some()
            || self.strategy.is_some();
        let window = match (self.window, self.window_calls) {
            _ if !has_window_rule => None,
            (_, Some(calls)) => Some(WindowKind::Calls(calls)),
            (span, None) => Some(WindowKind::Time(span.unwrap_or(Duration::from_secs(60)))),
        };
        let minimum_calls = self.minimum_calls.unwrap_or(10).min(self.window_calls.unwrap_or(u32::MAX));
        let failure_threshold = self.failure_threshold.or((!has_window_rule).then_some(5)).map(u64::from);
        let half_open_max_calls = self.half_open_max_calls.unwrap_or(3);
        let sample = u64::from(self.success_threshold.unwrap_or(half_open_max_calls));
        Ok(Settings {
            failure_threshold,
            window,
            minimum_calls: u64::from(minimum_calls),
            failure_rate: self.failure_rate_threshold,
            slow,
            strategy: self.strategy.clone(),
            min_failing_instances: self.min_failing_instances.unwrap_or(1),
            reset_timeout: self.reset_timeout.unwrap_or(Duration::from_secs(30)),
            backoff: self.backoff.unwrap_or(Backoff::constant()),
            half_open_max_calls,
            success_threshold: u64::from(self.success_threshold.unwrap_or(3)),
            recovery: self.recovery_rate.map(|rate| (rate, sample)),
            ramp_up: self.ramp_up,
            health: self.health_check.clone().map(|check| Health {
                check,
                interval: self.health_check_interval.unwrap_or(Duration::from_secs(5)),
                idle_interval: self.idle_health_check_interval,
            }),
        })
    }
}

impl Settings {
    /// The values by argument name, in the notation of configuration files.
    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        fn or_off<T: Written>(value: Option<T>) -> String {
            value.map_or_else(|| OFF.into(), |value| value.written())
        }
        let (window, window_calls) = match self.window {
            Some(WindowKind::Time(span)) => (Some(span), None),
            Some(WindowKind::Calls(calls)) => (None, Some(calls)),
            None => (None, None),
        };
        let health = self.health.as_ref();
        let backoff = Some(self.backoff).filter(|backoff| *backoff != Backoff::constant());
        vec![
            ("failure_threshold", or_off(self.failure_threshold)),
            ("failure_rate_threshold", or_off(self.failure_rate)),
            ("window", or_off(window)),
            ("window_calls", or_off(window_calls)),
            ("minimum_calls", self.minimum_calls.to_string()),
            ("slow_call_duration", or_off(self.slow.map(|slow| slow.duration))),
            ("slow_call_rate_threshold", or_off(self.slow.and_then(|slow| slow.rate))),
            ("strategy", or_off(self.strategy.clone())),
            ("min_failing_instances", self.min_failing_instances.to_string()),
            ("reset_timeout", self.reset_timeout.written()),
            ("backoff", or_off(backoff)),
            ("half_open_max_calls", self.half_open_max_calls.to_string()),
            ("success_threshold", self.success_threshold.to_string()),
            ("recovery_rate", or_off(self.recovery.map(|(rate, _)| rate))),
            ("ramp_up", or_off(self.ramp_up)),
            ("health_check", or_off(health.map(|health| health.check.clone()))),
            ("health_check_interval", or_off(health.map(|health| health.interval))),
            ("idle_health_check_interval", or_off(health.and_then(|health| health.idle_interval))),
        ]
    }
}

/// The operator's and the registry's settings that belong to functions: several functions may share a breaker
/// and differ in these.
#[derive(Debug, Default)]
pub(crate) struct PerFunction {
    pub(crate) call_timeout: Choice,
    pub(crate) cache_ttl: Choice,
}

/// The layers above and below a function's own setting. Calls read them while a reload writes them; either
/// value is valid.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    operator: AtomicSpan,
    default: AtomicSpan,
}

impl Choice {
    fn new(operator: Option<Duration>, default: Option<Duration>) -> Self {
        Choice { operator: AtomicSpan::new(operator), default: AtomicSpan::new(default) }
    }

    #[inline]
    pub(crate) fn pick(&self, given: Option<Duration>) -> Option<Duration> {
        self.operator.get().or(given).or_else(|| self.default.get())
    }

    fn take_over(&self, other: &Choice) {
        self.operator.set(other.operator.get());
        self.default.set(other.default.get());
    }
}

impl PerFunction {
    pub(crate) fn new(operator: &BreakerConfig, defaults: &BreakerConfig) -> Self {
        PerFunction {
            call_timeout: Choice::new(operator.call_timeout, defaults.call_timeout),
            cache_ttl: Choice::new(operator.cache_ttl, defaults.cache_ttl),
        }
    }

    /// Takes the values of `other`.
    pub(crate) fn take_over(&self, other: &PerFunction) {
        self.call_timeout.take_over(&other.call_timeout);
        self.cache_ttl.take_over(&other.cache_ttl);
    }
}

/// A duration in nanoseconds (up to five centuries). 0 means none, because no setting may be 0.
#[derive(Debug, Default)]
struct AtomicSpan(AtomicU64);

impl AtomicSpan {
    fn new(span: Option<Duration>) -> Self {
        let new = AtomicSpan::default();
        new.set(span);
        new
    }

    #[inline]
    fn get(&self) -> Option<Duration> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    fn set(&self, span: Option<Duration>) {
        let nanos = span.map_or(0, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
        self.0.store(nanos, Ordering::Relaxed);
    }
}
