//! The exchange with the store: what an entry reports and requests, and what its answer changes.

use std::time::Duration;

use super::health::HealthChecks;
use super::notice::Notice;
use super::state::{DatedRecord, LocalChange, LocalState, Scope};
use super::stats::SentDelta;
use super::{Now, Override, StateMachine, Wake, policy};
use crate::clock::{Moment, micros};
use crate::snapshot::State;
use crate::store::{
    Counts, Delta, Entry, IDLE, LeaseId, LeaseRequest, NOTICE, Proposal, Record, Reported, View,
};

/// The reason for the end of a state that has lapsed, or whose end this instance has missed.
const ENDED_UNNOTICED: &str = "the store no longer holds the previous state";
/// A confirmed state is considered used for at least this long, so that a transition out of it can be
/// proposed.
const ANSWERED: Duration = Duration::from_secs(5);
/// The longest delay of an answer.
const TRAVEL: Duration = Duration::from_secs(1);

/// An entry between its encoding and its answer. Without an answer, its fate is unknown, and its outcomes are
/// sent again under the same sequence number.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight {
    pub(super) sent: SentDelta,
    sent_at: Moment,
    /// The doubted epoch, which the entry does not claim to know.
    doubted: Option<u64>,
    /// The proposed state, or the one that an entry with an unknown fate may have proposed.
    proposed: Option<State>,
    /// The state to which the requested leases apply, if the proposal wins.
    requested_in: Option<State>,
    pub(super) leases: Vec<LeaseId>,
    manual: Option<Override>,
    /// The override is a release, and there was no manual override to end.
    is_moot: bool,
}

impl StateMachine {
    /// The next entry. With `retry`, it carries the outcomes of the entry whose fate is unknown.
    pub(crate) fn encode(&mut self, retry: bool, now: Now) -> Entry {
        self.forget_if_idle(now.at);
        // After half of [`IDLE`] the store may have let the state lapse.
        self.doubted |= self.lapses_at(self.used_at).is_some_and(|at| now.at.after(IDLE / 2) > at);
        let before = self.in_flight.take().filter(|_| retry);
        let mut entry = Entry::default();
        let maybe_proposed = before.as_ref().and_then(|before| before.proposed);
        // Outcomes of admitted calls do not belong to a state that admits none.
        let of_epoch = self
            .confirmed
            .as_ref()
            .is_none_or(|confirmed| confirmed.state().admits() || self.local.is_none() || self.proposes());
        let retry_of = if retry {
            Some(before.map(|before| before.sent).unwrap_or_default())
        } else {
            // Outcomes of a doubted state are kept until the store has confirmed it.
            (self.doubted && !self.confirmed_state().admits()).then(SentDelta::default)
        };
        let sent = self.stats.encode(&mut entry, retry_of, self.is_closing(), of_epoch, now);
        entry.streak_pairs = policy::streak_pairs(&self.settings);
        entry.delta.streak.bound(entry.streak_pairs);
        self.exchanged_at = Some(now.at);
        self.exchange_next = false;
        entry.notice = self.wants_notice(now);
        entry.proposal = self.proposal(now.at);
        let proposed = entry.proposal.as_ref().map(|proposal| proposal.to.state);
        entry.leases = if retry { LeaseRequest::default() } else { self.probes.encode(&self.settings) };
        entry.leaves = self.leaves && entry.failing;
        entry.known = self.claimed().map(|claimed| claimed.at(now.at));
        entry.role = self.with_health(now, HealthChecks::encode);
        let leads = entry.role.is_some_and(|role| role.want);
        if leads || !entry.leases.want.is_empty() || !entry.leases.renew.is_empty() || !sent.delta.is_empty()
        {
            self.used_at = now.at;
        }
        let manual = if retry { None } else { self.overrides.pop_front() };
        let is_moot = manual.as_ref().is_some_and(|manual| manual.release && !self.state().is_manual());
        if let Some(manual) = manual.as_ref().filter(|_| !is_moot) {
            entry.proposal = Some(manual.proposal.clone());
        }
        self.in_flight = Some(InFlight {
            sent,
            sent_at: now.at,
            doubted: self.doubted.then(|| self.epoch()),
            proposed: proposed.or(maybe_proposed),
            requested_in: Some(proposed.unwrap_or_else(|| self.confirmed_state())),
            leases: entry.leases.want.clone(),
            manual,
            is_moot,
        });
        // The entry contains everything.
        self.effects.wake = None;
        entry
    }

    /// The next report of this breaker; `None` if there are no counts, or an exchange is needed. With
    /// `retry`, it has the outcomes of the report whose fate is unknown.
    pub(crate) fn encode_report(&mut self, retry: bool, now: Now) -> Option<Reported> {
        let sent = if retry {
            self.in_flight.take().map(|before| before.sent).unwrap_or_default()
        } else if self.stats.has_news() && self.is_quiet(now) {
            self.stats.take_for_report()
        } else {
            return None;
        };
        let Delta { counts, streak, buckets, .. } = sent.delta.aged(now.at);
        let reported = Reported {
            epoch: self.epoch(),
            counts,
            success_age_us: streak.success_age_us,
            by_streak: self.settings.failure_threshold.is_some(),
            failure_age_us: streak.failures.last().map(|(age, _)| *age),
            window: sent.window,
            buckets,
            ..Reported::default()
        };
        self.in_flight = Some(InFlight { sent, sent_at: now.at, ..InFlight::default() });
        Some(reported)
    }

    /// Handles the merge of the report.
    pub(crate) fn receive_report(&mut self, now: Now) {
        let in_flight = self.in_flight.take().unwrap_or_default();
        self.stats.receive_report(&in_flight.sent, now);
    }

    /// Its local state is proposed to the store.
    pub(super) fn proposes(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.scope == Scope::Pending)
    }

    /// It has closed locally, and the store has not confirmed that yet.
    fn is_closing(&self) -> bool {
        self.proposes() && self.state() == State::Closed
    }

    fn proposal(&self, now: Moment) -> Option<Proposal> {
        // A proposal needs a known epoch, which the answer to this exchange contains.
        self.claimed()?;
        let (to, evidence, token) = match &self.local {
            Some(LocalState { record, evidence, scope: Scope::Pending, token, .. }) => {
                (record.at(now), *evidence, *token)
            }
            None if self.wants_probes() && self.record().is_due(now) => {
                (self.half_open_record(now).record, Counts::default(), None)
            }
            None if self.record().has_expired(now) => {
                (self.expired_record(now).record, Counts::default(), None)
            }
            _ => return None,
        };
        Some(Proposal { to, force: false, token, evidence })
    }

    /// The record that this instance claims to know, so that a store that has lost it can restore it.
    fn claimed(&self) -> Option<&DatedRecord> {
        self.confirmed.as_ref().filter(|_| !self.doubted)
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

    fn wants_probes(&self) -> bool {
        self.probes.are_waited_for()
    }

    /// Handles the store's answer to the latest entry.
    pub(crate) fn receive(&mut self, view: &View, store_now: u64, now: Now) {
        let mut in_flight = self.in_flight.take().unwrap_or_default();
        let is_answered = in_flight.doubted == Some(self.epoch());
        self.doubted &= !is_answered;
        // If the event stream has been faster, the answer is about an epoch that has ended.
        if is_answered && view.record.epoch < self.epoch() {
            self.forget_confirmed(&mut in_flight, now.at);
        } else if is_answered {
            let long_ago = (IDLE / 2).saturating_sub(ANSWERED);
            self.used_at = self.used_at.max(Moment(now.at.0.saturating_sub(micros(long_ago))));
        }
        if view.record.epoch >= self.epoch() {
            self.receive_current(&mut in_flight, view, store_now, now);
        }
        self.with_health(now, |health, context| health.receive(view.role, context));
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

    fn receive_current(&mut self, in_flight: &mut InFlight, view: &View, store_now: u64, now: Now) {
        let leases = std::mem::take(&mut in_flight.leases);
        self.adopt_answer(&view.record, in_flight, now.at);
        self.stats.receive(&in_flight.sent, view, store_now, now.at);
        self.received_at = Some(now.at);
        self.answered = true;
        if let Some(age) = view.notice_age_us.filter(|age| *age < micros(NOTICE)) {
            self.take_notice(Moment(now.at.0.saturating_sub(age)));
        }
        let proposed = in_flight.proposed.is_some();
        match self.local.as_ref().map(|local| local.scope) {
            None => self.judge(Now { store_up: true, ..now }),
            // The store has refused it in the same epoch: this instance is not the leader any more.
            Some(Scope::Pending) if proposed && !view.won && self.is_fenced() => self.give_up_local(now.at),
            Some(Scope::Pending) => {}
            // The outcomes have been merged. The state is proposed if the fleet's counts support it, or if it
            // does not depend on counts.
            Some(_)
                if self.fleet_would_open(now)
                    || self.left_by_expiry(now.at)
                    || self.stays_proposed(now.at) =>
            {
                self.local.as_mut().expect("just seen").scope = Scope::Pending;
            }
            Some(Scope::Isolated) => {}
            Some(Scope::StoreDown) if self.stays_isolated(now) => {
                self.local.as_mut().expect("just seen").scope = Scope::Isolated;
            }
            Some(Scope::StoreDown) => self.give_up_local(now.at),
        }
        // Requested before the store knew of the opening, whose timeout has already elapsed: not a denial.
        let too_early = in_flight.requested_in != Some(State::HalfOpen)
            && !leases.is_empty()
            && self.may_have_probes(now.at);
        if too_early {
            self.probes.request_again(leases);
        } else {
            let longest = policy::longest_probe(&self.settings);
            let granted = self.probes.receive(&leases, view, longest, in_flight.sent_at, now.at);
            self.effects.granted.extend(granted);
        }
        if too_early || self.proposes() && in_flight.proposed != Some(self.state()) {
            self.wake(Wake::AtOnce);
        }
    }

    /// Its local state results from a leader's health check.
    fn is_fenced(&self) -> bool {
        self.local.as_ref().is_some_and(|local| local.token.is_some())
    }

    fn give_up_local(&mut self, now: Moment) {
        self.local = None;
        self.stats.forget_decided();
        self.generation += 1;
        self.begin_probes(self.may_have_probes(now));
    }

    pub(super) fn begin_probes(&mut self, may_have_probes: bool) {
        self.probes.begin_epoch(may_have_probes);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|_| !may_have_probes) {
            in_flight.leases.clear();
        }
    }

    /// Open locally, and the closed fleet's counts support it.
    fn fleet_would_open(&self, now: Now) -> bool {
        let open = self.state() == State::Open && self.confirmed_state() == State::Closed;
        open && policy::trip(&self.settings, &self.trip_input(now), self.settings.min_failing_instances)
            .is_some()
    }

    /// Closed locally, because a manual override has expired.
    fn left_by_expiry(&self, now: Moment) -> bool {
        let expired = self.confirmed.as_ref().is_some_and(|confirmed| confirmed.has_expired(now));
        expired && self.state() == State::Closed
    }

    /// Open locally for a reason that is not in the counts, while the fleet is closed. With a leader's token,
    /// the store refuses it if another instance leads meanwhile.
    fn stays_proposed(&self, now: Moment) -> bool {
        self.confirmed_state() == State::Closed
            && !self.record().is_due(now)
            && self.local.as_ref().is_some_and(|local| {
                local.uncounted && local.scope == Scope::StoreDown && local.record.state() == State::Open
            })
    }

    /// Open locally, and the other instances do not see its failures.
    fn stays_isolated(&self, now: Now) -> bool {
        let own = self.own_trip_input(now).filter(|_| self.settings.min_failing_instances > 1);
        self.state() == State::Open
            && self.confirmed_state() == State::Closed
            && own.is_some_and(|own| policy::trip_alone(&self.settings, &own).is_some())
    }

    /// Handles a refused entry: its outcomes are kept, its requests are given up.
    pub(crate) fn receive_error(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            self.stats.restore(in_flight.sent);
        }
        self.probes.store_lost();
        self.overrides.clear();
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

    /// After half of [`IDLE`], the store may have expired a closed breaker and restarted its epochs.
    fn forget_if_idle(&mut self, now: Moment) {
        let idle = self.exchanged_at.is_none_or(|at| now.since(at) > IDLE / 2);
        if idle && self.local.is_none() && self.confirmed.is_some() && self.confirmed_state() == State::Closed
        {
            self.confirmed = None;
            self.announced = 0;
            self.initial = DatedRecord::new(Record::closed(), now);
        }
    }

    /// Adopts a record that the store has confirmed.
    pub(crate) fn adopt(&mut self, record: &Record, now: Now) {
        match self.in_flight.take() {
            None => self.adopt_answer(record, &mut InFlight::default(), now.at),
            Some(mut in_flight) => {
                self.adopt_answer(record, &mut in_flight, now.at);
                self.in_flight = Some(in_flight);
            }
        }
    }

    fn adopt_answer(&mut self, record: &Record, in_flight: &mut InFlight, now: Moment) {
        self.forget_if_idle(now);
        let adopted = DatedRecord::new(record.clone(), now);
        match &mut self.confirmed {
            Some(known) if known.record.epoch > record.epoch => return,
            Some(known) if known.record.epoch == record.epoch && known.state() == record.state => {
                // Answers with a longer delay imply a later end, so the earliest end is the most exact. A
                // much earlier one comes from a clock that was set; then this instance's own measurement
                // stays.
                if let (Some(end), Some(told)) = (known.until(), adopted.until())
                    && told < end
                    && end.since(told) <= TRAVEL
                {
                    known.end_at(told);
                }
                return;
            }
            _ => {}
        }
        let first = self.confirmed.is_none();
        let before = self.state();
        // After a failover that lost writes, this epoch has begun twice, in different states.
        let is_divergent = self.epoch() == record.epoch && self.announced >= record.epoch;
        let own = record.originator == self.instance;
        self.confirmed = Some(adopted);
        self.doubted = false;
        match &self.local {
            // This instance's proposal was accepted, and its calls are in that state already.
            Some(local) if own && local.record.state() == record.state => {
                self.local = None;
                self.begin_epoch(in_flight, now);
                return;
            }
            // The proposed close was accepted, and this instance has tripped again since.
            Some(_)
                if own
                    && in_flight.proposed == Some(State::Closed)
                    && record.state == State::Closed
                    && in_flight.manual.is_none() =>
            {
                self.begin_epoch(in_flight, now);
                return;
            }
            // The first contact with a closed breaker changes nothing.
            _ if first && record.state == State::Closed && before == State::Closed => {
                if self.ramp(now).is_some() {
                    self.generation += 1;
                }
                return;
            }
            Some(local) if first && record.state == State::Closed && local.record.state() == State::Open => {
                return;
            }
            _ => {}
        }
        self.local = None;
        self.stats.forget_decided();
        self.begin_epoch(in_flight, now);
        self.generation += 1;
        if is_divergent && !first {
            self.effects.local_changes.push(LocalChange {
                from: before,
                to: record.clone(),
                epoch: record.epoch,
                evidence: Counts::default(),
            });
        }
    }

    /// Ends the confirmed state, which the store does not have any more, and whose end no event reported.
    fn forget_confirmed(&mut self, in_flight: &mut InFlight, now: Moment) {
        let (from, epoch) = (self.state(), self.epoch());
        let to = Record { reason: ENDED_UNNOTICED.into(), ..Record::closed() };
        self.confirmed = None;
        self.doubted = false;
        self.announced = 0;
        self.initial = DatedRecord::new(to.clone(), now);
        self.local = None;
        self.stats.forget_decided();
        self.begin_epoch(in_flight, now);
        self.generation += 1;
        if from != State::Closed {
            self.effects.local_changes.push(LocalChange { from, to, epoch, evidence: Counts::default() });
        }
    }

    /// Notes an event of this epoch. Returns whether it is the first.
    pub(crate) fn announce(&mut self, epoch: u64) -> bool {
        let is_news = epoch > self.announced;
        self.announced = self.announced.max(epoch);
        is_news
    }

    fn begin_epoch(&mut self, in_flight: &mut InFlight, now: Moment) {
        self.stats.begin_epoch();
        self.notice = Notice::default();
        self.local_probes = Counts::default();
        self.last_failure = None;
        let may_have_probes = self.may_have_probes(now);
        self.probes.begin_epoch(may_have_probes);
        // Its outcomes belong to an epoch that has ended.
        in_flight.sent = SentDelta::default();
        if !may_have_probes {
            in_flight.leases.clear();
        }
    }

    /// Drops the outcomes of the entry in flight.
    pub(super) fn forget_sent(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.sent = SentDelta::default();
        }
    }

    /// Half-open, or due to be.
    fn may_have_probes(&self, now: Moment) -> bool {
        self.state() == State::HalfOpen || self.record().is_due(now)
    }

    pub(super) fn confirmed_state(&self) -> State {
        self.confirmed.as_ref().map_or(State::Closed, DatedRecord::state)
    }
}
