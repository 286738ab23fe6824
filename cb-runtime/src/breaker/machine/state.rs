//! States as this instance knows them: confirmed by the store, or local.

use std::time::Duration;

use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::{Counts, Record};

/// A [`Record`] whose spans (`since_us`, `remaining_us`) are counted from a moment of this instance's clock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DatedRecord {
    pub(crate) record: Record,
    pub(crate) as_of: Moment,
}

impl DatedRecord {
    /// Limits the remaining time to `reset_timeout_us`: a longer one comes from a clock that was set back.
    pub(crate) fn new(mut record: Record, as_of: Moment) -> Self {
        if record.reset_timeout_us > 0 {
            record.remaining_us = record.remaining_us.map(|left| left.min(record.reset_timeout_us));
        }
        DatedRecord { record, as_of }
    }

    pub(crate) fn state(&self) -> State {
        self.record.state
    }

    pub(crate) fn since(&self) -> Moment {
        Moment(self.as_of.0.saturating_sub(self.record.since_us))
    }

    /// Open: when a probe is due. A manual override: when it expires.
    pub(crate) fn until(&self) -> Option<Moment> {
        self.record.remaining_us.map(|left| self.as_of.after(Duration::from_micros(left)))
    }

    /// The record as it reads at `now`.
    pub(super) fn at(&self, now: Moment) -> Record {
        self.record.clone().aged(micros(now.since(self.as_of)))
    }

    pub(super) fn end_at(&mut self, until: Moment) {
        self.record.remaining_us = Some(micros(until.since(self.as_of)));
    }

    /// A manual override whose expiry has passed.
    pub(super) fn has_expired(&self, now: Moment) -> bool {
        self.state().is_manual() && self.until().is_some_and(|until| until <= now)
    }

    /// When the state was last due, if it lapses some time after that. `None` for a closed state, and for a
    /// manual override without an expiry.
    pub(crate) fn lapses_after(&self) -> Option<Moment> {
        let lapses = match self.state() {
            State::Closed => false,
            State::Open | State::HalfOpen => true,
            _ => self.until().is_some(),
        };
        lapses.then(|| self.since().max(self.until().unwrap_or_default()))
    }

    /// Open, and its reset timeout has elapsed.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.state() == State::Open && self.until().is_none_or(|until| until <= now)
    }
}

/// A state of this instance that differs from the confirmed one.
#[derive(Clone, Debug)]
pub(super) struct LocalState {
    pub(super) record: DatedRecord,
    /// The counts that led to it.
    pub(super) evidence: Counts,
    pub(super) scope: Scope,
    /// The fencing token of the health check that led to it: the store refuses the change unless this
    /// instance is still the leader under that token.
    pub(super) token: Option<u64>,
    /// It is open for a reason that is not in the counts: a call's `open_for`, or a health check.
    pub(super) uncounted: bool,
}

/// Why a state is local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// It is proposed to the store, and not confirmed yet.
    Pending,
    /// The store is unreachable. The state is given up when the store is back, unless the fleet's counts
    /// support it.
    StoreDown,
    /// The other instances do not see the failures that this one sees (`min_failing_instances`).
    Isolated,
}

/// A local change of state, which no event of the store reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LocalChange {
    pub(crate) from: State,
    pub(crate) to: Record,
    /// The last epoch that the store has confirmed.
    pub(crate) epoch: u64,
    pub(crate) evidence: Counts,
}
