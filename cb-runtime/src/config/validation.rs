//! The limits of single settings, and the combinations that contradict each other.

use std::time::Duration;

use super::BreakerConfig;
use crate::error::Error;
use crate::store::{MAX_FAILING, MAX_LAST};

/// The longest duration of any setting: ten years. A longer one has the wrong unit.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The shortest window. A shorter one would not exceed the time between two exchanges.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// The largest number of calls in a setting.
const MOST_CALLS: u32 = 1_000_000;

impl BreakerConfig {
    /// Checks that every value is valid and that none contradicts another.
    ///
    /// # Errors
    /// If a value is invalid. The error names the field, the value, and a valid one.
    pub fn validate(&self) -> Result<(), Error> {
        count("failure_threshold", self.failure_threshold)?;
        count("minimum_calls", self.minimum_calls)?;
        count("half_open_max_calls", self.half_open_max_calls)?;
        count("success_threshold", self.success_threshold)?;
        positive("window", self.window, SHORTEST_WINDOW)?;
        positive("reset_timeout", self.reset_timeout, Duration::from_millis(1))?;
        positive("call_timeout", self.call_timeout, Duration::from_micros(1))?;
        positive("cache_ttl", self.cache_ttl, Duration::from_millis(1))?;
        positive("slow_call_duration", self.slow_call_duration, Duration::from_micros(1))?;
        positive("ramp_up", self.ramp_up, SHORTEST_WINDOW)?;
        positive("health_check_interval", self.health_check_interval, Duration::from_millis(10))?;
        positive("idle_health_check_interval", self.idle_health_check_interval, Duration::from_millis(10))?;
        rate("failure_rate_threshold", self.failure_rate_threshold)?;
        rate("slow_call_rate_threshold", self.slow_call_rate_threshold)?;
        rate("recovery_rate", self.recovery_rate)?;
        if let Some(backoff) = &self.backoff {
            backoff.validate()?;
        }
        at_most("window_calls", self.window_calls, MAX_LAST)?;
        #[allow(clippy::cast_possible_truncation, reason = "32")]
        at_most("min_failing_instances", self.min_failing_instances, MAX_FAILING as u32)?;
        if let (Some(window), Some(calls)) = (self.window, self.window_calls) {
            return Err(Error::config(
                "window_calls",
                format!(
                    "{calls} calls, and window = {window:?}: the window is either a span of time or a number of calls; give one"
                ),
            ));
        }
        if let (Some(minimum), Some(calls)) = (self.minimum_calls, self.window_calls)
            && minimum > calls
        {
            return Err(Error::config(
                "minimum_calls",
                format!("{minimum} is more than the window ever holds (window_calls = {calls})"),
            ));
        }
        Ok(())
    }
}

fn count(field: &'static str, value: Option<u32>) -> Result<(), Error> {
    match value {
        Some(0) => Err(Error::config(field, "0 would never let it act; it must be at least 1")),
        Some(n) if n > MOST_CALLS => {
            Err(Error::config(field, format!("{n} is out of range; it must be at most {MOST_CALLS}")))
        }
        _ => Ok(()),
    }
}

fn at_most(field: &'static str, value: Option<u32>, most: u32) -> Result<(), Error> {
    count(field, value)?;
    match value {
        Some(n) if n > most => {
            Err(Error::config(field, format!("{n} is out of range; it must be at most {most}")))
        }
        _ => Ok(()),
    }
}

fn rate(field: &'static str, value: Option<f64>) -> Result<(), Error> {
    let Some(rate) = value.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) else { return Ok(()) };
    let hint = if rate > 1.0 && rate <= 100.0 {
        format!("; for {rate} % say {}", rate / 100.0)
    } else {
        String::new()
    };
    let problem = format!("{rate} is not a rate; it must be greater than 0 and at most 1{hint}");
    Err(Error::config(field, problem))
}

fn positive(field: &'static str, value: Option<Duration>, least: Duration) -> Result<(), Error> {
    match value {
        Some(span) if span.is_zero() => {
            Err(Error::config(field, "0 is not a span of time; it must be longer"))
        }
        Some(span) if span < least => {
            Err(Error::config(field, format!("{span:?} is too short; it must be at least {least:?}")))
        }
        Some(span) if span > LONGEST => {
            Err(Error::config(field, format!("{span:?} is longer than ten years; is the unit right?")))
        }
        _ => Ok(()),
    }
}
