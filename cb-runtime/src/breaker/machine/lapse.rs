//! A confirmed state that the store may not have any more, and a store that is away.

use super::entry::InFlight;
use super::state::{DatedRecord, LocalChange, Scope};
use super::{Now, StateMachine};
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::{Counts, IDLE, Record};

/// The reason for the end of a state that has lapsed, or whose end this instance has missed.
const ENDED_UNNOTICED: &str = "the store no longer holds the previous state";

impl StateMachine {
    /// When the confirmed state lapses, if it is not used after `used_at`.
    pub(super) fn lapses_at(&self, used_at: Moment) -> Option<Moment> {
        let due = self.confirmed.as_ref()?.lapses_after()?;
        Some(due.max(used_at).after(IDLE))
    }

    /// Requests the store's state if the confirmed one should have lapsed.
    pub(super) fn check_lapse(&mut self, now: Now) {
        let heard_at = self.used_at.max(self.received_at.unwrap_or_default());
        if now.store_up && self.lapses_at(heard_at).is_some_and(|at| now.at >= at) {
            self.doubted = true;
            self.exchange_next = true;
        }
    }

    /// Doubts the confirmed state: the store has lost no data, does not have this state, and this instance
    /// has missed events. For example, an override that was released meanwhile must not be written back.
    /// `as_of`: the time of the store's answer.
    pub(crate) fn doubt(&mut self, as_of: Moment) {
        if self.confirmed_state() != State::Closed
            && self.confirmed.as_ref().is_some_and(|confirmed| confirmed.as_of < as_of)
        {
            self.doubted = true;
            self.exchange_next = true;
        }
    }

    /// Claims the confirmed state again: the store has lost data, perhaps this state.
    pub(crate) fn end_doubt(&mut self) {
        self.doubted = false;
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.doubted = None;
        }
    }

    /// After half of [`IDLE`], the store may have expired a closed breaker and restarted its epochs.
    pub(crate) fn forget_if_idle(&mut self, now: Moment) {
        let Some(confirmed) = &self.confirmed else { return };
        // It may have come with an event, and never have been exchanged.
        let heard_at = confirmed.as_of.max(self.exchanged_at.unwrap_or_default());
        let is_idle = now.since(heard_at) > IDLE / 2;
        if is_idle && self.local.is_none() && confirmed.state() == State::Closed {
            self.confirmed = None;
            self.announced = 0;
            self.initial = DatedRecord::new(Record::closed(), now);
        }
    }

    /// Ends the confirmed state, which the store does not have any more, and whose end no event reported.
    pub(super) fn forget_confirmed(&mut self, in_flight: &mut InFlight, now: Moment) {
        let (from, epoch) = (self.state(), self.epoch());
        let to = Record { reason: ENDED_UNNOTICED.into(), ..Record::closed() };
        self.confirmed = None;
        self.doubted = false;
        self.announced = 0;
        self.initial = DatedRecord::new(to.clone(), now);
        self.enter_epoch(in_flight, now);
        if from != State::Closed {
            self.effects.local_changes.push(LocalChange { from, to, epoch, evidence: Counts::default() });
        }
    }

    /// Handles the loss of the store: requests are given up.
    pub(crate) fn store_lost(&mut self) {
        self.detach();
        self.overrides.clear();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.manual = None;
        }
    }

    /// Continues without exchanges. Requested probes are denied, and a proposed state becomes local.
    pub(crate) fn detach(&mut self) {
        self.answered = false;
        self.probes.store_lost();
        self.health.store_lost();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.leases.clear();
        }
        let from = self.confirmed_state();
        if let Some(local) = self.local.as_mut().filter(|local| local.scope == Scope::Pending) {
            local.scope = Scope::StoreDown;
            // When the store is back, a state that depends on counts is judged by counts, without a token.
            local.token = local.token.filter(|_| local.uncounted);
            self.report_local_change(from);
        }
    }
}
