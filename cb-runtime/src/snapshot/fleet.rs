//! The fleet's breakers and instances, as the store knows them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Origin, Outcomes, State, StateCounts, WindowSnapshot};
use crate::serial;

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
