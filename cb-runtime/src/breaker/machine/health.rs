//! Health checks: when one is due, which instance may run it, and the effect of its result.
//!
//! With the store, one instance per breaker checks: the leader, which holds a lease with a fencing token.
//! Without the store, or in a state that only this instance is in, each instance checks for itself.

mod check;

use std::time::Duration;

use check::CheckAuthority;
pub(crate) use check::{CheckTicket, CheckVerdict};

use super::state::DatedRecord;
use super::{Now, StateMachine, Wake};
use crate::clock::{Moment, micros};
use crate::config::{Health, Settings};
use crate::snapshot::State;
use crate::store::{LeaderRequest, LeaderView};

/// The leader's lease lapses this long after its latest renewal.
pub(crate) const TERM: Duration = Duration::from_secs(2);
/// Where the circuit is closed, the leader renews its lease at this interval, a fifth of the term. (Where it
/// is not, the exchanges that confirm its state do.)
const RENEWAL: Duration = Duration::from_millis(400);
/// Other instances request the lease at this interval.
const REQUEST: Duration = Duration::from_millis(800);
/// One breaker has at most this many unfinished checks. A further one is not made, and counts as failed.
const MAX_UNFINISHED: usize = 3;
/// A leader steps down after this many consecutive failed checks, because the fault may be its own.
const MAX_FAILURES: u32 = 3;
/// It does not request the lease again for this time, so that other instances try.
const ABSTENTION: Duration = TERM.saturating_mul(3);
/// If no other instance has taken the lease by then, it leads again. Others request the lease within
/// [`REQUEST`].
const TAKEOVER: Duration = REQUEST.saturating_add(RENEWAL);
/// The bounds of a check's timeout.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// The input of a decision about checks.
#[derive(Clone, Copy)]
pub(crate) struct CheckContext<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) record: &'a DatedRecord,
    /// The state's generation; see [`StateMachine::generation`].
    pub(crate) generation: u64,
    /// Whether the store does not answer, or the state is local and not proposed.
    pub(crate) alone: bool,
    /// Whether the state is proposed to the store, which has not answered yet.
    pub(crate) unconfirmed: bool,
    /// Whether other instances may share the store.
    pub(crate) is_shared: bool,
    pub(crate) now: Moment,
}

/// One breaker's health checks at this instance.
#[derive(Default)]
pub(crate) struct HealthChecks {
    lease: Option<LeaderLease>,
    /// Whether the store may have this instance as the leader.
    may_lead: bool,
    /// The time of the latest request for the lease.
    requested_at: Moment,
    /// The generation that the fields below belong to, and its beginning.
    generation: Option<u64>,
    seen_at: Moment,
    /// Consecutive failed checks in this generation.
    failures: u32,
    /// Those since this instance became the leader.
    failures_as_leader: u32,
    /// When it stepped down, while it abstains.
    stepped_down_at: Option<Moment>,
    /// The next check. `None`: no check has been run in this generation, and its settings have not changed.
    next: Option<Moment>,
    under_way: Option<CheckTicket>,
    last_number: u64,
    /// The beginning of the time without the store.
    alone_since: Option<Moment>,
    /// Whether the registry has been shut down.
    shut_down: bool,
}

struct LeaderLease {
    token: u64,
    /// By this instance's clock, counted from the request, so that no other instance leads before.
    until: Moment,
}

impl Health {
    /// The timeout of one check: `health_check_interval`, but at least 100 ms and at most 10 s.
    pub(crate) fn timeout(&self) -> Duration {
        self.interval.clamp(TIMEOUT.0, TIMEOUT.1)
    }
}

impl StateMachine {
    /// Whether this state has health checks. All instances then ask who leads.
    pub(crate) fn has_checks(&self, now: Now) -> bool {
        self.check_context(now).interval().is_some()
    }

    /// The health check that this instance must run now, if any. `unfinished`: the number of checks of this
    /// breaker that have not ended, including those that have timed out.
    pub(crate) fn begin_check(&mut self, unfinished: usize, now: Now) -> Option<CheckTicket> {
        self.with_health(now, |health, context| health.begin(unfinished, context))
    }

    /// Handles the end of a health check, which has passed unless there is an error.
    pub(crate) fn end_check(&mut self, ticket: &CheckTicket, error: Option<&str>, now: Now) {
        let verdict = self.with_health(now, |health, context| health.end(ticket, error, context, now.random));
        match verdict {
            CheckVerdict::Late => {}
            CheckVerdict::Stay => {
                if self.health.abstains(now.at) && self.health.may_lead {
                    self.wake(Wake::AtOnce);
                }
            }
            CheckVerdict::Close { reason, token } => self.close_after_check(reason, token, now),
            CheckVerdict::Open { reason, unconfirmed: true, .. } if !self.others_confirm(now) => {
                self.open_unconfirmed(&reason, now);
            }
            CheckVerdict::Open { reason, token, .. } => self.open_after_check(reason, token, now),
        }
    }

    /// Another instance has seen a call or a check fail since about the leader's previous check.
    fn others_confirm(&self, now: Now) -> bool {
        let idle = self.settings.health.as_ref().and_then(|health| health.idle_interval).unwrap_or_default();
        let span = micros(idle.saturating_mul(2).max(ABSTENTION));
        self.stats.others_failing_since(Moment(now.at.0.saturating_sub(span))) > 0
    }

    /// When the next check is due, if this instance has made one in this state.
    pub(crate) fn next_check(&self) -> Option<Moment> {
        self.health.next.filter(|_| self.health.generation == Some(self.generation))
    }

    pub(super) fn with_health<T>(
        &mut self,
        now: Now,
        act: impl FnOnce(&mut HealthChecks, CheckContext<'_>) -> T,
    ) -> T {
        let mut health = std::mem::take(&mut self.health);
        let result = act(&mut health, self.check_context(now));
        self.health = health;
        result
    }

    pub(super) fn check_context(&self, now: Now) -> CheckContext<'_> {
        CheckContext {
            settings: &self.settings,
            record: self.record(),
            generation: self.generation,
            alone: !self.is_leased(now),
            unconfirmed: self.proposes(),
            is_shared: now.is_shared,
            now: now.at,
        }
    }
}

impl CheckContext<'_> {
    /// How often to check in this state; `None`: not at all.
    fn interval(&self) -> Option<Duration> {
        let health = self.settings.health.as_ref()?;
        match self.record.state() {
            State::Open => Some(health.interval),
            State::Closed => health.idle_interval,
            _ => None,
        }
    }
}

impl HealthChecks {
    /// The next entry's request for the leader lease.
    pub(super) fn encode(&mut self, context: CheckContext<'_>) -> Option<LeaderRequest> {
        let want = self.wants_lease(context);
        if want {
            self.requested_at = context.now;
            self.may_lead = true;
        } else {
            self.lease = None;
            // An instance that abstains asks whether another one leads.
            if !std::mem::take(&mut self.may_lead) && !self.could_lead(context) {
                return None;
            }
            self.requested_at = context.now;
        }
        Some(LeaderRequest { want, term_us: micros(TERM) })
    }

    /// Handles the store's answer to the request.
    pub(super) fn receive(&mut self, view: Option<LeaderView>, context: CheckContext<'_>) {
        self.follow(context);
        let Some(view) = view else { return };
        self.may_lead = view.mine;
        if !view.mine {
            self.failures_as_leader = 0;
        }
        if view.remaining_us == 0 && self.stepped_down_at.is_some_and(|at| context.now >= at.after(TAKEOVER))
        {
            // Nobody else leads: it requests the lease again at once.
            self.stepped_down_at = None;
            self.requested_at = Moment::default();
        }
        let until = self.requested_at.after(TERM);
        self.lease = view.mine.then_some(LeaderLease { token: view.token, until });
    }

    pub(super) fn store_lost(&mut self) {
        self.lease = None;
        self.may_lead = false;
        self.stepped_down_at = None;
    }

    /// Begins to abstain, so that other instances lead.
    fn step_down(&mut self, now: Moment) {
        self.failures_as_leader = 0;
        self.stepped_down_at = Some(now);
    }

    /// Ends the checks of this instance. Others may lead at once.
    pub(super) fn shut_down(&mut self) {
        self.shut_down = true;
    }

    /// Whether the lease must be requested, renewed or released now.
    pub(super) fn want_exchange(&self, context: CheckContext<'_>) -> bool {
        if !self.wants_lease(context) && (self.may_lead || !self.could_lead(context)) {
            return self.may_lead;
        }
        let interval = if self.lease.is_some() { RENEWAL } else { REQUEST };
        let due = self.requested_at.after(interval);
        // After stepping down, it asks whether another instance leads as soon as one can have taken over.
        let taken_over = self.stepped_down_at.map(|at| at.after(TAKEOVER)).filter(|at| context.now < *at);
        context.now >= taken_over.unwrap_or(due)
    }

    /// Whether this state has checks, and thus a leader.
    fn wants_lease(&self, context: CheckContext<'_>) -> bool {
        self.could_lead(context) && !self.abstains(context.now)
    }

    /// Whether it has stepped down recently.
    fn abstains(&self, now: Moment) -> bool {
        self.stepped_down_at.is_some_and(|at| now < at.after(ABSTENTION))
    }

    fn could_lead(&self, context: CheckContext<'_>) -> bool {
        !self.shut_down && !context.alone && context.interval().is_some()
    }

    /// The scope in which this instance may check now, if any.
    fn authority(&self, context: CheckContext<'_>) -> Option<CheckAuthority> {
        if context.alone {
            return Some(CheckAuthority::Own);
        }
        self.lease
            .as_ref()
            .filter(|lease| context.now < lease.until && !self.abstains(context.now))
            .map(|lease| CheckAuthority::Fleet(lease.token))
    }

    /// Begins the check that is due now, if any.
    fn begin(&mut self, unfinished: usize, context: CheckContext<'_>) -> Option<CheckTicket> {
        self.follow(context);
        let due = self.due(context)?;
        if context.now < due || self.shut_down || self.under_way.is_some() || context.unconfirmed {
            return None;
        }
        let authority = self.authority(context)?;
        self.last_number += 1;
        let (number, blocked) = (self.last_number, unfinished >= MAX_UNFINISHED);
        self.under_way = Some(CheckTicket { number, authority, begun_at: context.now, blocked });
        self.under_way.clone()
    }

    /// The time of the fleet's next check; exact only at the instance that runs it.
    fn due(&self, context: CheckContext<'_>) -> Option<Moment> {
        let interval = context.interval()?;
        let due = match (self.next, context.record.state()) {
            (Some(next), _) => next,
            // The first one is due when the reset timeout has elapsed, wherever the circuit was opened.
            (None, State::Open) => context.record.until().unwrap_or(context.now),
            (None, _) => self.seen_at.after(interval),
        };
        // A store that stalls for a moment must not make a whole fleet check at once.
        Some(self.alone_since.map_or(due, |since| due.max(since.after(interval))))
    }

    /// Applies new settings: the next check is due within their interval from now.
    pub(super) fn configured(&mut self, context: CheckContext<'_>) {
        self.follow(context);
        let soon = context.interval().map(|interval| context.now.after(interval));
        self.next = self.due(context).zip(soon).map(|(due, soon)| due.min(soon));
    }

    /// Resets the fields of an earlier generation, and notes the beginning of the time without the store.
    fn follow(&mut self, context: CheckContext<'_>) {
        if self.generation != Some(context.generation) {
            self.generation = Some(context.generation);
            self.seen_at = context.now;
            self.failures = 0;
            self.next = None;
            self.under_way = None;
        }
        self.alone_since = context.alone.then(|| self.alone_since.unwrap_or(context.now));
    }

    /// Handles the end of a check, which has passed unless there is an error. `random`: a number in [0, 1),
    /// for the jitter.
    fn end(
        &mut self,
        ticket: &CheckTicket,
        error: Option<&str>,
        context: CheckContext<'_>,
        random: f64,
    ) -> CheckVerdict {
        self.follow(context);
        // It ends even if no check is configured now, because one may be configured again.
        let is_awaited = self.under_way.take_if(|under_way| under_way == ticket).is_some();
        let Some(interval) = context.interval().filter(|_| is_awaited && !self.shut_down) else {
            return CheckVerdict::Late;
        };
        let token = match self.authority(context) {
            // A check that was run for the fleet also counts for this instance.
            Some(CheckAuthority::Own) => None,
            Some(authority) if authority == ticket.authority => authority.token(),
            // It has no effect, so the next one is due as soon as an instance may run it.
            _ => return CheckVerdict::Late,
        };
        self.next = Some(ticket.begun_at.after(interval));
        if token.is_some() {
            self.failures_as_leader = if error.is_some() { self.failures_as_leader + 1 } else { 0 };
        }
        let unconfirmed = token.is_some() && context.settings.min_failing_instances > 1;
        // Of a store that only this instance has, no other could take the lease.
        if context.is_shared
            && (self.failures_as_leader >= MAX_FAILURES
                || unconfirmed && error.is_some() && context.record.state() == State::Closed)
        {
            self.step_down(context.now);
        }
        match (context.record.state(), error) {
            (State::Open, None) => {
                let reason = match self.failures {
                    0 => "health check passed".into(),
                    1 => "health check passed after 1 failure".into(),
                    failures => format!("health check passed after {failures} failures"),
                };
                CheckVerdict::Close { reason, token }
            }
            (State::Open, Some(_)) => {
                self.failures = self.failures.saturating_add(1);
                let step = context.record.record.attempt.max(1).saturating_add(self.failures);
                let span = context.settings.backoff.span(interval, step, random);
                self.next = Some(ticket.begun_at.after(span));
                CheckVerdict::Stay
            }
            (_, None) => CheckVerdict::Stay,
            (_, Some(error)) => {
                CheckVerdict::Open { reason: format!("health check failed: {error}"), token, unconfirmed }
            }
        }
    }
}

#[cfg(test)]
mod tests;
