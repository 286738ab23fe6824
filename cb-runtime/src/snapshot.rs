//! What a breaker looks like at one moment.

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
    /// How many of the failed and rejected calls a cached result answered.
    pub cached: u64,
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
        }
    }
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
    /// When this state began; `None` if the breaker has never left its first state, closed.
    #[serde(serialize_with = "serial::option_time")]
    pub since: Option<SystemTime>,
    /// When the circuit opened last.
    #[serde(serialize_with = "serial::option_time")]
    pub opened_at: Option<SystemTime>,
    /// When a call failed last that the store has been told of.
    #[serde(serialize_with = "serial::option_time")]
    pub last_failure_at: Option<SystemTime>,
    /// Why it came to this state.
    pub reason: String,
    /// Who ordered it, if a person did and [said so](crate::Breaker::by).
    pub actor: String,
    /// The instance that brought it there.
    pub originator: String,
    /// Until a probe or the first health check may be made (open), or until a manual override expires.
    #[serde(serialize_with = "serial::option_span")]
    pub retry_after: Option<Duration>,
    /// Failures of this epoch, fleet-wide.
    pub failures: u64,
    /// Successes of this epoch, fleet-wide.
    pub successes: u64,
    /// How many of both took longer than `slow_call_duration`.
    pub slow: u64,
    /// Failures since the latest success, fleet-wide.
    pub consecutive_failures: u64,
    /// The window that the fleet judges by, as the instance that knows most of it sees it. See `outcomes` for when it is known.
    pub window: Option<WindowSnapshot>,
    /// The calls of all living instances since each of them was started. Instances tell of their calls only while somebody asks
    /// for them: the first answer may have this instance's alone, and from five seconds later on they are a second
    /// old. An instance with more than 2,000 breakers tells of 2,000.
    pub outcomes: Outcomes,
    /// How often it has opened in a row, which is what its backoff goes by.
    pub openings: u32,
    /// Probes that are under way.
    pub probes: u32,
    /// The id of the instance that makes the health checks, if one does.
    pub leader: Option<String>,
}

/// Which of the fleet's breakers [`Registry::fleet_page`](crate::Registry::fleet_page) is to show.
#[derive(Clone, Debug, Default)]
pub struct FleetQuery {
    search: Option<String>,
    states: Vec<State>,
    after: Option<String>,
    limit: Option<usize>,
}

impl FleetQuery {
    /// Only breakers whose name contains this text, in any case of letters.
    pub fn search(mut self, text: impl AsRef<str>) -> Self {
        self.search = Some(text.as_ref().to_lowercase()).filter(|text| !text.is_empty());
        self
    }

    /// Only breakers in this state; called several times, in one of several.
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Those behind [`FleetPage::next`].
    pub fn after(mut self, next: impl Into<String>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// At most this many; 100 if it is not given, and never more than 1,000.
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

/// A part of the fleet's breakers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FleetPage {
    /// Those that are not closed first.
    pub breakers: Vec<FleetBreaker>,
    /// What the next page [begins after](FleetQuery::after); `None` if this is the last one.
    pub next: Option<String>,
    /// How many breakers the query is about, on all pages.
    pub total: usize,
    /// How many breakers match the search, by state, whatever states the query is about.
    pub by_state: StateCounts,
}

/// A number of breakers for each [`State`]: `counts[State::Open]`. `serde` writes it as an object: `{"open": 2, …}`.
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
    /// Another one at every start; the originator of what it brings about.
    pub id: String,
    /// The [node](crate::RegistryBuilder::node) that it runs on.
    pub node: String,
    /// The host's name.
    pub host: String,
    /// The number of its process.
    pub pid: u32,
    /// The version of this library in it.
    pub version: String,
    /// When it was started, by its host's clock.
    #[serde(serialize_with = "serial::time")]
    pub started_at: SystemTime,
    /// Its last sign of life, by the store's clock. It gives one every five seconds.
    #[serde(serialize_with = "serial::time")]
    pub last_seen: SystemTime,
    /// It has been silent for more than 15 seconds: it is gone, or cannot reach the store and decides by itself.
    pub degraded: bool,
    /// It is the one that has been asked.
    pub own: bool,
}

/// What an instance judges a breaker by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InstanceSettings {
    /// The instance's id.
    pub instance: String,
    /// Its node.
    pub node: String,
    /// The settings that differ from the built-in ones, by name.
    pub settings: BTreeMap<String, String>,
    /// They are not those that most instances have.
    pub drift: bool,
}
