//! What a breaker is told: sparse settings in layers ([`BreakerConfig`]), resolved into one full set.
//!
//! Three layers, the later one wins field by field: the registry's defaults, the attribute's
//! arguments (or the argument of `get_or_create`), the operator's `configure`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::error::Error;

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
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct BreakerConfig {
    pub(crate) failure_threshold: Option<u32>,
    pub(crate) failure_rate_threshold: Option<f64>,
    pub(crate) window: Option<Duration>,
    pub(crate) minimum_calls: Option<u32>,
    pub(crate) reset_timeout: Option<Duration>,
    pub(crate) half_open_max_calls: Option<u32>,
    pub(crate) success_threshold: Option<u32>,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) cache_ttl: Option<Duration>,
}

/// The same fields as they are read; it exists so that reading also validates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    failure_threshold: Option<u32>,
    failure_rate_threshold: Option<f64>,
    #[serde(default, deserialize_with = "span")]
    window: Option<Duration>,
    minimum_calls: Option<u32>,
    #[serde(default, deserialize_with = "span")]
    reset_timeout: Option<Duration>,
    half_open_max_calls: Option<u32>,
    success_threshold: Option<u32>,
    #[serde(default, deserialize_with = "span")]
    call_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "span")]
    cache_ttl: Option<Duration>,
}

impl TryFrom<Raw> for BreakerConfig {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self, Error> {
        let Raw {
            failure_threshold,
            failure_rate_threshold,
            window,
            minimum_calls,
            reset_timeout,
            half_open_max_calls,
            success_threshold,
            call_timeout,
            cache_ttl,
        } = raw;
        let config = BreakerConfig {
            failure_threshold,
            failure_rate_threshold,
            window,
            minimum_calls,
            reset_timeout,
            half_open_max_calls,
            success_threshold,
            call_timeout,
            cache_ttl,
        };
        config.validate()?;
        Ok(config)
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

    /// Below so many calls in the window a rate says nothing. Default 10.
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = Some(calls);
        self
    }

    /// Open → half-open after this time. Default 30 s.
    pub fn reset_timeout(mut self, span: Duration) -> Self {
        self.reset_timeout = Some(span);
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
        if let Some(rate) = self.failure_rate_threshold
            && !(rate > 0.0 && rate <= 1.0)
        {
            let hint = if rate > 1.0 && rate <= 100.0 {
                format!("; for {rate} % say {}", rate / 100.0)
            } else {
                String::new()
            };
            return Err(Error::config(
                "failure_rate_threshold",
                format!("{rate} is not a rate; it must be greater than 0 and at most 1{hint}"),
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
        BreakerConfig {
            failure_threshold: self.failure_threshold.or(below.failure_threshold),
            failure_rate_threshold: self.failure_rate_threshold.or(below.failure_rate_threshold),
            window: self.window.or(below.window),
            minimum_calls: self.minimum_calls.or(below.minimum_calls),
            reset_timeout: self.reset_timeout.or(below.reset_timeout),
            half_open_max_calls: self.half_open_max_calls.or(below.half_open_max_calls),
            success_threshold: self.success_threshold.or(below.success_threshold),
            call_timeout: self.call_timeout.or(below.call_timeout),
            cache_ttl: self.cache_ttl.or(below.cache_ttl),
        }
    }

    /// The full set of settings. The layers have been validated one by one; together they are again.
    pub(crate) fn resolve(&self) -> Result<Settings, Error> {
        self.validate()?;
        let rate = self.failure_rate_threshold.map(|threshold| RateRule {
            threshold,
            window: self.window.unwrap_or(Duration::from_secs(60)),
            minimum_calls: u64::from(self.minimum_calls.unwrap_or(10)),
        });
        let failure_threshold = match (self.failure_threshold, &rate) {
            (Some(given), _) => Some(u64::from(given)),
            (None, Some(_)) => None,
            (None, None) => Some(5),
        };
        Ok(Settings {
            failure_threshold,
            rate,
            reset_timeout: self.reset_timeout.unwrap_or(Duration::from_secs(30)),
            half_open_max_calls: self.half_open_max_calls.unwrap_or(3),
            success_threshold: u64::from(self.success_threshold.unwrap_or(3)),
        })
    }
}

/// All settings of one breaker, nothing left open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) failure_threshold: Option<u64>,
    pub(crate) rate: Option<RateRule>,
    pub(crate) reset_timeout: Duration,
    pub(crate) half_open_max_calls: u32,
    pub(crate) success_threshold: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RateRule {
    pub(crate) threshold: f64,
    pub(crate) window: Duration,
    pub(crate) minimum_calls: u64,
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

fn count(field: &'static str, value: Option<u32>) -> Result<(), Error> {
    match value {
        Some(0) => Err(Error::config(field, "0 would never let it act; it must be at least 1")),
        Some(n) if n > MOST_CALLS => {
            Err(Error::config(field, format!("{n} is out of range; it must be at most {MOST_CALLS}")))
        }
        _ => Ok(()),
    }
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
