//! The transitions of this instance: the rules evaluated, and the states that follow.

use std::time::Duration;

use super::policy::{self, ProbeVerdict, TripInput};
use super::state::{DatedRecord, LocalChange, LocalState, Scope};
use super::{Now, StateMachine, Wake};
use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::{Counts, Record};

/// The reason of a transition to half-open.
const DUE: &str = "reset timeout has elapsed";

pub(super) fn open_for_reason(span: Duration) -> String {
    format!("the dependency asked for {} (open_for)", humantime::format_duration(span))
}

/// A closed breaker is to open.
struct Trip {
    reason: String,
    /// The counts that it was judged by.
    input: TripInput,
    /// Only this instance is to open: the others do not see its failures.
    is_isolated: bool,
}

impl StateMachine {
    /// Opens the circuit for the duration that a call has requested.
    pub(super) fn open_on_request(&mut self, span: Duration, now: Now) {
        let evidence = Counts { failures: 1, ..Counts::default() };
        let scope = self.scope(now.store_up);
        self.open_for(span, open_for_reason(span), evidence, scope, now.at);
        if let Some(local) = &mut self.local {
            local.uncounted = true;
        }
    }

    /// Evaluates the rules, and changes the state accordingly.
    pub(crate) fn judge(&mut self, now: Now) {
        match self.state() {
            State::Closed | State::HalfOpen if self.only_observes => {}
            State::Closed => self.judge_closed(now),
            State::HalfOpen => self.judge_half_open(now),
            // With a store, the fleet leaves the state together; see `proposal`.
            _ if !now.store_up && self.record().has_expired(now.at) => {
                self.change(self.expired_record(now.at), Counts::default(), Scope::StoreDown);
            }
            _ => {}
        }
    }

    fn judge_closed(&mut self, now: Now) {
        let input = self.trip_input(now);
        self.headroom = policy::headroom(&self.settings, input.window);
        let Some(Trip { reason, input, is_isolated }) = self.trip(input, now) else {
            return self.notice.end_wait();
        };
        let instances = if is_isolated { 1 } else { self.settings.min_failing_instances };
        let by_streak = policy::trips_by_streak(&self.settings, &input, instances);
        if !by_streak && !is_isolated && self.awaits_reports(now) {
            self.exchange_next();
            return self.wake(if self.needs_notice(now) { Wake::AtOnce } else { Wake::Paced });
        }
        let scope = if is_isolated { Scope::Isolated } else { self.scope(now.store_up) };
        self.open(reason, figures(&input, by_streak), scope, now);
    }

    fn judge_half_open(&mut self, now: Now) {
        let probes = self.counts();
        let scope = self.scope(now.store_up);
        match policy::judge_probes(&self.settings, probes) {
            ProbeVerdict::Wait => {}
            ProbeVerdict::Reopen(reason) => self.open(reason, probes, scope, now),
            ProbeVerdict::Close(reason) => self.close(reason, probes, scope, now.at),
        }
    }

    /// While metrics-only: reports once that the breaker would have opened. `requested`: the reason, if a
    /// call has requested it (`open_for`).
    pub(super) fn watch(&mut self, requested: Option<String>, now: Now) {
        let watching = self.state() == State::MetricsOnly && !self.only_observes;
        let trip = || self.trip(self.trip_input(now), now).map(|trip| trip.reason);
        let reason = requested.or_else(|| watching.then(trip).flatten());
        let holds = self.would_open && now.at < self.would_open_until;
        let before = std::mem::replace(&mut self.would_open, holds || reason.is_some());
        if !before && reason.is_some() {
            self.effects.would_open = reason;
        }
    }

    fn trip(&self, input: TripInput, now: Now) -> Option<Trip> {
        // Without the store, the other instances' failures are unknown, and no quorum is needed.
        let quorum = if now.store_up { self.settings.min_failing_instances } else { 1 };
        if let Some(reason) = policy::trip(&self.settings, &input, quorum)
            && !self.rests_on_old_counts(&input, quorum, now)
        {
            return Some(Trip { reason, input, is_isolated: false });
        }
        let own = if quorum > 1 { self.own_trip_input(now)? } else { return None };
        let reason = policy::trip_alone(&self.settings, &own)?;
        Some(Trip { reason, input: own, is_isolated: true })
    }

    /// The scope of a change that this instance makes now.
    fn scope(&self, store_up: bool) -> Scope {
        match &self.local {
            Some(LocalState { scope: Scope::Isolated, .. }) => Scope::Isolated,
            _ if store_up => Scope::Pending,
            _ => Scope::StoreDown,
        }
    }

    /// The number of consecutive openings, including the next one.
    fn next_attempt(&self, now: Moment) -> u32 {
        match self.state() {
            State::Closed if self.ramp(now).is_none() => 1,
            _ => self.record().record.attempt.saturating_add(1),
        }
    }

    /// Closes after a passed health check. `token`: the leader's token, if a leader made the check.
    pub(super) fn close_after_check(&mut self, reason: String, token: Option<u64>, now: Now) {
        let scope = self.scope(now.store_up);
        self.close(reason, Counts::default(), scope, now.at);
        self.fence(token);
    }

    /// Opens after a failed health check. `token`: the leader's token, if a leader made the check.
    pub(super) fn open_after_check(&mut self, reason: String, token: Option<u64>, now: Now) {
        let scope = self.scope(now.store_up);
        self.open(reason, self.counts(), scope, now);
        self.fence(token);
        if let Some(local) = &mut self.local {
            // Without a leader lease, the check is valid for this instance only.
            local.uncounted = token.is_some();
        }
    }

    /// Opens this instance only: its health check has failed under a quorum, and no other instance has seen
    /// failures. The failed check is reported like a failed call; the next leader's check may confirm it.
    pub(super) fn open_unconfirmed(&mut self, reason: &str, now: Now) {
        self.stats.failure(false, self.absorbed_at);
        let reason = format!("{reason}, on this instance only (the fleet opens if another one confirms it)");
        self.open(reason, self.counts(), Scope::Isolated, now);
        self.wake(Wake::AtOnce);
    }

    fn fence(&mut self, token: Option<u64>) {
        if let Some(local) = &mut self.local {
            local.token = token;
        }
    }

    fn close(&mut self, reason: String, evidence: Counts, scope: Scope, now: Moment) {
        let attempt = if self.settings.ramp_up.is_some() { self.record().record.attempt } else { 0 };
        let to = self.decided(Record { reason, attempt, ..Record::closed() }, now);
        self.change(to, evidence, scope);
    }

    fn open(&mut self, reason: String, evidence: Counts, scope: Scope, now: Now) {
        let reset_timeout = policy::open_for(&self.settings, self.next_attempt(now.at), now.random);
        self.open_for(reset_timeout, reason, evidence, scope, now.at);
    }

    fn open_for(
        &mut self,
        reset_timeout: Duration,
        reason: String,
        evidence: Counts,
        scope: Scope,
        now: Moment,
    ) {
        let reset_timeout_us = micros(reset_timeout);
        let record = Record {
            state: State::Open,
            reason,
            remaining_us: Some(reset_timeout_us),
            reset_timeout_us,
            attempt: self.next_attempt(now),
            ..Record::closed()
        };
        let to = self.decided(record, now);
        self.change(to, evidence, scope);
    }

    /// Becomes half-open without the store.
    pub(super) fn half_open_alone(&mut self, now: Moment) {
        let scope = self.scope(false);
        self.change(self.half_open_record(now), Counts::default(), scope);
    }

    pub(super) fn half_open_record(&self, now: Moment) -> DatedRecord {
        let Record { reset_timeout_us, attempt, .. } = self.record().record;
        let (state, reason) = (State::HalfOpen, DUE.to_owned());
        self.decided(Record { state, reason, reset_timeout_us, attempt, ..Record::closed() }, now)
    }

    pub(super) fn expired_record(&self, now: Moment) -> DatedRecord {
        DatedRecord::new(Record::expired(&self.instance), now)
    }

    /// A record of this instance's own decision.
    fn decided(&self, record: Record, now: Moment) -> DatedRecord {
        DatedRecord::new(Record { originator: self.instance.clone(), ..record }, now)
    }

    /// Enters a local state.
    fn change(&mut self, to: DatedRecord, evidence: Counts, scope: Scope) {
        let (from, state) = (self.state(), to.state());
        self.local_probes = Counts::default();
        match (scope, state) {
            (Scope::Pending, State::Closed) => self.stats.decide(),
            (Scope::StoreDown, State::HalfOpen) => {
                self.stats.forget_totals();
                self.forget_sent();
            }
            (Scope::StoreDown, State::Closed) => {
                self.stats.recovered(to.as_of);
                self.forget_sent();
            }
            // While it is open, its failures count toward the quorum.
            (Scope::Isolated, State::Closed) => self.stats.forget_own(),
            _ => {}
        }
        self.begin_probes(state == State::HalfOpen);
        self.local = Some(LocalState { record: to, evidence, scope, token: None, uncounted: false });
        self.generation += 1;
        if scope == Scope::Pending {
            self.wake(Wake::AtOnce);
        } else {
            self.report_local_change(from);
        }
        // After an isolated recovery, the fleet's state applies again.
        if scope == Scope::Isolated && state == State::Closed {
            self.local = None;
        }
    }

    /// Reports a local state to subscribers, because no event of the store will.
    pub(super) fn report_local_change(&mut self, from: State) {
        if let Some(local) = &self.local {
            let (to, evidence) = (local.record.record.clone(), local.evidence);
            self.effects.local_changes.push(LocalChange { from, to, epoch: self.epoch(), evidence });
        }
    }
}

/// The counts that led to a decision, for events.
fn figures(input: &TripInput, by_streak: bool) -> Counts {
    if by_streak || input.window == Counts::default() {
        Counts { failures: input.streak, ..Counts::default() }
    } else {
        input.window
    }
}
