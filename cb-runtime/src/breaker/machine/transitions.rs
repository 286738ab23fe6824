//! What happens here, and what it means: outcomes of calls, probes and checks, and the changes that they lead to.

use std::time::Duration;

use super::super::counters::Successes;
use super::StateMachine;
use super::policy::{self, ProbeVerdict, TripInput};
use super::state::{Change, LocalState, Scope, Standing};
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::{Counts, MAX_SPAN_US};

/// Why a state held by hand has ended by itself.
const EXPIRED: &str = "expired";

/// The reason where a call has said for how long the circuit must be open.
pub(crate) fn asked_for(span: Duration) -> String {
    format!("the dependency asked for {} (open_for)", humantime::format_duration(span))
}

impl StateMachine {
    /// Accounts for the successes that the counters has counted since the last time. The latest of them ended
    /// somewhere between the time that it knows and now; the run places it at the beginning of that
    /// span, so that it never erases another instance's failure which it may have preceded.
    /// Returns the moment to note a failure under that has happened now.
    pub(crate) fn fold(&mut self, counters: Successes, now: Moment) -> Moment {
        // Strictly increasing, so that a success and a failure of this instance keep their order.
        let earliest = Moment(self.folded_at.0 + 1);
        let now = now.max(Moment(earliest.0 + 1));
        let new = counters.count.wrapping_sub(self.folded);
        if new > 0 && self.counts_calls() {
            let latest = counters.latest.unwrap_or(earliest).clamp(earliest, Moment(now.0 - 1));
            self.stats.successes(new, latest, now);
        }
        self.folded = counters.count;
        self.folded_at = now;
        now
    }

    fn counts_calls(&self) -> bool {
        matches!(self.state(), State::Closed | State::MetricsOnly)
    }

    /// A call has failed while closed. `counters`: the successes so far.
    pub(crate) fn failure(
        &mut self,
        counters: Successes,
        slow: bool,
        now: Moment,
        skew: u64,
        store_up: bool,
    ) -> Option<Change> {
        let at = self.fold(counters, now);
        self.stats.failure(slow, at);
        self.last_failure = Some(now);
        self.judge(now, skew, store_up)
    }

    /// A call has succeeded while closed, and taken too long.
    pub(crate) fn slow_success(
        &mut self,
        counters: Successes,
        now: Moment,
        skew: u64,
        store_up: bool,
    ) -> Option<Change> {
        let at = self.fold(counters, now);
        self.stats.slow_success(at);
        self.judge(now, skew, store_up)
    }

    /// A probe has ended with a result.
    pub(crate) fn probe(&mut self, success: bool, slow: bool, now: Moment, store_up: bool) -> Option<Change> {
        self.count_probe(success, slow);
        self.judge(now, 0, store_up)
    }

    fn count_probe(&mut self, success: bool, slow: bool) {
        let probe =
            Counts { successes: u64::from(success), failures: u64::from(!success), slow: u64::from(slow) };
        let sum = if self.probes_alone() { &mut self.alone } else { &mut self.stats.pending.counts };
        *sum = sum.plus(probe);
    }

    /// A call has failed, and said for how long the circuit must be open. `counters`: the successes so far.
    pub(crate) fn open_on_request(
        &mut self,
        span: Duration,
        counters: Successes,
        now: Moment,
        store_up: bool,
    ) -> Change {
        let at = self.fold(counters, now);
        let span = span.min(Duration::from_micros(MAX_SPAN_US));
        if self.state() == State::HalfOpen {
            self.count_probe(false, false);
        } else {
            self.stats.failure(false, at);
        }
        let reason = asked_for(span);
        let evidence = Counts { failures: 1, ..Counts::default() };
        let scope = self.scope(store_up);
        self.open_until(reason, evidence, self.next_attempt(now), span, now, scope)
    }

    /// Looks at everything that is known and changes the state if that is what it means.
    pub(crate) fn judge(&mut self, now: Moment, skew: u64, store_up: bool) -> Option<Change> {
        match self.state() {
            State::Closed => self.judge_calls(now, skew, store_up),
            State::HalfOpen => {
                let probes = self.counts();
                let scope = self.scope(store_up);
                match policy::judge_probes(&self.settings, probes) {
                    ProbeVerdict::Wait => None,
                    ProbeVerdict::Reopen(reason) => Some(self.open(reason, probes, now, scope)),
                    ProbeVerdict::Close(reason) => Some(self.close(reason, probes, now, scope)),
                }
            }
            // With a store, the fleet leaves it together; see `proposal`.
            _ if !store_up && self.standing().has_expired(now) => {
                let to = self.after_expiry(now);
                Some(self.change(to, Counts::default(), Scope::StoreDown))
            }
            _ => None,
        }
    }

    pub(super) fn after_expiry(&self, now: Moment) -> Standing {
        Standing { reason: EXPIRED.into(), originator: self.instance.clone(), ..Standing::closed(now) }
    }

    /// Why it would open now if it did not only watch.
    pub(crate) fn would_open(&self, now: Moment, skew: u64, store_up: bool) -> Option<String> {
        let watching = self.state() == State::MetricsOnly;
        let verdict = watching.then(|| self.verdict(now, skew, store_up))?;
        verdict.map(|(reason, ..)| reason)
    }

    fn judge_calls(&mut self, now: Moment, skew: u64, store_up: bool) -> Option<Change> {
        let (reason, input, isolated) = self.verdict(now, skew, store_up)?;
        let scope = if isolated { Scope::Isolated } else { self.scope(store_up) };
        Some(self.open(reason, figures(&input), now, scope))
    }

    /// Whether what has been counted speaks for opening, and why; `true`: for this instance alone.
    fn verdict(&self, now: Moment, skew: u64, store_up: bool) -> Option<(String, TripInput, bool)> {
        let input = self.trip_input(now, skew);
        // Who is cut off cannot know what others see, and protects itself.
        let quorum = if store_up { self.settings.min_failing_instances } else { 1 };
        if let Some(reason) = policy::trip(&self.settings, &input, quorum) {
            return Some((reason, input, false));
        }
        let own = self.stats.own_trip_input(now).filter(|_| quorum > 1)?;
        let reason = policy::trip_alone(&self.settings, &own)?;
        Some((reason, own, true))
    }

    /// What a change that this instance makes now is meant as.
    fn scope(&self, store_up: bool) -> Scope {
        match &self.local {
            Some(LocalState { scope: Scope::Isolated, .. }) => Scope::Isolated,
            _ if store_up => Scope::Pending,
            _ => Scope::StoreDown,
        }
    }

    /// How many openings in a row the next one makes.
    fn next_attempt(&self, now: Moment) -> u32 {
        match self.state() {
            State::Closed if self.ramp(now).is_none() => 1,
            _ => self.standing().attempt.saturating_add(1),
        }
    }

    /// A health check has passed while open. `token`: of the role that it was made in, if it was.
    pub(crate) fn close_after_check(
        &mut self,
        reason: String,
        token: Option<u64>,
        now: Moment,
        store_up: bool,
    ) -> Change {
        let scope = self.scope(store_up);
        let change = self.close(reason, Counts::default(), now, scope);
        self.fence(token, change)
    }

    /// A health check has failed while closed. `token`: of the role that it was made in, if it was.
    pub(crate) fn open_after_check(
        &mut self,
        reason: String,
        token: Option<u64>,
        now: Moment,
        store_up: bool,
    ) -> Change {
        let scope = self.scope(store_up);
        let change = self.open(reason, self.counts(), now, scope);
        self.fence(token, change)
    }

    fn fence(&mut self, token: Option<u64>, change: Change) -> Change {
        if let Some(local) = &mut self.local {
            local.token = token;
        }
        change
    }

    fn close(&mut self, reason: String, evidence: Counts, now: Moment, scope: Scope) -> Change {
        let attempt = if self.settings.ramp_up.is_some() { self.standing().attempt } else { 0 };
        let to = Standing { reason, originator: self.instance.clone(), attempt, ..Standing::closed(now) };
        self.change(to, evidence, scope)
    }

    fn open(&mut self, reason: String, evidence: Counts, now: Moment, scope: Scope) -> Change {
        let attempt = self.next_attempt(now);
        let reset_timeout = policy::open_for(&self.settings, attempt, fastrand::f64());
        self.open_until(reason, evidence, attempt, reset_timeout, now, scope)
    }

    fn open_until(
        &mut self,
        reason: String,
        evidence: Counts,
        attempt: u32,
        reset_timeout: Duration,
        now: Moment,
        scope: Scope,
    ) -> Change {
        let to = Standing {
            state: State::Open,
            reason,
            originator: self.instance.clone(),
            actor: String::new(),
            since: now,
            until: Some(now.after(reset_timeout)),
            reset_timeout,
            attempt,
        };
        self.change(to, evidence, scope)
    }

    /// This instance's own half-open: the store is away, or it is in a state of its own anyway.
    pub(crate) fn half_open_alone(&mut self, now: Moment) -> Change {
        let standing = self.standing();
        let to = Standing {
            state: State::HalfOpen,
            reason: "reset timeout is over".into(),
            originator: self.instance.clone(),
            actor: String::new(),
            since: now,
            until: None,
            reset_timeout: standing.reset_timeout,
            attempt: standing.attempt,
        };
        let scope = self.scope(false);
        self.change(to, Counts::default(), scope)
    }

    /// Takes a standing of its own.
    fn change(&mut self, to: Standing, evidence: Counts, scope: Scope) -> Change {
        let from = self.state();
        self.alone = Counts::default();
        match (scope, to.state) {
            (Scope::StoreDown, State::HalfOpen) => self.stats.forget_totals(),
            (Scope::StoreDown, State::Closed) => self.stats.recovered(to.since),
            (Scope::Isolated, _) => self.stats.forget_own(),
            _ => {}
        }
        self.probes.begin_epoch(to.state == State::HalfOpen);
        // Who has recovered by itself is where the fleet is again.
        let local = LocalState { standing: to.clone(), evidence, scope, token: None };
        self.local = Some(local).filter(|_| scope != Scope::Isolated || to.state != State::Closed);
        Change { from, to, evidence, private: scope != Scope::Pending }
    }

    /// The store has gone away. What was on its way there is this instance's private affair from now on.
    pub(crate) fn store_lost(&mut self) -> Option<Change> {
        self.probes.store_lost();
        let from = self.confirmed.as_ref().map_or(State::Closed, |(_, standing)| standing.state);
        let local = self.local.as_mut().filter(|local| local.scope == Scope::Pending)?;
        local.scope = Scope::StoreDown;
        local.token = None;
        Some(Change { from, to: local.standing.clone(), evidence: local.evidence, private: true })
    }
}

/// What led to a decision, for those who are told of it.
fn figures(input: &TripInput) -> Counts {
    if input.window == Counts::default() {
        Counts { failures: input.streak, ..Counts::default() }
    } else {
        input.window
    }
}
