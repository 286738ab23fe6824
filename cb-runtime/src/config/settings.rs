//! All settings of one breaker, nothing left open.

use std::time::Duration;

use super::{Backoff, BreakerConfig};
use crate::error::Error;
use crate::health::HealthCheck;
use crate::strategy::Strategy;

/// What a breaker judges and recovers by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Failures in a row.
    pub(crate) failure_threshold: Option<u64>,
    /// What the rates and the strategy look at; `None` where there are none of them.
    pub(crate) window: Option<Window>,
    pub(crate) minimum_calls: u64,
    pub(crate) failure_rate: Option<f64>,
    pub(crate) slow: Option<Slow>,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) min_failing_instances: u32,
    pub(crate) reset_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) half_open_max_calls: u32,
    pub(crate) success_threshold: u64,
    /// Share of successes, and of how many probes.
    pub(crate) recovery: Option<(f64, u64)>,
    pub(crate) ramp_up: Option<Duration>,
    pub(crate) health: Option<Health>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
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
    /// The full set of settings. The layers have been validated one by one; together they are again.
    pub(crate) fn resolve(&self) -> Result<Settings, Error> {
        self.validate()?;
        let slow =
            self.slow_call_duration.map(|duration| Slow { duration, rate: self.slow_call_rate_threshold });
        if slow.is_none() && self.slow_call_rate_threshold.is_some() {
            return Err(Error::config(
                "slow_call_rate_threshold",
                "means nothing without slow_call_duration: from how long on is a call slow?",
            ));
        }
        let has_window_rule = self.failure_rate_threshold.is_some()
            || self.slow_call_rate_threshold.is_some()
            || self.strategy.is_some();
        let window = match (self.window, self.window_calls) {
            _ if !has_window_rule => None,
            (_, Some(calls)) => Some(Window::Calls(calls)),
            (span, None) => Some(Window::Time(span.unwrap_or(Duration::from_secs(60)))),
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

/// Settings that belong to a function rather than to its breaker, because two functions may share
/// one: what the operator and the registry's defaults say about them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PerFunction {
    pub(crate) call_timeout: Choice,
    pub(crate) cache_ttl: Choice,
}

/// What stands above and below the function's own word.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Choice {
    operator: Option<Duration>,
    default: Option<Duration>,
}

impl Choice {
    #[inline]
    pub(crate) fn pick(&self, given: Option<Duration>) -> Option<Duration> {
        self.operator.or(given).or(self.default)
    }
}

impl PerFunction {
    pub(crate) fn new(operator: &BreakerConfig, defaults: &BreakerConfig) -> Self {
        PerFunction {
            call_timeout: Choice { operator: operator.call_timeout, default: defaults.call_timeout },
            cache_ttl: Choice { operator: operator.cache_ttl, default: defaults.cache_ttl },
        }
    }
}
