//! A breaker's shared state.

use serde::Serialize;

use super::{MAX_SPAN_US, json};
use crate::snapshot::State;

/// A breaker's state and its times: what the state machine keeps, instances report and the store holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Record {
    /// Grows by one with each transition; 0 = never left closed. At most [`MAX_EPOCH`](super::MAX_EPOCH).
    #[serde(serialize_with = "json::whole")]
    pub(crate) epoch: u64,
    pub(crate) state: State,
    /// The reason of the transition; at most [`MAX_REASON`](super::MAX_REASON) bytes.
    #[serde(serialize_with = "json::reason")]
    pub(crate) reason: String,
    /// The instance that made the transition.
    #[serde(rename = "by")]
    pub(crate) originator: String,
    /// The actor of a manual override; at most [`MAX_REASON`](super::MAX_REASON) bytes.
    #[serde(serialize_with = "json::reason", skip_serializing_if = "String::is_empty")]
    pub(crate) actor: String,
    /// Open: the time until a probe is due (0 = now), at most `reset_timeout_us` unless that is 0.
    /// Forced-open, disabled, metrics-only: the time until the expiry (0 = expired), `None` without one; at
    /// most `reset_timeout_us`, too. `None` in all other states. A store adjusts other values; open with
    /// `None` becomes 0.
    #[serde(
        rename = "remaining",
        serialize_with = "json::optional_span",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) remaining_us: Option<u64>,
    /// The age of the state; 0 if it was never left.
    #[serde(rename = "since", serialize_with = "json::whole")]
    pub(crate) since_us: u64,
    /// `remaining_us` when the state began.
    #[serde(rename = "reset", serialize_with = "json::span")]
    pub(crate) reset_timeout_us: u64,
    /// The number of consecutive openings, for the backoff. A closed state after a recovery keeps it during
    /// the ramp-up.
    pub(crate) attempt: u32,
}

impl Record {
    /// A state that was never left: closed, epoch 0.
    pub(crate) fn closed() -> Self {
        Record {
            epoch: 0,
            state: State::Closed,
            reason: String::new(),
            originator: String::new(),
            actor: String::new(),
            remaining_us: None,
            since_us: 0,
            reset_timeout_us: 0,
            attempt: 0,
        }
    }

    /// What ends a manual override that has expired.
    pub(crate) fn expired(originator: &str) -> Self {
        Record { reason: "expired".into(), originator: originator.into(), ..Record::closed() }
    }

    /// A manual override whose expiry has passed.
    pub(crate) fn has_expired(&self) -> bool {
        self.state.is_manual() && self.remaining_us == Some(0)
    }

    /// Whether both records are of one transition. A store that has lost data may begin an epoch a second
    /// time, in another state or by another override.
    pub(crate) fn is_of_same_transition(&self, other: &Record) -> bool {
        if (self.epoch, self.state) != (other.epoch, other.state) {
            return false;
        }
        let terms = |record: &Record| (record.remaining_us.is_some(), record.reset_timeout_us);
        !self.state.is_manual()
            || terms(self) == terms(other) && self.reason == other.reason && self.actor == other.actor
    }

    /// Whether an event's record does not follow this one.
    pub(crate) fn contradicts(&self, event: &Record) -> bool {
        self.epoch > event.epoch || self.epoch == event.epoch && !self.is_of_same_transition(event)
    }

    /// The record as it reads this many microseconds later.
    pub(crate) fn aged(self, elapsed_us: u64) -> Self {
        Record {
            remaining_us: self.remaining_us.map(|left| left.saturating_sub(elapsed_us)),
            since_us: self.since_us.saturating_add(elapsed_us),
            ..self
        }
    }
}

impl State {
    /// Adjusts a state's remaining time; see [`Record::remaining_us`].
    pub(in crate::store) fn remaining(self, given: Option<u64>, reset_timeout_us: u64) -> Option<u64> {
        let longest = if reset_timeout_us > 0 { reset_timeout_us } else { MAX_SPAN_US };
        match self {
            State::Closed | State::HalfOpen => None,
            State::Open => Some(given.unwrap_or(0).min(longest)),
            _ => given.map(|span| span.min(longest)),
        }
    }
}
