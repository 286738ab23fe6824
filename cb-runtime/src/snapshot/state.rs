//! The states of a circuit.

use std::fmt;
use std::ops::Index;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

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
