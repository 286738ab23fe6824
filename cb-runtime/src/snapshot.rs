//! The public views of breakers, instances and the store at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, Serializer};

use crate::error::Error;
use crate::serial;
use crate::strategy::Calls;

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

    /// Whether the state is a manual override, which only an operator or its expiry ends.
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

/// The error of parsing a text that is not the name of a [`State`].
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

/// The fleet's state of a breaker, from the store.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FleetBreaker {
    /// The breaker's name.
    pub name: String,
    /// The fleet's state.
    pub state: State,
    /// Grows by one with every transition.
    pub epoch: u64,
    /// When this state began; `None` if the breaker has never left its first state, closed.
    #[serde(serialize_with = "serial::option_time")]
    pub since: Option<SystemTime>,
    /// The time of the latest opening.
    #[serde(serialize_with = "serial::option_time")]
    pub opened_at: Option<SystemTime>,
    /// The time of the latest failure that was reported to the store.
    #[serde(serialize_with = "serial::option_time")]
    pub last_failure_at: Option<SystemTime>,
    /// The reason of the latest transition.
    pub reason: String,
    /// The [actor](crate::Breaker::by) of a manual override; empty if none was given.
    pub actor: String,
    /// The instance that made the latest transition.
    pub originator: String,
    /// Until a probe or the first health check may be made (open), or until a manual override expires.
    #[serde(serialize_with = "serial::option_span")]
    pub retry_after: Option<Duration>,
    /// Failures of this epoch, fleet-wide.
    pub failures: u64,
    /// Successes of this epoch, fleet-wide.
    pub successes: u64,
    /// Successes and failures of this epoch that took longer than `slow_call_duration`, fleet-wide.
    pub slow: u64,
    /// Failures since the latest success, fleet-wide.
    pub consecutive_failures: u64,
    /// The window that the fleet judges by, as the instance that knows most of it sees it. See `outcomes` for
    /// when it is known.
    pub window: Option<WindowSnapshot>,
    /// The calls of all living instances since their start. Instances publish their calls only while the
    /// fleet is observed: the first answer may contain only this instance's, and from five seconds later on
    /// they are at most a second old. An instance with more than 2,000 breakers publishes 2,000 of them.
    pub outcomes: Outcomes,
    /// The number of times that a metrics-only breaker would have opened, on all living instances since each
    /// was started. See `outcomes` for when it is known.
    pub would_have_opened: u64,
    /// When that was last.
    #[serde(serialize_with = "serial::option_time")]
    pub would_have_opened_at: Option<SystemTime>,
    /// The ids of instances that have opened the circuit for themselves only, because the others do not see
    /// the failures that they see (`min_failing_instances`). See `outcomes` for when it is known.
    pub isolated: Vec<String>,
    /// The number of consecutive openings, which determines the backoff.
    pub openings: u32,
    /// The number of probes in flight.
    pub probes: u32,
    /// The id of the leader, which runs the health checks.
    pub leader: Option<String>,
}

/// A query for [`Registry::fleet_page`](crate::Registry::fleet_page).
#[derive(Clone, Debug, Default)]
pub struct FleetQuery {
    search: Option<String>,
    states: Vec<State>,
    after: Option<String>,
    limit: Option<usize>,
}

impl FleetQuery {
    /// Selects breakers whose name contains this text, ignoring case.
    pub fn search(mut self, text: impl AsRef<str>) -> Self {
        self.search = Some(text.as_ref().to_lowercase()).filter(|text| !text.is_empty());
        self
    }

    /// Selects breakers in this state. Several calls select breakers in any of these states.
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Continues after [`FleetPage::next`].
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// Sets the maximum number of breakers on a page: 100 by default, 1,000 at most.
    pub fn limit(mut self, breakers: usize) -> Self {
        self.limit = Some(breakers);
        self
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.search.as_ref().is_none_or(|text| name.to_lowercase().contains(text))
    }

    pub(crate) fn wants(&self, state: State) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }

    pub(crate) fn size(&self) -> usize {
        self.limit.unwrap_or(100).clamp(1, 1000)
    }

    /// The rank of the state, and the name.
    pub(crate) fn place(&self) -> Option<(u8, &str)> {
        let (rank, name) = self.after.as_deref()?.split_once(':')?;
        Some((rank.parse().ok()?, name))
    }
}

/// One page of the fleet's breakers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FleetPage {
    /// The breakers; those that are not closed come first.
    pub breakers: Vec<FleetBreaker>,
    /// The argument of [`FleetQuery::after`] for the next page; `None` on the last page.
    pub next: Option<String>,
    /// The number of breakers that match the query, on all pages.
    pub total: usize,
    /// The number of breakers that match the search, by state. The query's states do not affect it.
    pub by_state: StateCounts,
}

/// A number of breakers for each [`State`]: `counts[State::Open]`. `serde` writes it as an object: `{"open":
/// 2, …}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts([usize; State::ALL.len()]);

impl StateCounts {
    pub(crate) fn add(&mut self, state: State) {
        self.0[state as usize] += 1;
    }
}

impl Index<State> for StateCounts {
    type Output = usize;

    fn index(&self, state: State) -> &usize {
        &self.0[state as usize]
    }
}

impl Serialize for StateCounts {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(State::ALL.into_iter().map(|state| (state.as_str(), self[state])))
    }
}

/// An instance of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InstanceInfo {
    /// The instance's id, which is new at every start; the `originator` of its transitions.
    pub id: String,
    /// The [node](crate::RegistryBuilder::node) that it runs on.
    pub node: String,
    /// The host's name.
    pub host: String,
    /// The id of its process.
    pub pid: u32,
    /// Its version of cb-runtime.
    pub version: String,
    /// When it was started, by its host's clock.
    #[serde(serialize_with = "serial::time")]
    pub started_at: SystemTime,
    /// The time of its latest heartbeat, by the store's clock. Heartbeats come every five seconds.
    #[serde(serialize_with = "serial::time")]
    pub last_seen: SystemTime,
    /// Whether its latest heartbeat is older than 15 seconds: it has ended, or it cannot reach the store
    /// and decides locally.
    pub degraded: bool,
    /// Whether it is the instance that answers this request.
    pub own: bool,
}

/// An instance's settings of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InstanceSettings {
    /// The instance's id.
    pub instance: String,
    /// Its node.
    pub node: String,
    /// The settings that differ from the built-in ones, by name.
    pub settings: BTreeMap<String, String>,
    /// The layer that each of them comes from.
    pub origins: BTreeMap<String, Origin>,
    /// Whether they differ from the settings that most instances have.
    pub drift: bool,
}
