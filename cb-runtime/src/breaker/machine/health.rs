//! Health checks: when one is due, who may make it, and what its result means. Pure decisions.
//!
//! With the store there is one instance per breaker that checks: the one that has the role, which is a lease with a
//! fencing token. Without it (or in a state that is this instance's own) each instance checks for itself.

use std::sync::Arc;
use std::time::Duration;

use super::state::Standing;
use crate::clock::{Moment, micros};
use crate::config::{Health, Settings};
use crate::snapshot::State;
use crate::store::{RoleAsk, RoleView};

/// The role lapses so long after its holder was last heard of.
pub(crate) const TERM: Duration = Duration::from_secs(2);
/// Where the circuit is closed: its holder renews the role at this interval, a fifth of the term. (Where it is not, the
/// exchanges that confirm its state do.)
const RENEWAL: Duration = Duration::from_millis(400);
/// And others ask at this one whether it is free.
const QUESTION: Duration = Duration::from_millis(800);
/// So many checks of one breaker may be stuck; a further one is not made, and counts as failed.
const MOST_STUCK: usize = 3;
/// What limits the time of one check, whatever the interval.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What a decision about checks looks at.
#[derive(Clone, Copy)]
pub(crate) struct CheckContext<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) standing: &'a Standing,
    /// Of the standing, at this instance: see [`GateWord`](super::gate::GateWord).
    pub(crate) generation: u64,
    /// The store does not answer, or the standing is this instance's own and not meant for others.
    pub(crate) alone: bool,
    /// The standing is on its way to the store.
    pub(crate) unconfirmed: bool,
    pub(crate) now: Moment,
}

/// One breaker's health checks, as far as this instance has to do with them.
#[derive(Default)]
pub(crate) struct Checks {
    role: Option<Role>,
    /// The store may think that this instance has the role.
    may_have_role: bool,
    /// When the role was asked for last.
    asked_at: Moment,
    /// The generation that the following is about, and when it was first seen.
    generation: Option<u64>,
    seen_at: Moment,
    /// Of this generation, in a row.
    failures: u32,
    /// `None`: no check has been made in this generation, nor have its settings changed.
    next: Option<Moment>,
    under_way: Option<Ticket>,
    last_number: u64,
    /// Held by every check that has not ended.
    stuck: Arc<()>,
    /// Since when this instance has been alone.
    alone_since: Option<Moment>,
    /// The registry has been shut down.
    resigned: bool,
}

struct Role {
    token: u64,
    /// By this instance's clock, counted from the question: nobody else has the role before.
    until: Moment,
}

/// In whose name a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckAuthority {
    /// This instance's own.
    Own,
    /// The fleet's, in the role that has this token.
    Fleet(u64),
}

impl CheckAuthority {
    fn token(self) -> Option<u64> {
        match self {
            CheckAuthority::Own => None,
            CheckAuthority::Fleet(token) => Some(token),
        }
    }
}

/// A check that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    number: u64,
    authority: CheckAuthority,
    begun_at: Moment,
}

#[cfg(test)]
impl Ticket {
    pub(crate) fn token(&self) -> Option<u64> {
        self.authority.token()
    }
}

/// What is to be made.
pub(crate) struct CheckOrder {
    pub(crate) ticket: Ticket,
    /// `None`: too many are stuck.
    pub(crate) slot: Option<Arc<()>>,
}

/// What the result of a check means.
#[derive(Debug, PartialEq)]
pub(crate) enum CheckVerdict {
    /// It comes too late, or from one who has lost the role: nothing.
    Late,
    /// The state stays.
    Stay,
    Close {
        reason: String,
        token: Option<u64>,
    },
    Open {
        reason: String,
        token: Option<u64>,
    },
}

impl Health {
    /// How long one check may take: `health_check_interval`, but at least 100 ms and at most 10 s.
    pub(crate) fn timeout(&self) -> Duration {
        self.interval.clamp(TIMEOUT.0, TIMEOUT.1)
    }
}

impl CheckContext<'_> {
    /// How often to check in this state; `None`: not at all.
    fn interval(&self) -> Option<Duration> {
        let health = self.settings.health.as_ref()?;
        match self.standing.state {
            State::Open => Some(health.interval),
            State::Closed => health.idle_interval,
            _ => None,
        }
    }
}

impl Checks {
    /// What to say about the role in the exchange that is being prepared.
    pub(crate) fn ask(&mut self, context: CheckContext<'_>) -> Option<RoleAsk> {
        let want = self.wants_role(context);
        if want {
            self.asked_at = context.now;
            self.may_have_role = true;
        } else {
            self.role = None;
            if !std::mem::take(&mut self.may_have_role) {
                return None;
            }
        }
        Some(RoleAsk { want, term_us: micros(TERM) })
    }

    /// The store's answer to that.
    pub(crate) fn answered(&mut self, view: Option<RoleView>, context: CheckContext<'_>) {
        self.follow(context);
        let Some(view) = view else { return };
        self.may_have_role = view.mine;
        let until = self.asked_at.after(TERM);
        self.role = view.mine.then_some(Role { token: view.token, until });
    }

    pub(crate) fn store_lost(&mut self) {
        self.role = None;
        self.may_have_role = false;
    }

    /// No more checks here, and others may have the role at once.
    pub(crate) fn step_down(&mut self) {
        self.resigned = true;
    }

    /// Whether the store is to be asked about the role now.
    pub(crate) fn want_exchange(&self, context: CheckContext<'_>) -> bool {
        if !self.wants_role(context) {
            return self.may_have_role;
        }
        let interval = if self.role.is_some() { RENEWAL } else { QUESTION };
        context.now >= self.asked_at.after(interval)
    }

    /// Where nothing is to be checked, nobody has the role.
    fn wants_role(&self, context: CheckContext<'_>) -> bool {
        !self.resigned && !context.alone && context.interval().is_some()
    }

    /// In whose name this instance may check now, if it may.
    fn authority(&self, context: CheckContext<'_>) -> Option<CheckAuthority> {
        if context.alone {
            return Some(CheckAuthority::Own);
        }
        self.role
            .as_ref()
            .filter(|role| context.now < role.until)
            .map(|role| CheckAuthority::Fleet(role.token))
    }

    /// The check to be made now, if one is.
    pub(crate) fn begin(&mut self, context: CheckContext<'_>) -> Option<CheckOrder> {
        self.follow(context);
        let due = self.due(context)?;
        if context.now < due || self.resigned || self.under_way.is_some() || context.unconfirmed {
            return None;
        }
        let authority = self.authority(context)?;
        self.last_number += 1;
        let ticket = Ticket { number: self.last_number, authority, begun_at: context.now };
        self.under_way = Some(ticket.clone());
        let slot = (Arc::strong_count(&self.stuck) <= MOST_STUCK).then(|| self.stuck.clone());
        Some(CheckOrder { ticket, slot })
    }

    /// When the next check is due, whoever makes it; only an instance that checks knows it exactly.
    fn due(&self, context: CheckContext<'_>) -> Option<Moment> {
        let interval = context.interval()?;
        let due = match (self.next, context.standing.state) {
            (Some(next), _) => next,
            // The first one is due when the state says so, whoever has opened it.
            (None, State::Open) => context.standing.until.unwrap_or(context.now),
            (None, _) => self.seen_at.after(interval),
        };
        // A store that stalls for a moment must not make a whole fleet check at once.
        Some(self.alone_since.map_or(due, |since| due.max(since.after(interval))))
    }

    /// Other settings are in force: the next check comes no later than they say from now on.
    pub(crate) fn configured(&mut self, context: CheckContext<'_>) {
        self.follow(context);
        let soon = context.interval().map(|interval| context.now.after(interval));
        self.next = self.due(context).zip(soon).map(|(due, soon)| due.min(soon));
    }

    /// When the next check is due, if this instance has made one in this state.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.next
    }

    /// What was about an earlier generation is over; and who is alone now may have been with others before.
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

    /// A check has ended, and passed unless there is an error. `roll`: a random number in [0, 1), for the jitter.
    pub(crate) fn end(
        &mut self,
        ticket: &Ticket,
        error: Option<&str>,
        context: CheckContext<'_>,
        roll: f64,
    ) -> CheckVerdict {
        self.follow(context);
        let Some(interval) = context.interval().filter(|_| !self.resigned) else { return CheckVerdict::Late };
        if self.under_way.take_if(|under_way| under_way == ticket).is_none() {
            return CheckVerdict::Late;
        }
        let token = match self.authority(context) {
            // Whoever it was made for: this instance has seen it.
            Some(CheckAuthority::Own) => None,
            Some(authority) if authority == ticket.authority => authority.token(),
            // It has changed nothing, so the next one is due as soon as somebody may make it.
            _ => return CheckVerdict::Late,
        };
        self.next = Some(ticket.begun_at.after(interval));
        match (context.standing.state, error) {
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
                let step = context.standing.attempt.max(1).saturating_add(self.failures);
                let span = context.settings.backoff.span(interval, step, roll);
                self.next = Some(ticket.begun_at.after(span));
                CheckVerdict::Stay
            }
            (_, None) => CheckVerdict::Stay,
            (_, Some(error)) => CheckVerdict::Open { reason: format!("health check failed: {error}"), token },
        }
    }
}

#[cfg(test)]
mod tests;
