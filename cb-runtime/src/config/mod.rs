//! A breaker's settings: sparse layers ([`BreakerConfig`]), resolved into one full set.
//!
//! There are three layers. Field by field, the last one takes precedence: the registry's defaults, the
//! attribute's arguments (or that of `get_or_create`), and the operator's settings (`configure`, a file, the
//! environment).

mod backoff;
mod cache_limits;
pub(crate) mod drift;
pub(crate) mod environment;
mod layers;
mod registry;
mod settings;
#[cfg(feature = "config")]
mod source;
mod validation;

use std::future::Future;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::error::Error;
use crate::health::{HealthCheck, Healthy};
use crate::strategy::{Strategy, TripStrategy};
pub use backoff::Backoff;
pub use cache_limits::CacheLimits;
pub(crate) use layers::{Code, Layers};
pub use registry::RegistryConfig;
pub(crate) use settings::{Health, PerFunction, Settings, WindowKind};

/// Declares [`BreakerConfig`], its setters, and the functions over all of its fields.
macro_rules! settings {
    // What only code can provide has a setter of its own.
    (@setter [skip] [] $name:ident $type:ty) => {};
    (@setter [$($read:tt)*] [$(#[$help:meta])*] $name:ident $type:ty) => {
        $(#[$help])*
        pub fn $name(mut self, value: $type) -> Self {
            self.$name = Some(value);
            self
        }
    };
    ($(#[$doc:meta])* pub struct BreakerConfig {
        $($(#[doc = $help:literal])* $(#[serde($($read:tt)*)])? $name:ident: $type:ty,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct BreakerConfig {
            $(pub(crate) $name: Option<$type>,)+
        }

        /// The fields as deserialized, before validation.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            $($(#[serde($($read)*)])? $name: Option<$type>,)+
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
            $(settings!(@setter [$($($read)*)?] [$(#[doc = $help])*] $name $type);)+

            /// The fields' names, in order.
            #[cfg(feature = "config")]
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// A layer with only this setting. The error describes what is wrong with the value.
            #[cfg(feature = "config")]
            fn of_one(name: &str, value: serde_json::Value) -> Result<BreakerConfig, String> {
                let raw = Raw::deserialize(serde_json::json!({ name: value })).map_err(|e| e.to_string())?;
                BreakerConfig::try_from(raw).map_err(|error| error.problem())
            }

            /// The settings without this one; `None` if it is not set.
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

            /// The settings that are set, by name and in the notation of configuration files.
            pub(crate) fn given(&self) -> Vec<(&'static str, String)> {
                let all = [$((stringify!($name), self.$name.as_ref().map(Written::written)),)+];
                all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }
        }
    };
}

settings! {
    /// A layer of a breaker's settings. Settings that are not set come from the layer below.
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
    /// // `serde` reads it from a file, the environment, or another source. Durations are strings such as
    /// // "500ms" or "1m 30s", or numbers of seconds.
    /// let same: BreakerConfig = serde_json::from_str(
    ///     r#"{"failure_rate_threshold": 0.5, "window": "1m", "reset_timeout": 10}"#)?;
    /// assert_eq!(config, same);
    ///
    /// let wrong = serde_json::from_str::<BreakerConfig>(r#"{"failure_rate_threshold": 40}"#);
    /// assert!(wrong.unwrap_err().to_string().starts_with("failure_rate_threshold: "));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct BreakerConfig {
        /// Opens after this many consecutive failures, counted fleet-wide. Default: 5, or off if only a rate
        /// or a strategy is set.
        failure_threshold: u32,
        /// Opens when at least this share, in (0, 1], of the calls in the window failed. Default: off.
        failure_rate_threshold: f64,
        /// The time window of the rates and the strategy. Default: 60 s. It has ten buckets, so a call leaves
        /// the window at most a tenth of its length late; with a strategy, it has 60.
        #[serde(default, deserialize_with = "span")]
        window: Duration,
        /// The count window of the rates and the strategy: the last N calls, at most 10,000, instead of a
        /// time window. The order of calls is exact within an instance; calls of several instances are in the
        /// order in which they were reported.
        window_calls: u32,
        /// Rates are evaluated only once the window holds this many calls. Default: 10, or `window_calls` if
        /// that is less. A lower layer's value is limited to an upper layer's `window_calls`, too.
        minimum_calls: u32,
        /// Calls that take longer are slow, whether they succeed or fail. Default: off. Durations are
        /// measured only if this is set.
        #[serde(default, deserialize_with = "span")]
        slow_call_duration: Duration,
        /// Opens when at least this share, in (0, 1], of the calls in the window was slow. It also applies to
        /// the probes of a half-open circuit. Needs `slow_call_duration`. Default: off.
        slow_call_rate_threshold: f64,
        #[serde(skip)]
        strategy: Strategy,
        /// The fleet opens only if failures come from at least this many nodes (see
        /// [`node`](crate::RegistryBuilder::node)). An instance that alone sees failures opens only its own
        /// breaker. Its failed probes count toward the quorum; slow successes do not, and each instance opens
        /// on them locally. Default: 1; at most 32.
        min_failing_instances: u32,
        /// The time from open to half-open. Default: 30 s.
        #[serde(default, deserialize_with = "span")]
        reset_timeout: Duration,
        /// The growth of `reset_timeout` over consecutive openings. Default: none.
        backoff: Backoff,
        /// The number of concurrent probes while half-open, fleet-wide. Default: 3.
        half_open_max_calls: u32,
        /// The number of successful probes that close the circuit. Default: 3.
        success_threshold: u32,
        /// Closes the circuit if at least this share, in (0, 1], of its probes succeeds, and opens it again
        /// otherwise. The share is evaluated once `success_threshold` probes have ended
        /// (`half_open_max_calls` if that is not set). Default: off; the first failed probe opens the
        /// circuit.
        recovery_rate: f64,
        /// The time after a recovery in which the closed circuit admits a share of the calls that grows
        /// evenly from a tenth to all. A trip in that time uses the next step of the `backoff`. Default: off.
        #[serde(default, deserialize_with = "span")]
        ramp_up: Duration,
        #[serde(skip)]
        health_check: HealthCheck,
        /// The time from the opening to the first health check, and between checks. Default: 5 s. It grows
        /// over consecutive failed checks by the [`backoff`](Self::backoff).
        #[serde(default, deserialize_with = "span")]
        health_check_interval: Duration,
        /// The interval of health checks while the circuit is closed. A failed one opens the circuit.
        /// Default: off.
        ///
        /// With it, every instance asks for the leader lease about once a second, even without calls.
        #[serde(default, deserialize_with = "span")]
        idle_health_check_interval: Duration,
        /// A call that takes longer is cancelled and counts as a failure. Default: off.
        #[serde(default, deserialize_with = "span")]
        call_timeout: Duration,
        /// How long a success may answer later failures (stale-if-error, RFC 5861; not memoization). Default:
        /// off.
        #[serde(default, deserialize_with = "span")]
        cache_ttl: Duration,
    }
}

impl<'de> Deserialize<'de> for BreakerConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        // The error of a value of another type names its field, as that of an invalid one does.
        let raw: Raw = serde_path_to_error::deserialize(input).map_err(D::Error::custom)?;
        raw.try_into().map_err(D::Error::custom)
    }
}

/// A value in the notation of configuration files.
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

impl BreakerConfig {
    /// A custom rule over the window's counts. Any of several rules trips. It cannot be set in a file.
    pub fn strategy(mut self, strategy: impl TripStrategy) -> Self {
        self.strategy = Some(Strategy::new(strategy));
        self
    }

    /// An async function that checks the dependency, instead of probes by live traffic. While the circuit is
    /// open, one instance of the fleet runs it, and the first pass closes the circuit. It returns `bool`,
    /// `()` or a `Result`, of which [every `Ok` has passed](Healthy). It cannot be set in a file.
    ///
    /// It runs on threads and a tokio runtime for health checks only. Its timeout is `health_check_interval`,
    /// but at least 100 ms and at most 10 s. A check that takes longer or panics has failed, and is dropped.
    /// A check that blocks its thread keeps it; while three checks of one breaker are blocked, further ones
    /// fail at once.
    pub fn health_check<F, C>(mut self, check: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output: Healthy> + Send + 'static,
    {
        self.health_check = Some(HealthCheck::new(check));
        self
    }

    /// These settings without those that are invalid, and an error for each of these.
    pub(crate) fn valid_part(mut self) -> (BreakerConfig, Vec<Error>) {
        let mut errors = Vec::new();
        while let Err(error) = self.validate() {
            self = error.field().and_then(|field| self.without(field)).unwrap_or_default();
            errors.push(error);
        }
        (self, errors)
    }

    /// Whether the layer sets more than the settings of one function.
    pub(crate) fn is_about_the_breaker(&self) -> bool {
        let for_one_function = BreakerConfig {
            call_timeout: self.call_timeout,
            cache_ttl: self.cache_ttl,
            ..BreakerConfig::default()
        };
        *self != for_one_function
    }

    /// This layer over `below`: settings that are not set here are taken from there.
    pub(crate) fn over(&self, below: &BreakerConfig) -> BreakerConfig {
        let mut below = below.clone();
        // Both are the window, so either replaces both.
        if self.window.is_some() || self.window_calls.is_some() {
            (below.window, below.window_calls) = (None, None);
        }
        // Like the built-in value, a lower layer's value is limited to what the window holds.
        if let Some(calls) = self.window_calls {
            below.minimum_calls = below.minimum_calls.map(|minimum| minimum.min(calls));
        }
        self.clone().or(below)
    }
}

/// Reads a duration: a number of seconds, or a string with units.
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
