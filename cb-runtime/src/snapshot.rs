//! What a breaker looks like at one moment.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::serial;

/// The state of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// Calls are made, outcomes are counted.
    Closed = 0,
    /// Calls are rejected until `reset_timeout` has elapsed.
    Open = 1,
    /// A few calls are made as probes, all others are rejected.
    HalfOpen = 2,
    /// Manual override: calls are rejected until it is released.
    ForcedOpen = 3,
    /// Manual override: calls are made, nothing is counted.
    Disabled = 4,
    /// Manual override: calls are made and counted, none is rejected.
    MetricsOnly = 5,
}

impl State {
    /// All states, for exporting a gauge per state.
    pub const ALL: [State; 6] =
        [State::Closed, State::Open, State::HalfOpen, State::ForcedOpen, State::Disabled, State::MetricsOnly];

    /// The state's name in Redis, in metrics and in logs: `"half-open"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half-open",
            State::ForcedOpen => "forced-open",
            State::Disabled => "disabled",
            State::MetricsOnly => "metrics-only",
        }
    }

    /// Whether an operator has set it. Only an operator, or its expiry, ends such a state.
    pub const fn is_manual(self) -> bool {
        matches!(self, State::ForcedOpen | State::Disabled | State::MetricsOnly)
    }

    /// Whether all calls are made.
    pub const fn admits(self) -> bool {
        matches!(self, State::Closed | State::Disabled | State::MetricsOnly)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = ParseStateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        State::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| ParseStateError(text.chars().take(40).collect()))
    }
}

/// A text that names no [`State`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseStateError(String);

impl fmt::Display for ParseStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is no state; there are closed, open, half-open, forced-open, disabled, metrics-only",
            self.0.escape_default()
        )
    }
}

impl std::error::Error for ParseStateError {}

/// A breaker at one moment, as this instance knows it; taken from memory, without I/O.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The breaker's name.
    pub name: String,
    /// The state that calls meet here and now.
    pub state: State,
    /// The fleet's number for the state: grows by one at every change. While `local` is true, that
    /// of the last state which the store confirmed.
    pub epoch: u64,
    /// Whether only this instance is in this state, because the store has not confirmed it (yet).
    pub local: bool,
    /// When this state began, by the store's clock; `None` if the breaker has never left its first state, closed.
    #[serde(serialize_with = "serial::option_time")]
    pub since: Option<SystemTime>,
    /// When the circuit opened last, as far as this instance has seen it open.
    #[serde(serialize_with = "serial::option_time")]
    pub opened_at: Option<SystemTime>,
    /// When a call of this instance failed last; the fleet's is [`FleetBreaker::last_failure_at`].
    #[serde(serialize_with = "serial::option_time")]
    pub last_failure_at: Option<SystemTime>,
    /// Why it came to this state; empty if it has never left its first state.
    pub reason: String,
    /// Who ordered this state, if a person did and [said so](crate::Breaker::by).
    pub actor: String,
    /// Until a probe or the next health check may be made (open), or until a manual override expires.
    #[serde(serialize_with = "serial::option_span")]
    pub retry_after: Option<Duration>,
    /// Failures of this epoch: the fleet's at the last exchange, and this instance's since.
    pub failures: u64,
    /// Successes of this epoch, likewise.
    pub successes: u64,
    /// Failures since the latest success, likewise.
    pub consecutive_failures: u64,
    /// The window's calls, failures and rates, if the breaker judges by a window.
    pub window: Option<WindowSnapshot>,
    /// The outcomes of this instance's own calls since it started.
    pub outcomes: Outcomes,
    /// Every setting, with its value and where that comes from.
    pub settings: Vec<Setting>,
}

/// One setting of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// By the name of its attribute argument.
    pub name: &'static str,
    /// As in a file: `"5"`, `"1m 30s"`; `"off"` if it is not given and has no default.
    pub value: String,
    /// Which layer it comes from.
    pub origin: Origin,
}

/// Where a setting's value comes from; each takes precedence over those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// The operator's settings of this breaker: a file, the environment,
    /// [`configure`](crate::RegistryBuilder::configure).
    Operator,
    /// The attribute, or what was given to [`get_or_create`](crate::Registry::get_or_create).
    Attribute,
    /// The registry's defaults, from a file, the environment or [the builder](crate::RegistryBuilder::defaults).
    Defaults,
    /// No layer gives it.
    BuiltIn,
}

/// The counts of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WindowSnapshot {
    /// Calls with a result, in the window.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// `failures / calls`; 0 if there were no calls.
    pub failure_rate: f64,
    /// How many of them took longer than `slow_call_duration`, whether they failed or not.
    pub slow: u64,
    /// `slow / calls`; 0 if there were no calls.
    pub slow_rate: f64,
}

/// Calls by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Outcomes {
    /// Returned what counts as a success.
    pub success: u64,
    /// Returned what counts as a failure, panicked, or timed out.
    pub failure: u64,
    /// How many of the successes and failures took longer than `slow_call_duration`.
    pub slow: u64,
    /// Returned an error that `is_failure` does not count as a failure: neither a success nor a failure.
    pub ignored: u64,
    /// Dropped before they ended.
    pub cancelled: u64,
    /// Ended after the circuit had changed its state; counted nowhere else.
    pub late: u64,
    /// Not made: the circuit did not admit them.
    pub rejected: u64,
    /// Not made: the circuit is closed, but has just recovered and admits only a part of the calls (`ramp_up`).
    pub ramp_rejected: u64,
}

/// A registry's connection to its store, as [`Registry::store_status`](crate::Registry::store_status) tells it from memory.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StoreStatus {
    /// There is no shared store: state lives in this process alone.
    InMemory,
    /// The store has not been asked yet.
    Connecting,
    /// The store answers.
    Connected {
        /// Since when.
        #[serde(serialize_with = "serial::time")]
        since: SystemTime,
    },
    /// The store does not answer; this instance decides by itself.
    Lost {
        /// Since when.
        #[serde(serialize_with = "serial::time")]
        since: SystemTime,
        /// Why the latest attempt failed.
        error: Error,
    },
}

impl StoreStatus {
    /// Whether calls are judged by what the fleet shares (or, in memory, by all there is).
    pub fn is_up(&self) -> bool {
        matches!(self, StoreStatus::InMemory | StoreStatus::Connected { .. })
    }
}

/// A breaker as the store has it, for the whole fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FleetBreaker {
    /// The breaker's name.
    pub name: String,
    /// The fleet's state.
    pub state: State,
    /// Grows by one at every change of state.
    pub epoch: u64,
    /// Why it came to this state.
    pub reason: String,
    /// Who ordered it, if a person did and said so.
    pub actor: String,
    /// The instance that brought it there.
    pub originator: String,
    /// Until a probe or the first health check may be made (open), or until a state held by hand expires.
    pub retry_after: Option<Duration>,
    /// Failures of this epoch, fleet-wide.
    pub failures: u64,
    /// Successes of this epoch, fleet-wide.
    pub successes: u64,
    /// Failures since the latest success, fleet-wide.
    pub consecutive_failures: u64,
}
