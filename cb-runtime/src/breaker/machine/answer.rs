//! What the store's answers change.
//!
//! The parts of an answer are handled in this order, because each depends on the ones before it:
//!
//! 1. the *doubt* about the confirmed state ends;
//! 2. the *record* is adopted, unless the event stream has brought a later one (see `adoption`);
//! 3. the fleet's *counts* replace those of the last answer;
//! 4. the *local state* is proposed, kept or given up, by those counts;
//! 5. *leases* are granted or denied, in the state that results;
//! 6. *health checks* learn who leads;
//! 7. the *override* in the entry is applied, or repeated.

use std::time::Duration;

use super::entry::InFlight;
use super::state::{LocalState, Scope};
use super::{Now, StateMachine, Wake, policy};
use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::{IDLE, LeaseId, NOTICE, View};

/// A confirmed state is considered used for at least this long, so that a transition out of it can be
/// proposed.
const ANSWERED: Duration = Duration::from_secs(5);

impl StateMachine {
    /// Handles the store's answer to the latest entry.
    pub(crate) fn receive(&mut self, view: &View, store_now: u64, now: Now) {
        let mut in_flight = self.in_flight.take().unwrap_or_default();
        self.settle_doubt(&mut in_flight, view, now.at);
        // If the event stream has been faster, the answer is about an epoch that has ended.
        if view.record.epoch >= self.epoch() {
            let leases = std::mem::take(&mut in_flight.leases);
            self.adopt_answer(&view.record, &mut in_flight, now.at);
            self.stats.receive(&in_flight.sent, view, store_now, now.at);
            self.received_at = Some(now.at);
            self.answered = true;
            if let Some(age) = view.notice_age_us.filter(|age| *age < micros(NOTICE)) {
                self.take_notice(Moment(now.at.0.saturating_sub(age)));
            }
            self.review_local_state(&in_flight, view, now);
            self.receive_leases(&in_flight, leases, view, now);
        }
        self.with_health(now, |health, context| health.receive(view.role, context));
        self.end_override(in_flight);
    }

    /// The answer to a doubted state: it has ended, or it is still in use.
    fn settle_doubt(&mut self, in_flight: &mut InFlight, view: &View, now: Moment) {
        if in_flight.doubted != Some(self.epoch()) {
            return;
        }
        self.doubted = false;
        if view.record.epoch < self.epoch() {
            self.forget_confirmed(in_flight, now);
        } else {
            let long_ago = (IDLE / 2).saturating_sub(ANSWERED);
            self.used_at = self.used_at.max(Moment(now.0.saturating_sub(micros(long_ago))));
        }
    }

    /// Decides about the local state by the fleet's counts, or makes a decision if there is none.
    fn review_local_state(&mut self, in_flight: &InFlight, view: &View, now: Now) {
        let is_refused = in_flight.proposed.is_some() && !view.won;
        let Some(local) = &self.local else { return self.judge(Now { store_up: true, ..now }) };
        let next = self.next_scope(local, is_refused, now);
        // An isolated state's reason says that no other instance sees the failures.
        let is_confirmed = local.scope == Scope::Isolated && next == Some(Scope::Pending);
        let reason = if is_confirmed { self.fleets_reason(now) } else { None };
        match (next, &mut self.local) {
            (Some(scope), Some(local)) => {
                local.scope = scope;
                if let Some(reason) = reason {
                    local.record.record.reason = reason;
                }
            }
            _ => self.give_up_local(now.at),
        }
    }

    /// The scope in which a local state continues; `None` if it is given up.
    fn next_scope(&self, local: &LocalState, is_refused: bool, now: Now) -> Option<Scope> {
        match local.scope {
            // The store has refused it in the same epoch: this instance is not the leader any more.
            Scope::Pending if is_refused && local.token.is_some() => None,
            Scope::Pending => Some(Scope::Pending),
            // The outcomes have been merged. The state is proposed if the fleet's counts support it, or if it
            // does not depend on counts.
            _ if self.fleets_reason(now).is_some()
                || self.left_by_expiry(now.at)
                || self.stays_proposed(local, now.at) =>
            {
                Some(Scope::Pending)
            }
            Scope::Isolated => Some(Scope::Isolated),
            Scope::StoreDown => self.stays_isolated(now).then_some(Scope::Isolated),
        }
    }

    fn receive_leases(&mut self, in_flight: &InFlight, leases: Vec<LeaseId>, view: &View, now: Now) {
        // Requested before the store knew of the opening, whose timeout has already elapsed: not a denial.
        let too_early = in_flight.requested_in != Some(State::HalfOpen)
            && !leases.is_empty()
            && self.may_have_probes(now.at);
        if too_early {
            self.probes.request_again(leases);
        } else {
            let longest = policy::longest_probe(&self.settings);
            let sent_at = in_flight.sent_at;
            let granted = self.probes.receive(&leases, view, longest, sent_at, now.at, now.random);
            self.effects.granted.extend(granted);
        }
        if too_early || self.proposes() && in_flight.proposed != Some(self.state()) {
            self.wake(Wake::AtOnce);
        }
    }

    fn end_override(&mut self, in_flight: InFlight) {
        match in_flight.manual {
            // Meanwhile a manual override was found, and the release applies to it.
            Some(manual) if in_flight.is_moot && self.state().is_manual() => {
                self.overrides.push_front(manual);
            }
            Some(manual) => self.effects.applied = Some(manual.id),
            None => {}
        }
        if !self.overrides.is_empty() {
            self.wake(Wake::AtOnce);
        }
    }

    fn give_up_local(&mut self, now: Moment) {
        self.local = None;
        self.stats.forget_decided();
        self.generation += 1;
        self.begin_probes(self.may_have_probes(now));
    }

    /// The reason for which the closed fleet would open, if this instance is open and the fleet's counts
    /// support it.
    fn fleets_reason(&self, now: Now) -> Option<String> {
        if self.state() != State::Open || self.confirmed_state() != State::Closed {
            return None;
        }
        policy::trip(&self.settings, &self.trip_input(now), self.settings.min_failing_instances)
    }

    /// Closed locally, because a manual override has expired.
    fn left_by_expiry(&self, now: Moment) -> bool {
        let expired = self.confirmed.as_ref().is_some_and(|confirmed| confirmed.has_expired(now));
        expired && self.state() == State::Closed
    }

    /// Open locally for a reason that is not in the counts, while the fleet is closed. With a leader's token,
    /// the store refuses it if another instance leads meanwhile.
    fn stays_proposed(&self, local: &LocalState, now: Moment) -> bool {
        self.confirmed_state() == State::Closed
            && !self.record().is_due(now)
            && local.uncounted
            && local.scope == Scope::StoreDown
            && local.record.state() == State::Open
    }

    /// Open locally, and the other instances do not see its failures.
    fn stays_isolated(&self, now: Now) -> bool {
        let own = self.own_trip_input(now).filter(|_| self.settings.min_failing_instances > 1);
        self.state() == State::Open
            && self.confirmed_state() == State::Closed
            && own.is_some_and(|own| policy::trip_alone(&self.settings, &own).is_some())
    }

    /// Handles the merge of the report.
    pub(crate) fn receive_report(&mut self, now: Now) {
        let in_flight = self.in_flight.take().unwrap_or_default();
        self.stats.receive_report(&in_flight.sent, now);
    }

    /// Handles a refused entry: its outcomes are kept, its requests are given up.
    pub(crate) fn receive_error(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            self.stats.restore(in_flight.sent);
        }
        self.probes.store_lost();
        self.overrides.clear();
    }
}
