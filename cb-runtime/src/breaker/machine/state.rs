//! A state and how it came to be.

use std::time::Duration;

use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::{Counts, Record};

/// A state and how it came to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) originator: String,
    /// Who ordered it, if a person did.
    pub(crate) actor: String,
    pub(crate) since: Moment,
    /// Open: when a probe is due. Held by hand: when that expires.
    pub(crate) until: Option<Moment>,
    pub(crate) reset_timeout: Duration,
    /// How often it has opened in a row. A closed state that a recovery led to keeps it for its ramp-up.
    pub(crate) attempt: u32,
}

impl Standing {
    pub(super) fn closed(now: Moment) -> Self {
        Standing {
            state: State::Closed,
            reason: String::new(),
            originator: String::new(),
            actor: String::new(),
            since: now,
            until: None,
            reset_timeout: Duration::ZERO,
            attempt: 0,
        }
    }

    pub(super) fn from_record(record: &Record, now: Moment) -> Self {
        Standing {
            state: record.state,
            reason: record.reason.clone(),
            originator: record.originator.clone(),
            actor: record.actor.clone(),
            since: Moment(now.0.saturating_sub(record.since_us)),
            until: record.remaining_us.map(|left| now.after(Duration::from_micros(left))),
            reset_timeout: Duration::from_micros(record.reset_timeout_us),
            attempt: record.attempt,
        }
    }

    pub(super) fn to_record(&self, epoch: u64, now: Moment) -> Record {
        Record {
            epoch,
            state: self.state,
            reason: self.reason.clone(),
            originator: self.originator.clone(),
            actor: self.actor.clone(),
            remaining_us: self.until.map(|until| micros(until.since(now))),
            since_us: micros(now.since(self.since)),
            reset_timeout_us: micros(self.reset_timeout),
            attempt: self.attempt,
        }
    }

    /// Held by hand, and its time is over.
    pub(super) fn has_expired(&self, now: Moment) -> bool {
        self.state.is_manual() && self.until.is_some_and(|until| until <= now)
    }

    /// Open, and its time is over.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.state == State::Open && self.until.is_none_or(|until| until <= now)
    }
}

/// This instance's own standing, where it differs from the confirmed one.
#[derive(Clone, Debug)]
pub(super) struct LocalState {
    pub(super) standing: Standing,
    pub(super) evidence: Counts,
    pub(super) scope: Scope,
    /// What a health check has decided stands only with the store if this token of its maker's role is still good there.
    pub(super) token: Option<u64>,
}

/// What this instance means by its own standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To be the fleet's: it is on its way to the store.
    Pending,
    /// To get by while the store is away; given up when it is back, unless the fleet's counts speak for it.
    StoreDown,
    /// To keep to itself, because the others do not see what it sees (`min_failing_instances`).
    Isolated,
}

/// A change of this breaker's state at this instance, to be told to those who listen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: State,
    pub(crate) to: Standing,
    pub(crate) evidence: Counts,
    /// The store will not hear of it: it is told here, or nowhere.
    pub(crate) private: bool,
}
