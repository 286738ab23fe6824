//! The transitions of this instance: the rules evaluated, and the states that follow.

use std::time::Duration;

use super::policy::{self, ProbeVerdict, TripInput};
use super::state::{DatedRecord, LocalChange, LocalState, Scope};
use super::{Now, StateMachine, Wake};
use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::{Counts, Record};

/// The reason of a transition.
const DUE: &str = "reset timeout has elapsed";

pub(super) fn open_for_reason(span: Duration) -> String {
    format!("the dependency asked for {} (open_for)", humantime::format_duration(span))
}

impl StateMachine {
    /// Opens the circuit for the duration that a call has requested.
    pub(super) fn open_on_request(&mut self, span: Duration, now: Now) {
        let evidence = Counts { failures: 1, ..Counts::default() };
        let scope = self.scope(now.store_up);
        self.open_until(open_for_reason(span), evidence, self.next_attempt(now.at), span, now.at, scope);
        if let Some(local) = &mut self.local {
            local.uncounted = true;
        }
    }

    /// Evaluates the rules, and changes the state accordingly.
    pub(crate) fn judge(&mut self, now: Now) {
        match self.state() {
            State::Closed | State::HalfOpen if self.only_observes => {}
            State::Closed => {
                let input = self.trip_input(now);
                self.headroom = policy::headroom(&self.settings, input.window);
                if let Some((reason, input, isolated)) = self.verdict(input, now) {
                    let instances = if isolated { 1 } else { self.settings.min_failing_instances };
                    let by_streak = policy::trips_by_streak(&self.settings, &input, instances);
                    if !by_streak && !isolated && self.awaits_reports(now) {
                        self.exchange_next();
                        return self.wake(if self.needs_notice(now) { Wake::AtOnce } else { Wake::Paced });
                    }
                    let scope = if isolated { Scope::Isolated } else { self.scope(now.store_up) };
                    self.open(reason, figures(&input, by_streak), scope, now);
                } else {
                    self.notice.end_wait();
                }
            }
            State::HalfOpen => {
                let probes = self.counts();
                let scope = self.scope(now.store_up);
                match policy::judge_probes(&self.settings, probes) {
                    ProbeVerdict::Wait => {}
                    ProbeVerdict::Reopen(reason) => self.open(reason, probes, scope, now),
                    ProbeVerdict::Close(reason) => self.close(reason, probes, scope, now.at),
                }
            }
            // With a store, the fleet leaves the state together; see `proposal`.
            _ if !now.store_up && self.record().has_expired(now.at) => {
                self.change(self.expired_record(now.at), Counts::default(), Scope::StoreDown);
            }
            _ => {}
        }
    }

    /// While metrics-only: reports once that the breaker would have opened. `requested`: the reason, if a
    /// call has requested it (`open_for`).
    pub(super) fn watch(&mut self, requested: Option<String>, now: Now) {
        let watching = self.state() == State::MetricsOnly && !self.only_observes;
        let verdict = || self.verdict(self.trip_input(now), now).map(|(reason, ..)| reason);
        let reason = requested.or_else(|| watching.then(verdict).flatten());
        let holds = self.would_open && now.at < self.would_open_until;
        let before = std::mem::replace(&mut self.would_open, holds || reason.is_some());
        if !before && reason.is_some() {
            self.effects.would_open = reason;
        }
    }

    /// The reason to open, if there is one, and the counts; `true` if only this instance is to open.
    fn verdict(&self, input: TripInput, now: Now) -> Option<(String, TripInput, bool)> {
        // Without the store, the other instances' failures are unknown, and no quorum is needed.
        let quorum = if now.store_up { self.settings.min_failing_instances } else { 1 };
        if let Some(reason) = policy::trip(&self.settings, &input, quorum)
            && !self.rests_on_old_counts(&input, quorum, now)
        {
            return Some((reason, input, false));
        }
        let own = if quorum > 1 { self.own_trip_input(now)? } else { return None };
        let reason = policy::trip_alone(&self.settings, &own)?;
        Some((reason, own, true))
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
        let attempt = self.next_attempt(now.at);
        let reset_timeout = policy::open_for(&self.settings, attempt, now.random);
        self.open_until(reason, evidence, attempt, reset_timeout, now.at, scope);
    }

    fn open_until(
        &mut self,
        reason: String,
        evidence: Counts,
        attempt: u32,
        reset_timeout: Duration,
        now: Moment,
        scope: Scope,
    ) {
        let reset_timeout_us = micros(reset_timeout);
        let remaining_us = Some(reset_timeout_us);
        let record = Record {
            state: State::Open,
            reason,
            remaining_us,
            reset_timeout_us,
            attempt,
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
