//! The public views of breakers, instances and the store at one moment.

mod fleet;
mod state;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::serial;
use crate::strategy::Calls;
pub use fleet::{FleetBreaker, FleetPage, FleetQuery, InstanceInfo, InstanceSettings};
pub use state::{ParseStateError, State, StateCounts};

/// A breaker at one moment, from this instance's memory, without I/O.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The breaker's name.
    pub name: String,
    /// The state that decides on calls of this instance now.
    pub state: State,
    /// The number of the fleet's state, which grows by one with every transition. While `local` is true,
    /// the number of the last state that the store has confirmed.
    pub epoch: u64,
    /// Whether only this instance is in this state, because the store has not confirmed it.
    pub local: bool,
    /// When this state began, by the store's clock; `None` if the breaker has never left its first state,
    /// closed.
    #[serde(serialize_with = "serial::option_time")]
    pub since: Option<SystemTime>,
    /// The time of the latest opening that this instance has seen.
    #[serde(serialize_with = "serial::option_time")]
    pub opened_at: Option<SystemTime>,
    /// The time of this instance's latest failure. [`FleetBreaker::last_failure_at`] is the fleet's.
    #[serde(serialize_with = "serial::option_time")]
    pub last_failure_at: Option<SystemTime>,
    /// The reason of the latest transition; empty if there was none.
    pub reason: String,
    /// The [actor](crate::Breaker::by) of a manual override; empty if none was given.
    pub actor: String,
    /// Until a probe or the next health check may be made (open), or until a manual override expires.
    #[serde(serialize_with = "serial::option_span")]
    pub retry_after: Option<Duration>,
    /// Failures of this epoch: the fleet's at the last exchange, and this instance's since.
    pub failures: u64,
    /// Successes of this epoch: the fleet's at the last exchange, and this instance's since.
    pub successes: u64,
    /// Failures since the latest success: the fleet's at the last exchange, and this instance's since.
    pub consecutive_failures: u64,
    /// The window's calls, failures and rates, if the breaker judges by a window.
    pub window: Option<WindowSnapshot>,
    /// The outcomes of this instance's own calls since it started.
    pub outcomes: Outcomes,
    /// All settings, with their values and origins.
    pub settings: Vec<Setting>,
}

/// One setting of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// The name of the attribute's argument.
    pub name: &'static str,
    /// The value in the form of a configuration file: `"5"`, `"1m 30s"`; `"off"` if it is not set and has
    /// no default.
    pub value: String,
    /// The layer that sets it.
    pub origin: Origin,
}

/// The layer that sets a value. Each layer takes precedence over those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// The operator's settings of this breaker: a file, the environment,
    /// [`configure`](crate::RegistryBuilder::configure).
    Operator,
    /// The attribute, or what was given to [`get_or_create`](crate::Registry::get_or_create).
    Attribute,
    /// The registry's defaults, from a file, the environment or [the
    /// builder](crate::RegistryBuilder::defaults).
    Defaults,
    /// No layer sets it.
    BuiltIn,
}

/// The counts of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WindowSnapshot {
    /// The number of successes and failures in the window.
    pub calls: u64,
    /// The number of failures.
    pub failures: u64,
    /// `failures / calls`; 0 if there were no calls.
    pub failure_rate: f64,
    /// The number of calls that took longer than `slow_call_duration`, successful or not.
    pub slow: u64,
    /// `slow / calls`; 0 if there were no calls.
    pub slow_rate: f64,
}

impl From<Calls> for WindowSnapshot {
    fn from(calls: Calls) -> Self {
        WindowSnapshot {
            calls: calls.total(),
            failures: calls.failures,
            failure_rate: calls.failure_rate(),
            slow: calls.slow,
            slow_rate: calls.slow_rate(),
        }
    }
}

/// Calls by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Outcomes {
    /// Calls that returned a success.
    pub success: u64,
    /// Calls that returned a failure, panicked, or timed out.
    pub failure: u64,
    /// Successes and failures that took longer than `slow_call_duration`.
    pub slow: u64,
    /// Calls that returned an error which `is_failure` does not count as a failure.
    pub ignored: u64,
    /// Calls that were dropped before they ended.
    pub cancelled: u64,
    /// Calls that ended after a transition; counted nowhere else.
    pub late: u64,
    /// Calls that the circuit did not admit.
    pub rejected: u64,
    /// Calls that were not admitted during the ramp-up of a closed circuit.
    pub ramp_rejected: u64,
    /// Failed and rejected calls that a cached result answered.
    pub cached: u64,
    /// Failed and rejected calls for which a fallback was called.
    pub fallback: u64,
}

impl Outcomes {
    pub(crate) fn plus(self, other: Outcomes) -> Outcomes {
        Outcomes {
            success: self.success.saturating_add(other.success),
            failure: self.failure.saturating_add(other.failure),
            slow: self.slow.saturating_add(other.slow),
            ignored: self.ignored.saturating_add(other.ignored),
            cancelled: self.cancelled.saturating_add(other.cancelled),
            late: self.late.saturating_add(other.late),
            rejected: self.rejected.saturating_add(other.rejected),
            ramp_rejected: self.ramp_rejected.saturating_add(other.ramp_rejected),
            cached: self.cached.saturating_add(other.cached),
            fallback: self.fallback.saturating_add(other.fallback),
        }
    }
}

/// The status of a registry's connection to its store; see
/// [`Registry::store_status`](crate::Registry::store_status).
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StoreStatus {
    /// There is no shared store: state lives in this process alone.
    InMemory,
    /// The first request has not been answered yet.
    Connecting,
    /// The store answers.
    Connected {
        /// Since when.
        #[serde(serialize_with = "serial::time")]
        since: SystemTime,
    },
    /// The store does not answer; this instance decides locally.
    Lost {
        /// Since when.
        #[serde(serialize_with = "serial::time")]
        since: SystemTime,
        /// The error of the latest attempt.
        error: Error,
    },
}

impl StoreStatus {
    /// Whether decisions rest on the shared state. True also for [`InMemory`](Self::InMemory).
    pub fn is_up(&self) -> bool {
        matches!(self, StoreStatus::InMemory | StoreStatus::Connected { .. })
    }
}
