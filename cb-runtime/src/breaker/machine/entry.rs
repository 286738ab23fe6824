//! What an instance sends to the store: the entry of an exchange, and the counts of a report.

use super::health::HealthChecks;
use super::state::{DatedRecord, LocalState, Scope};
use super::stats::SentDelta;
use super::{Now, Override, StateMachine, policy};
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::{Counts, Delta, Entry, IDLE, LeaseId, LeaseRequest, Proposal, Reported};

/// An entry between its encoding and its answer. Without an answer, its fate is unknown, and its outcomes are
/// sent again under the same sequence number.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight {
    pub(super) sent: SentDelta,
    pub(super) sent_at: Moment,
    /// The doubted epoch, which the entry does not claim to know.
    pub(super) doubted: Option<u64>,
    /// The proposed state, or the one that an entry with an unknown fate may have proposed.
    pub(super) proposed: Option<State>,
    /// The state to which the requested leases apply, if the proposal wins.
    pub(super) requested_in: Option<State>,
    pub(super) leases: Vec<LeaseId>,
    pub(super) manual: Option<Override>,
    /// The override is a release, and there was no manual override to end.
    pub(super) is_moot: bool,
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
        // By what is sent now, too.
        entry.notice = self.requests_notice(now);
        let sent = self.stats.encode(&mut entry, retry_of, self.is_closing(), of_epoch, now);
        entry.streak_pairs = policy::streak_pairs(&self.settings);
        entry.delta.streak.bound(entry.streak_pairs);
        self.exchanged_at = Some(now.at);
        self.exchange_next = false;
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
        // An override that has expired by this instance's clock may not have expired by the store's.
        let is_overridden = self.state().is_manual() || self.confirmed_state().is_manual();
        let is_moot = manual.as_ref().is_some_and(|manual| manual.release && !is_overridden);
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
    /// `retry`, it has the outcomes of the report whose fate is unknown. Ages are counted from `as_of`,
    /// which is one moment for the whole report. Equal ages then need one lookup of their bucket in Redis.
    pub(crate) fn encode_report(&mut self, retry: bool, as_of: Moment, now: Now) -> Option<Reported> {
        let sent = if retry {
            self.in_flight.take().map(|before| before.sent).unwrap_or_default()
        } else if self.stats.has_news() && self.is_quiet(now) {
            self.stats.take_for_report()
        } else {
            return None;
        };
        let Delta { counts, streak, buckets, .. } = sent.delta.aged(as_of);
        let reported = Reported {
            epoch: self.epoch(),
            counts,
            success_age_us: streak.success,
            by_streak: self.settings.failure_threshold.is_some(),
            failure_age_us: streak.failures.last().map(|(age, _)| *age),
            window: sent.window,
            buckets,
            ..Reported::default()
        };
        self.in_flight = Some(InFlight { sent, sent_at: now.at, ..InFlight::default() });
        Some(reported)
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
            None if self.probes.are_waited_for() && self.record().is_due(now) => {
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
}
