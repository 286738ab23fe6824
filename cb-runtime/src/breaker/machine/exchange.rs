//! The exchange with the store: what there is to say, and what the answer changes.

use std::time::Duration;

use super::StateMachine;
use super::policy;
use super::probes::Allotted;
use super::state::{Change, Scope, Standing};
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::{Counts, Entry, IDLE, LeaseAsk, Proposal, Record, View};

/// Breakers that are not closed are confirmed again and again at this interval: so a store that has
/// lost its data is told within a second, and leases do not lapse while their holder lives.
pub(crate) const REFRESH: Duration = Duration::from_millis(400);
/// Books are brought up to date, and told, at this interval: that is how exactly the time of a success is known.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// After a failure the fleet's run is asked for again, at growing intervals up to this one.
const FOLLOW_UP: Duration = Duration::from_secs(1);
/// The last of those questions comes so long after the failure.
const FOLLOW_UP_ENDS: Duration = Duration::from_secs(30);

/// What an answer of the store leads to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answered {
    /// Calls meet another state now: a new generation begins.
    pub(crate) moved: bool,
    /// A change that this instance makes because of what the fleet has counted.
    pub(crate) change: Option<Change>,
    pub(crate) allotted: Allotted,
    /// There is more to say at once: a proposal that could not be made before the epoch was known.
    pub(crate) more: bool,
}

impl StateMachine {
    /// Whether there is something to say to the store, or to ask it.
    pub(crate) fn wants_exchange(&self, now: Moment) -> bool {
        let silent_for = match self.exchanged_at {
            None => return true,
            Some(at) => now.since(at),
        };
        // Asked for until the store's clock agrees.
        let expired = self.local.is_none() && self.standing().has_expired(now) && silent_for >= PACE;
        if self.proposes() || expired || self.stats.has_news() || self.probes.want_exchange() {
            return true;
        }
        if self.local.is_some()
            || self.state() != State::Closed
            || self.confirmed.as_ref().is_some_and(|(_, c)| c.state != State::Closed)
        {
            return silent_for >= REFRESH;
        }
        // Another instance's success may have ended the run that this one's next failure would continue.
        match self.last_failure {
            Some(at) if self.stats.has_streak() => {
                let age = now.since(at);
                age < FOLLOW_UP_ENDS && silent_for >= (age / 2).min(FOLLOW_UP)
            }
            _ => false,
        }
    }

    /// What to say. With `retry`, the same evidence as in the batch whose fate is unknown.
    pub(crate) fn entry(&mut self, name: std::sync::Arc<str>, now: Moment, skew: u64, retry: bool) -> Entry {
        self.forget_if_idle(now);
        // PendingDelta was collected while calls were admitted; it says nothing about another kind of state.
        let meant = self
            .confirmed
            .as_ref()
            .is_none_or(|(_, standing)| standing.state.admits() || self.local.is_none() || self.proposes());
        let mut entry = Entry { name, ..Entry::default() };
        self.stats.tell(&mut entry, now, skew, retry, meant);
        self.exchanged_at = Some(now);
        let proposal = self.proposal(now);
        self.told_proposal = proposal.is_some();
        let asked_of = proposal.as_ref().map_or(self.confirmed_state(), |proposal| proposal.to);
        self.asked_half_open = !retry && asked_of == State::HalfOpen;
        let leases = if retry { LeaseAsk::default() } else { self.probes.ask(&self.settings) };
        let known = self.confirmed.as_ref().map(|(epoch, standing)| standing.to_record(*epoch, now));
        Entry { known, proposal, leases, ..entry }
    }

    /// Its standing is on its way to the store.
    pub(crate) fn proposes(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.scope == Scope::Pending)
    }

    fn proposal(&self, now: Moment) -> Option<Proposal> {
        // Without a known epoch there is nothing to compare: the answer to this exchange will bring one.
        self.confirmed.as_ref()?;
        let (to, evidence) = match &self.local {
            Some(local) if local.scope == Scope::Pending => (local.standing.clone(), local.evidence),
            None if self.probes.are_wanted() && self.standing().is_due(now) => {
                let standing = self.standing();
                let to = Standing {
                    state: State::HalfOpen,
                    reason: "reset timeout is over".into(),
                    until: None,
                    ..standing.clone()
                };
                (to, Counts::default())
            }
            None if self.standing().has_expired(now) => (self.after_expiry(now), Counts::default()),
            _ => return None,
        };
        let record = to.to_record(0, now);
        Some(Proposal {
            to: to.state,
            reason: to.reason,
            remaining_us: record.remaining_us,
            reset_timeout_us: record.reset_timeout_us,
            attempt: to.attempt,
            force: false,
            token: self.local.as_ref().and_then(|local| local.token),
            actor: String::new(),
            evidence,
        })
    }

    /// The store's answer to [`entry`](Self::entry).
    pub(crate) fn answered(&mut self, view: &View, store_now: u64, now: Moment, skew: u64) -> Answered {
        let flight = self.stats.told();
        let asked_for = self.probes.take_asking();
        if view.record.epoch < self.epoch() {
            // The event stream has been faster: this answer tells of an epoch that is over.
            return Answered {
                allotted: Allotted { denied: asked_for, ..Allotted::default() },
                ..Answered::default()
            };
        }
        let mut moved = self.adopt(&view.record, now);
        self.stats.update(flight.as_ref(), view, store_now, now);
        let mut change = None;
        match self.local.as_ref().map(|local| local.scope) {
            None => change = self.judge(now, skew, true),
            // The store has not moved on, and yet refused: the maker of that health check has lost the role.
            Some(Scope::Pending) if self.told_proposal && !view.won && self.is_fenced() => {
                self.give_up_local(now);
                moved = true;
            }
            Some(Scope::Pending) => {}
            // The evidence has been merged: does what the fleet has counted speak for it?
            Some(_) if self.fleet_would_open(now, skew) || self.left_by_expiry(now) => {
                self.local.as_mut().expect("just seen").scope = Scope::Pending;
            }
            Some(Scope::Isolated) => {}
            Some(Scope::StoreDown) if self.stays_isolated(now) => {
                self.local.as_mut().expect("just seen").scope = Scope::Isolated;
            }
            Some(Scope::StoreDown) => {
                self.give_up_local(now);
                moved = true;
            }
        }
        // Asked before the store had even heard of the opening, while the time was over already: not yet an answer.
        let too_early = !self.asked_half_open && !asked_for.is_empty() && self.probes_may_come(now);
        let allotted = if too_early {
            self.probes.ask_again(asked_for);
            Allotted::default()
        } else {
            self.probes.allot(asked_for, view, now)
        };
        let unsaid = self.proposes() && (!self.told_proposal || change.is_some());
        let more = unsaid || too_early;
        Answered { moved: moved || change.is_some(), change, allotted, more }
    }

    fn is_fenced(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.token.is_some())
    }

    fn give_up_local(&mut self, now: Moment) {
        self.local = None;
        self.probes.begin_epoch(self.probes_may_come(now));
    }

    /// Open on its own, and the fleet, which is closed, counts enough for opening, too.
    fn fleet_would_open(&self, now: Moment, skew: u64) -> bool {
        let open = self.state() == State::Open && self.confirmed_state() == State::Closed;
        open && policy::trip(&self.settings, &self.trip_input(now, skew), self.settings.min_failing_instances)
            .is_some()
    }

    /// Closed by itself, as what the fleet was held in has expired.
    fn left_by_expiry(&self, now: Moment) -> bool {
        let expired = self.confirmed.as_ref().is_some_and(|(_, standing)| standing.has_expired(now));
        expired && self.state() == State::Closed
    }

    /// Open since the store was away, and enough for that on what it has seen itself, but not for the fleet.
    fn stays_isolated(&self, now: Moment) -> bool {
        let open = self.state() == State::Open && self.confirmed_state() == State::Closed;
        let quorum = self.settings.min_failing_instances > 1;
        let own = self.stats.own_trip_input(now).filter(|_| open && quorum);
        own.is_some_and(|own| policy::trip_alone(&self.settings, &own).is_some())
    }

    /// The store cannot use this breaker's entry: what it told is kept.
    pub(crate) fn refused(&mut self) {
        self.stats.keep();
    }

    /// The store lets a closed breaker go that nobody has named for an hour, and its epochs start
    /// anew. An instance that has not named it for half of that must not insist on what it knew.
    fn forget_if_idle(&mut self, now: Moment) {
        let idle = self.exchanged_at.is_none_or(|at| now.since(at) > IDLE / 2);
        if idle && self.local.is_none() && self.confirmed.is_some() && self.confirmed_state() == State::Closed
        {
            self.confirmed = None;
            self.initial = Standing::closed(now);
        }
    }

    /// Takes over a state that the store has confirmed. Returns whether calls meet another state now.
    pub(crate) fn adopt(&mut self, record: &Record, now: Moment) -> bool {
        self.forget_if_idle(now);
        let standing = Standing::from_record(record, now);
        match &mut self.confirmed {
            Some((epoch, _)) if *epoch > record.epoch => return false,
            Some((epoch, known)) if *epoch == record.epoch && known.state == record.state => {
                // An answer that has travelled for longer puts the same end later; the earliest is the truest.
                let until = known.until.zip(standing.until).map(|(known, told)| known.min(told));
                *known = Standing { until, ..standing };
                return false;
            }
            _ => {}
        }
        let first = self.confirmed.is_none();
        let before = self.state();
        let own = record.originator == self.instance;
        self.confirmed = Some((record.epoch, standing));
        match &self.local {
            // This is what became of our proposal; calls have been meeting it since.
            Some(local) if own && local.standing.state == record.state => {
                self.local = None;
                self.begin_epoch(now);
                return false;
            }
            // The store has been closed all the time: first contact changes nothing.
            _ if first && record.state == State::Closed && before == State::Closed => {
                return self.ramp(now).is_some();
            }
            Some(local) if first && record.state == State::Closed && local.standing.state == State::Open => {
                return false;
            }
            _ => {}
        }
        self.local = None;
        self.begin_epoch(now);
        true
    }

    fn begin_epoch(&mut self, now: Moment) {
        self.stats.begin();
        self.alone = Counts::default();
        self.last_failure = None;
        self.probes.begin_epoch(self.probes_may_come(now));
    }

    /// Half-open, or due to be.
    fn probes_may_come(&self, now: Moment) -> bool {
        self.state() == State::HalfOpen || self.standing().is_due(now)
    }

    fn confirmed_state(&self) -> State {
        self.confirmed.as_ref().map_or(State::Closed, |(_, standing)| standing.state)
    }
}
