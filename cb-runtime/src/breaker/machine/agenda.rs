//! Whether to exchange or report a breaker, and when to review it again.
//!
//! A breaker is *quiet* while it is closed and far from every limit. Its counts are sent in reports, which
//! cost the store a tenth of an exchange. Otherwise it is *tense*: it is exchanged, and each answer contains
//! the fleet's counts.

use std::time::Duration;

use super::policy;
use super::{Now, StateMachine};
use crate::clock::{Moment, micros};
use crate::snapshot::State;

/// Tense breakers are exchanged at this interval.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// The interval in which leases are renewed, a fifth of their term. Also that of exchanges in a local state
/// and while metrics-only.
const RENEWAL: Duration = Duration::from_millis(400);
/// A quiet breaker in use is exchanged this often, so that its keys do not expire and differing settings are
/// noticed.
const CONFIRMATION: Duration = Duration::from_secs(60);
/// New settings are exchanged more often: at an age between this and twice this, and whenever it has doubled.
/// Differences are noticed during a deploy, and a fleet that starts at once does not exchange at once.
const COMPARISON: Duration = Duration::from_secs(1);
/// They wait until they are this many times older than an answer takes: a slow store has enough to do.
const COMPARED_AT: u32 = 100;
/// Settings of this age are not new any more.
const COMPARED_FOR: Duration = Duration::from_secs(32);
/// After a failure, the fleet's counts are requested at growing intervals up to this one.
const FOLLOW_UP: Duration = Duration::from_secs(1);
/// They are not requested any more once the failure is this old.
const FOLLOW_UP_ENDS: Duration = Duration::from_secs(30);
/// Counters are read again this long after they were not empty: a concurrent success may have been missed.
const AGAIN: Duration = Duration::from_secs(1);

/// What the coordinator has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agenda {
    pub(crate) want: Want,
    /// When to review the breaker again, if nothing happens before.
    pub(crate) review_at: Option<Moment>,
    /// Whether its state has health checks.
    pub(crate) has_checks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Nothing,
    Report(Cadence),
    /// An exchange when the reports of all quiet breakers are due: those of an instance share a request.
    Confirmation,
    Exchange,
}

/// How often a quiet breaker is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cadence {
    /// With every review, for the time of a notice.
    Noticed,
    /// With the reports of all quiet breakers, even if it has failures: before the fleet's rate nears a
    /// limit, that of some instance does, whose breaker is tense then.
    Usual,
}

impl StateMachine {
    /// Evaluates the rules: successes alone can complete a rate's minimum of calls.
    pub(crate) fn review(&mut self, now: Now) -> Agenda {
        self.judge(now);
        self.watch(None, now);
        self.check_lapse(now);
        let (want, review_at, has_checks) = (self.want(now), self.review_at(now), self.has_checks(now));
        let agenda = Agenda { want, review_at, has_checks };
        if agenda.want != Want::Nothing {
            self.effects.wake = None;
        }
        agenda
    }

    fn want(&self, now: Now) -> Want {
        if self.must_exchange(now) {
            Want::Exchange
        } else if !self.stats.has_news() {
            Want::Nothing
        } else if !self.is_far_from_limits(now) {
            Want::Exchange
        } else {
            match (self.is_confirmed(now), self.notice.is_on(now.at)) {
                (true, false) => Want::Report(Cadence::Usual),
                (true, true) => Want::Report(Cadence::Noticed),
                (false, false) => Want::Confirmation,
                (false, true) => Want::Exchange,
            }
        }
    }

    /// Whether there is something that a report cannot contain.
    fn must_exchange(&self, now: Now) -> bool {
        let Some(silent_for) = self.silent_for(now.at) else { return true };
        // Proposed until it has elapsed by the store's clock, too.
        let expired = self.local.is_none() && self.record().has_expired(now.at) && silent_for >= PACE;
        let renews = self.probes.hold_leases() || self.local.is_some() || self.state() == State::MetricsOnly;
        self.proposes()
            || expired
            || self.exchange_next
            || !self.overrides.is_empty()
            || self.probes.want_exchange()
            || self.health.want_exchange(self.check_context(now))
            || renews && silent_for >= RENEWAL
            || self.follow_up(now).is_some_and(|interval| silent_for >= interval)
    }

    fn silent_for(&self, now: Moment) -> Option<Duration> {
        self.exchanged_at.map(|at| now.since(at))
    }

    /// The interval in which to request the fleet's counts after a failure, if a rule looks at streaks or the
    /// breaker is near a limit: another instance's success may have ended the streak, and others may have
    /// reported since.
    fn follow_up(&self, now: Now) -> Option<Duration> {
        let age = now.at.since(self.last_failure.filter(|_| self.stats.has_streak())?);
        let is_followed = self.state() == State::Closed
            && age < FOLLOW_UP_ENDS
            && (policy::looks_at_streaks(&self.settings) || self.nears_limit(now));
        is_followed.then(|| (age / 2).min(FOLLOW_UP))
    }

    /// Closed, far from every limit, and not due for a confirmation.
    pub(super) fn is_quiet(&self, now: Now) -> bool {
        self.is_far_from_limits(now) && self.is_confirmed(now)
    }

    fn is_confirmed(&self, now: Now) -> bool {
        self.exchanged_at.is_some_and(|at| at >= self.confirmation_due(now))
    }

    fn is_far_from_limits(&self, now: Now) -> bool {
        let closed = self.state() == State::Closed
            && self.local.is_none()
            && self.confirmed.as_ref().is_some_and(|confirmed| confirmed.state() == State::Closed);
        closed && !self.exchange_next && self.stats.can_be_reported(&self.settings) && !self.nears_limit(now)
    }

    /// The latest moment at which a quiet breaker in use was due for an exchange. All breakers of an instance
    /// are due together, so that they share a request. Instances are due at different moments.
    fn confirmation_due(&self, now: Now) -> Moment {
        let Now { at: now, answer_time, .. } = now;
        let first = micros(COMPARISON) + self.phase % micros(COMPARISON);
        let age = now.0.saturating_sub(self.configured_at.0);
        if age < first.max(micros(answer_time * COMPARED_AT)) {
            return Moment::default();
        }
        let doubled = |age: u64| Moment(self.configured_at.0 + (first << (age / first).ilog2()));
        if age < micros(COMPARED_FOR) {
            return doubled(age);
        }
        let period = micros(CONFIRMATION);
        let at = now.0.saturating_sub(now.0.wrapping_add(self.phase) % period);
        Moment(at).max(doubled(micros(COMPARED_FOR / 2)))
    }

    /// Half of a limit has been reached, by the fleet's counts or by this instance's own.
    fn nears_limit(&self, now: Now) -> bool {
        let own = self.own_trip_input(now);
        own.is_some_and(|own| policy::nears_limit(&self.settings, own.window))
            || policy::nears_limit(&self.settings, self.trip_input(now).window)
    }

    pub(crate) fn exchange_next(&mut self) {
        self.exchange_next = true;
    }

    fn review_at(&self, now: Now) -> Option<Moment> {
        let pace = now.at.after(PACE);
        let soon = self.local.is_some()
            || self.probes.are_held()
            || self.has_checks(now)
            || self.follow_up(now).is_some()
            || self.state() == State::MetricsOnly
            || self.notice.is_on(now.at)
            || self.state() == State::Closed && self.nears_limit(now);
        let expiry = self.record().until().filter(|_| self.state().is_manual()).map(|until| until.max(pace));
        let counted = self.stats.has_news().then(|| now.at.after(AGAIN));
        let heard_at = self.used_at.max(self.received_at.unwrap_or_default());
        let lapse = self.lapses_at(heard_at).map(|at| at.max(pace));
        [soon.then_some(pace), expiry, counted, lapse].into_iter().flatten().min()
    }
}
