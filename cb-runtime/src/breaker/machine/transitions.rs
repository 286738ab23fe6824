//! Outcomes and probes of this instance, and the transitions that they lead to.

use std::time::Duration;

use super::policy::{self, ProbeVerdict, TripInput};
use super::state::{DatedRecord, LocalChange, LocalState, Scope};
use super::stats::{Successes, Unjudged};
use super::{Headroom, Now, PACE, StateMachine, Wake};
use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::{Counts, LeaseId, MAX_SPAN_US, Record};

/// The reason of a transition.
const EXPIRED: &str = "expired";
const DUE: &str = "reset timeout has elapsed";

/// Whether a caller gets a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeAdmission {
    /// The state admits all calls meanwhile.
    Admitted,
    /// The call is this probe.
    Granted(LeaseId),
    /// The probe was requested from the store.
    Requested(LeaseId),
    Denied,
}

/// The result of a call that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResult {
    Failure {
        slow: bool,
    },
    SlowSuccess,
    /// A failure that requests to open the circuit for this duration.
    OpenFor(Duration),
}

fn open_for_reason(span: Duration) -> String {
    format!("the dependency asked for {} (open_for)", humantime::format_duration(span))
}

impl StateMachine {
    /// Absorbs the successes of the breaker's counters, and counts overdue probes as failed. The latest
    /// success ended between the time that the counters have noted and now. The earliest possible time is
    /// used, so that the success never erases a later failure of another instance.
    pub(crate) fn absorb(&mut self, successes: Successes, unjudged: Unjudged, now: Now) {
        if unjudged.failures > 0 {
            self.absorb_unjudged(successes, unjudged, now);
        }
        // Strictly increasing, so that a success and a failure of this instance keep their order.
        let earliest = Moment(self.absorbed_at.0 + 1);
        let at = now.at.max(Moment(earliest.0 + 1));
        let new = successes.count.wrapping_sub(self.absorbed);
        if new > 0 && self.counts_calls() {
            let latest = successes.latest.unwrap_or(earliest).clamp(earliest, Moment(at.0 - 1));
            self.stats.successes(new, latest, at);
        }
        self.absorbed = successes.count;
        self.absorbed_at = at;
        self.expire_probes(now);
    }

    /// Absorbs failures that were not judged, and their threads' successes before them. They belong to the
    /// bucket of the latest absorption: there is no headroom beyond it. The other successes may have come
    /// after them, and are absorbed as of now.
    fn absorb_unjudged(&mut self, successes: Successes, unjudged: Unjudged, now: Now) {
        let earliest = Moment(self.absorbed_at.0 + 1);
        let end = self.stats.end_of_bucket(self.absorbed_at).unwrap_or(now.at);
        let at = unjudged.latest.min(Moment(end.0 - 1)).min(now.at).max(Moment(earliest.0 + 1));
        let new = successes.count.wrapping_sub(self.absorbed);
        let unjudged = Unjudged { successes: unjudged.successes.min(new), ..unjudged };
        if self.counts_calls() {
            let latest = successes.latest.unwrap_or(earliest).clamp(earliest, Moment(at.0 - 1));
            self.stats.unjudged(unjudged, latest, at);
            self.last_failure = Some(at);
        }
        self.absorbed = self.absorbed.wrapping_add(unjudged.successes);
        self.absorbed_at = at;
    }

    /// The failures that need not be judged. There is none without the coordinator, which looks at the
    /// breaker within its pace after a judged failure, and is not woken by the others.
    pub(crate) fn headroom(&self, now: Now) -> Option<Headroom> {
        let is_reviewed = now.store_up && self.local.is_none() && self.state() == State::Closed;
        if self.headroom == 0 || !is_reviewed {
            return None;
        }
        let until = self.stats.stays_until(now)?.min(now.at.after(PACE));
        Some(Headroom { failures: self.headroom, until })
    }

    fn counts_calls(&self) -> bool {
        matches!(self.state(), State::Closed | State::MetricsOnly)
    }

    /// Records a call that ended while closed or metrics-only. The successes before it have been absorbed.
    pub(crate) fn record_call(&mut self, result: CallResult, now: Now) {
        let at = self.absorbed_at;
        match result {
            CallResult::Failure { slow } => {
                self.stats.failure(slow, at);
                self.last_failure = Some(now.at);
            }
            CallResult::SlowSuccess => self.stats.slow_success(at),
            CallResult::OpenFor(_) => self.stats.failure(false, at),
        }
        let requested = match result {
            CallResult::OpenFor(span) => Some(span.min(Duration::from_micros(MAX_SPAN_US))),
            _ => None,
        };
        if now.store_up {
            self.wake(Wake::Paced);
        }
        if self.state() == State::MetricsOnly {
            if let Some(span) = requested {
                self.would_open_until = now.at.after(span);
            }
            return self.watch(requested.map(open_for_reason), now);
        }
        match requested {
            Some(span) => self.open_on_request(span, now),
            None => self.judge(now),
        }
    }

    /// Records the end of a probe. `result`: whether it succeeded, and whether it was slow; `None` for
    /// outcomes that do not count. Returns whether the lease was still valid: otherwise the outcome does not
    /// count.
    pub(crate) fn record_probe(
        &mut self,
        id: LeaseId,
        result: Option<(bool, bool)>,
        open_for: Option<Duration>,
        now: Now,
    ) -> bool {
        let valid = self.probes.end(id, self.is_leased(now), now.at);
        if now.store_up {
            self.wake(Wake::AtOnce);
        }
        if let Some((success, slow)) = result.filter(|_| valid) {
            // The counters have it as well, and it must not be absorbed again as a call's success.
            self.absorbed = self.absorbed.wrapping_add(u64::from(success && !slow));
            self.count_probe(success, slow);
            match open_for {
                Some(span) => self.open_on_request(span.min(Duration::from_micros(MAX_SPAN_US)), now),
                None => self.judge(now),
            }
        }
        valid
    }

    fn count_probe(&mut self, success: bool, slow: bool) {
        let probe =
            Counts { successes: u64::from(success), failures: u64::from(!success), slow: u64::from(slow) };
        if self.probes_are_local() {
            self.local_probes = self.local_probes.plus(probe);
        } else {
            self.stats.count_probe(probe);
        }
    }

    /// Counts overdue probes as failed, whether or not their calls end.
    fn expire_probes(&mut self, now: Now) {
        let overdue = self.probes.expire(self.is_leased(now), now.at);
        for _ in 0..overdue {
            self.count_probe(false, false);
        }
        if overdue > 0 {
            self.wake(Wake::AtOnce);
            self.judge(now);
        }
    }

    /// Returns a probe that was granted to a caller that has gone.
    pub(crate) fn release_probe(&mut self, id: LeaseId, now: Now) {
        self.probes.end(id, self.is_leased(now), now.at);
        self.wake(Wake::AtOnce);
    }

    /// Sets the call timeout of a probe.
    pub(crate) fn limit_probe(&mut self, id: LeaseId, limit: Duration) {
        self.probes.limit(id, limit.saturating_add(policy::PROBE_GRACE));
    }

    /// Admits a call as a probe, requests a probe from the store, or denies it.
    pub(crate) fn admit_probe(&mut self, now: Now) -> ProbeAdmission {
        let state = self.state();
        if state.admits() {
            return ProbeAdmission::Admitted;
        }
        if state != State::HalfOpen && !self.record().is_due(now.at) {
            return ProbeAdmission::Denied;
        }
        let limit = self.settings.half_open_max_calls;
        if now.store_up && !self.is_isolated() {
            let requested = self.in_flight.as_ref().map_or(0, |in_flight| in_flight.leases.len());
            let Some(id) = self.probes.join(limit, requested, now.at) else { return ProbeAdmission::Denied };
            self.wake(Wake::AtOnce);
            return ProbeAdmission::Requested(id);
        }
        if state == State::Open {
            let to = self.half_open_record(now.at);
            let scope = self.scope(false);
            self.change(to, Counts::default(), scope);
        }
        let longest = policy::longest_probe(&self.settings);
        let id = self.probes.join_without_store(limit, longest, now.at);
        id.map_or(ProbeAdmission::Denied, ProbeAdmission::Granted)
    }

    /// While half-open, the time until which no probe is available, unless an outcome or an answer changes
    /// that.
    pub(crate) fn probes_denied_until(&self, now: Moment) -> Moment {
        let requested = self.in_flight.as_ref().map_or(0, |in_flight| in_flight.leases.len());
        self.probes.denied_until(self.settings.half_open_max_calls, requested, now)
    }

    /// Opens the circuit for the duration that a call has requested.
    fn open_on_request(&mut self, span: Duration, now: Now) {
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
            State::Closed => {
                let input = self.trip_input(now);
                self.headroom = policy::headroom(&self.settings, input.window);
                if let Some((reason, input, isolated)) = self.verdict(input, now) {
                    let quorum = self.settings.min_failing_instances;
                    let by_streak = policy::trips_by_streak(&self.settings, &input, quorum);
                    if !by_streak && !isolated && self.awaits_reports(now) {
                        self.exchange_next();
                        return self.wake(if self.wants_notice(now) { Wake::AtOnce } else { Wake::Paced });
                    }
                    let scope = if isolated { Scope::Isolated } else { self.scope(now.store_up) };
                    self.open(reason, figures(&input), scope, now);
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
        let watching = self.state() == State::MetricsOnly;
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
        if let Some(reason) = policy::trip(&self.settings, &input, quorum) {
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

    pub(super) fn half_open_record(&self, now: Moment) -> DatedRecord {
        let Record { reset_timeout_us, attempt, .. } = self.record().record;
        let (state, reason) = (State::HalfOpen, DUE.to_owned());
        self.decided(Record { state, reason, reset_timeout_us, attempt, ..Record::closed() }, now)
    }

    pub(super) fn expired_record(&self, now: Moment) -> DatedRecord {
        self.decided(Record { reason: EXPIRED.into(), ..Record::closed() }, now)
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
fn figures(input: &TripInput) -> Counts {
    if input.window == Counts::default() {
        Counts { failures: input.streak, ..Counts::default() }
    } else {
        input.window
    }
}
