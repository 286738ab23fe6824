//! What a breaker is told: sparse settings in layers ([`BreakerConfig`]), resolved into one full set.
//!
//! Three layers, the later one wins field by field: the registry's defaults, the attribute's
//! arguments (or the argument of `get_or_create`), the operator's word (`configure`, a file, the environment).

mod backoff;
pub(crate) mod drift;
mod layers;
mod registry;
mod settings;
#[cfg(feature = "config")]
mod source;

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::error::Error;
use crate::health::{HealthCheck, Healthy};
use crate::store::{MAX_FAILING, MAX_LAST};
use crate::strategy::{Strategy, TripStrategy};
pub use backoff::Backoff;
pub(crate) use layers::{Code, Layers};
pub use registry::RegistryConfig;
pub(crate) use settings::{Health, PerFunction, Settings, WindowKind};

/// Declares [`BreakerConfig`] and what has to go through all of its fields.
macro_rules! settings {
    ($(#[$doc:meta])* pub struct BreakerConfig { $($(#[$read:meta])* $name:ident: $type:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(try_from = "Raw")]
        pub struct BreakerConfig {
            $(pub(crate) $name: Option<$type>,)+
        }

        /// The same fields as they are read; it exists so that reading also validates.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            $($(#[$read])* $name: Option<$type>,)+
        }

        impl TryFrom<Raw> for BreakerConfig {
            type Error = Error;

            fn try_from(raw: Raw) -> Result<Self, Error> {
                let config = BreakerConfig { $($name: raw.$name,)+ };
                config.validate()?;
                Ok(config)
            }
        }

        impl BreakerConfig {
            /// The fields' names, in order.
            #[cfg(feature = "config")]
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// A layer of this one setting; an error says what is wrong with the value.
            #[cfg(feature = "config")]
            fn of_one(name: &str, value: serde_json::Value) -> Result<BreakerConfig, String> {
                let raw = Raw::deserialize(serde_json::json!({ name: value })).map_err(|e| e.to_string())?;
                BreakerConfig::try_from(raw).map_err(|error| error.problem())
            }

            /// These settings without that one; `None` if it is not given.
            fn without(&self, name: &str) -> Option<BreakerConfig> {
                let mut rest = self.clone();
                let removed = match name {
                    $(stringify!($name) => rest.$name.take().is_some(),)+
                    _ => false,
                };
                removed.then_some(rest)
            }

            fn or(self, below: BreakerConfig) -> BreakerConfig {
                BreakerConfig { $($name: self.$name.or(below.$name),)+ }
            }

            /// What is given, by name, as people write it.
            pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
                let all = [$((stringify!($name), self.$name.as_ref().map(Written::written)),)+];
                all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }
        }
    };
}

settings! {
    /// A breaker's settings, as far as they are given. What is not given comes from the layer below.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cb_runtime::BreakerConfig;
    ///
    /// let config = BreakerConfig::default()
    ///     .failure_rate_threshold(0.5)
    ///     .window(Duration::from_secs(60))
    ///     .reset_timeout(Duration::from_secs(10));
    /// config.validate()?;
    ///
    /// // The same from a file, an environment, anything that `serde` reads. Spans are texts
    /// // such as "500ms" or "1m 30s", or numbers of seconds.
    /// let same: BreakerConfig = serde_json::from_str(
    ///     r#"{"failure_rate_threshold": 0.5, "window": "1m", "reset_timeout": 10}"#)?;
    /// assert_eq!(config, same);
    ///
    /// let wrong = serde_json::from_str::<BreakerConfig>(r#"{"failure_rate_threshold": 40}"#);
    /// assert!(wrong.unwrap_err().to_string().starts_with("failure_rate_threshold: "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct BreakerConfig {
        failure_threshold: u32,
        failure_rate_threshold: f64,
        #[serde(default, deserialize_with = "span")]
        window: Duration,
        window_calls: u32,
        minimum_calls: u32,
        #[serde(default, deserialize_with = "span")]
        slow_call_duration: Duration,
        slow_call_rate_threshold: f64,
        #[serde(skip)]
        strategy: Strategy,
        min_failing_instances: u32,
        #[serde(default, deserialize_with = "span")]
        reset_timeout: Duration,
        backoff: Backoff,
        half_open_max_calls: u32,
        success_threshold: u32,
        recovery_rate: f64,
        #[serde(default, deserialize_with = "span")]
        ramp_up: Duration,
        #[serde(skip)]
        health_check: HealthCheck,
        #[serde(default, deserialize_with = "span")]
        health_check_interval: Duration,
        #[serde(default, deserialize_with = "span")]
        idle_health_check_interval: Duration,
        #[serde(default, deserialize_with = "span")]
        call_timeout: Duration,
        #[serde(default, deserialize_with = "span")]
        cache_ttl: Duration,
    }
}

/// A value as people write it.
trait Written {
    fn written(&self) -> String;
}

macro_rules! written_as_displayed {
    ($($type:ty)+) => { $(impl Written for $type {
        fn written(&self) -> String {
            self.to_string()
        }
    })+ };
}

written_as_displayed!(u32 u64 f64 Strategy HealthCheck Backoff);

impl Written for Duration {
    fn written(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

/// The longest span that any setting may have: ten years. Longer ones are mistakes of unit.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Shorter windows could not be told from the time between two exchanges.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// What a run of failures may be asked to reach.
const MOST_CALLS: u32 = 1_000_000;

impl BreakerConfig {
    /// Opens after so many failures in a row, counted over the whole fleet. Default 5, or off
    /// if a rate is given and this is not.
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = Some(failures);
        self
    }

    /// Opens when at least this share of the calls in the `window` has failed, in (0, 1]. Off by default.
    pub fn failure_rate_threshold(mut self, rate: f64) -> Self {
        self.failure_rate_threshold = Some(rate);
        self
    }

    /// The span that `failure_rate_threshold` looks back over. Default 60 s; kept in 60 buckets, so
    /// a call leaves it at most a sixtieth late.
    pub fn window(mut self, span: Duration) -> Self {
        self.window = Some(span);
        self
    }

    /// The rates and the strategy look at the last so many calls instead of a span of time: at most 10,000. Exact
    /// inside an instance; of several, the calls stand in the order in which the instances have told of them.
    pub fn window_calls(mut self, calls: u32) -> Self {
        self.window_calls = Some(calls);
        self
    }

    /// Below so many calls in the window a rate says nothing. Default 10, or `window_calls` if that is less; what a lower
    /// layer says is no more than an upper one's `window_calls`, either.
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = Some(calls);
        self
    }

    /// Calls that take longer are slow, whether they succeed or fail. Off by default: durations are measured only where
    /// this is given.
    pub fn slow_call_duration(mut self, span: Duration) -> Self {
        self.slow_call_duration = Some(span);
        self
    }

    /// Opens when at least this share of the calls in the window was slow, in (0, 1]; and so does a half-open circuit whose
    /// probes succeed, but so slowly. Needs `slow_call_duration`. Off by default.
    pub fn slow_call_rate_threshold(mut self, rate: f64) -> Self {
        self.slow_call_rate_threshold = Some(rate);
        self
    }

    /// A rule of your own over the window's counts, beside the others: any of them trips. Not readable from a file.
    pub fn strategy(mut self, strategy: impl TripStrategy) -> Self {
        self.strategy = Some(Strategy::new(strategy));
        self
    }

    /// The fleet opens only if failures come from at least so many instances. One that is alone with its failures opens for
    /// itself, and leaves the fleet alone. Successes are no failures, however slow: by those, each opens for itself. Default 1; at
    /// most 32.
    pub fn min_failing_instances(mut self, instances: u32) -> Self {
        self.min_failing_instances = Some(instances);
        self
    }

    /// Open → half-open after this time. Default 30 s.
    pub fn reset_timeout(mut self, span: Duration) -> Self {
        self.reset_timeout = Some(span);
        self
    }

    /// How `reset_timeout` grows while the circuit opens again and again without having been closed. Default: not at all.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// So many probes may be under way at once while half-open, fleet-wide. Default 3.
    pub fn half_open_max_calls(mut self, calls: u32) -> Self {
        self.half_open_max_calls = Some(calls);
        self
    }

    /// So many successful probes close the circuit. Default 3.
    pub fn success_threshold(mut self, successes: u32) -> Self {
        self.success_threshold = Some(successes);
        self
    }

    /// Judges the probes of a half-open state by their share of successes, in (0, 1], when `success_threshold` of them have
    /// ended (`half_open_max_calls` if that is not given): at least this share closes the circuit, less opens it
    /// again. Off by default: the first failure opens it.
    pub fn recovery_rate(mut self, rate: f64) -> Self {
        self.recovery_rate = Some(rate);
        self
    }

    /// For so long after it has recovered, a closed circuit admits only a part of the calls, growing evenly from a tenth to
    /// all. A trip in that time opens it with the next step of the `backoff`. Off by default.
    pub fn ramp_up(mut self, span: Duration) -> Self {
        self.ramp_up = Some(span);
        self
    }

    /// An async function that finds out whether the dependency works again, in place of probes by live traffic. While the
    /// circuit is open, one instance of the fleet runs it, and the first pass closes the circuit. It returns `bool`, `()` or
    /// a `Result`. Not readable from a file.
    ///
    /// It runs on threads and a tokio runtime that only health checks use, and may take as long as
    /// `health_check_interval`, but at least 100 ms and at most 10 s: then it has failed, and is dropped. A panic has failed, too. One that blocks
    /// its thread keeps it; while three of one breaker do, further ones count as failed without being made.
    pub fn health_check<F, C>(mut self, check: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output: Healthy> + Send + 'static,
    {
        self.health_check = Some(HealthCheck::new(check));
        self
    }

    /// From opening to the first health check, and from one to the next. Default 5 s. After failed checks in a row it grows
    /// by the [`backoff`](Self::backoff).
    pub fn health_check_interval(mut self, span: Duration) -> Self {
        self.health_check_interval = Some(span);
        self
    }

    /// Health checks are made at this interval while the circuit is closed, too; one that fails opens it. Off by default.
    ///
    /// It makes every instance ask after the role of making them, about once a second, even if nothing is called.
    pub fn idle_health_check_interval(mut self, span: Duration) -> Self {
        self.idle_health_check_interval = Some(span);
        self
    }

    /// A call that takes longer is cancelled and counts as a failure. Off by default.
    pub fn call_timeout(mut self, span: Duration) -> Self {
        self.call_timeout = Some(span);
        self
    }

    /// For so long a success may answer later failures (stale-if-error as in RFC 5861, never memoization). Off by default.
    pub fn cache_ttl(mut self, span: Duration) -> Self {
        self.cache_ttl = Some(span);
        self
    }

    /// Checks every given value, and that they do not contradict each other.
    ///
    /// # Errors
    /// Names the first field that is wrong, what it is, and what would be right.
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

    /// Says something about the breaker, and not just about one function's calls.
    pub(crate) fn is_about_the_breaker(&self) -> bool {
        let for_one_function = BreakerConfig {
            call_timeout: self.call_timeout,
            cache_ttl: self.cache_ttl,
            ..BreakerConfig::default()
        };
        *self != for_one_function
    }

    /// This layer over `below`: what is not given here is taken from there.
    pub(crate) fn over(&self, below: &BreakerConfig) -> BreakerConfig {
        let mut below = below.clone();
        // They are two forms of the same thing.
        if self.window.is_some() || self.window_calls.is_some() {
            (below.window, below.window_calls) = (None, None);
        }
        // What was meant for a longer window: as what is built in, it is no more than this one holds.
        if let Some(calls) = self.window_calls {
            below.minimum_calls = below.minimum_calls.map(|minimum| minimum.min(calls));
        }
        self.clone().or(below)
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

/// A span of time as people write it: a number of seconds, or a text with units.
fn span<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Span {
        Seconds(f64),
        Text(String),
    }
    let wrong = |text: &str| {
        serde::de::Error::custom(format!(
            "{text} is not a span of time; write seconds (30) or units (\"1m 30s\", \"250ms\")"
        ))
    };
    match Option::<Span>::deserialize(input)? {
        None => Ok(None),
        Some(Span::Seconds(seconds)) => {
            Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| wrong(&seconds.to_string()))
        }
        Some(Span::Text(text)) => match text.trim().parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| wrong(&text)),
            Err(_) => humantime::parse_duration(&text).map(Some).map_err(|_| wrong(&format!("\"{text}\""))),
        },
    }
}
