//! Adopting a record that the store has confirmed, from an answer or from an event.

use std::time::Duration;

use super::entry::InFlight;
use super::notice::Notice;
use super::state::{DatedRecord, LocalChange};
use super::stats::SentDelta;
use super::{Now, StateMachine};
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::{Counts, Record};

/// The longest delay of an answer.
const TRAVEL: Duration = Duration::from_secs(1);

/// What a confirmed record means to this instance. The first case that applies is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adoption {
    /// A later epoch is known: nothing changes.
    Outdated,
    /// The state is known: at most its end becomes more exact.
    Known,
    /// This instance's proposal was accepted, and its calls are in that state already: the epoch begins, the
    /// generation stays.
    Accepted,
    /// This instance's proposal to close was accepted, and it has tripped again since: the epoch begins, the
    /// local state stays.
    AcceptedBeforeTrip,
    /// The first contact with a closed breaker, while this instance is closed, too: counts and generation
    /// stay.
    FirstContact,
    /// The first contact with a closed breaker, while this instance is open locally: it stays open, and the
    /// answer's counts decide.
    FirstContactWhileOpen,
    /// The state is new to this instance: it gives its local one up.
    Entered,
}

impl StateMachine {
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

    /// The confirmed record is still the previous one.
    fn adoption(&self, record: &Record, in_flight: &InFlight) -> Adoption {
        let is_own = record.originator == self.instance;
        let local = self.local.as_ref().map(|local| local.record.state());
        let closes = record.state == State::Closed;
        match &self.confirmed {
            Some(known) if known.record.epoch > record.epoch => Adoption::Outdated,
            Some(known) if known.record.is_of_same_transition(record) => Adoption::Known,
            _ if is_own && local == Some(record.state) => Adoption::Accepted,
            _ if is_own
                && local.is_some()
                && closes
                && in_flight.proposed == Some(State::Closed)
                && in_flight.manual.is_none() =>
            {
                Adoption::AcceptedBeforeTrip
            }
            // A reset ends what is known here, also before the first contact.
            None if closes && is_own && in_flight.manual.is_some() => Adoption::Entered,
            None if closes && self.state() == State::Closed => Adoption::FirstContact,
            None if closes && local == Some(State::Open) => Adoption::FirstContactWhileOpen,
            _ => Adoption::Entered,
        }
    }

    pub(super) fn adopt_answer(&mut self, record: &Record, in_flight: &mut InFlight, now: Moment) {
        self.forget_if_idle(now);
        let adoption = self.adoption(record, in_flight);
        let adopted = DatedRecord::new(record.clone(), now);
        match adoption {
            Adoption::Outdated => return,
            Adoption::Known => return self.correct_end(&adopted),
            _ => {}
        }
        let is_first = self.confirmed.is_none();
        let from = self.state();
        // After a failover that lost writes, this epoch has begun twice.
        let is_divergent = self.epoch() == record.epoch && self.announced >= record.epoch;
        self.confirmed = Some(adopted);
        self.doubted = false;
        match adoption {
            Adoption::Outdated | Adoption::Known | Adoption::FirstContactWhileOpen => {}
            Adoption::FirstContact => self.generation += u64::from(self.ramp(now).is_some()),
            Adoption::AcceptedBeforeTrip => self.begin_epoch(in_flight, now),
            Adoption::Accepted => {
                self.local = None;
                self.begin_epoch(in_flight, now);
            }
            Adoption::Entered => {
                self.enter_epoch(in_flight, now);
                if is_divergent && !is_first {
                    let (to, epoch) = (record.clone(), record.epoch);
                    self.effects.local_changes.push(LocalChange {
                        from,
                        to,
                        epoch,
                        evidence: Counts::default(),
                    });
                }
            }
        }
    }

    /// Answers with a longer delay imply a later end, so the earliest end is the most exact. A much earlier
    /// one comes from a clock that was set; then this instance's own measurement stays.
    fn correct_end(&mut self, adopted: &DatedRecord) {
        if let Some(known) = &mut self.confirmed
            && let (Some(end), Some(answered)) = (known.until(), adopted.until())
            && answered < end
            && end.since(answered) <= TRAVEL
        {
            known.end_at(answered);
        }
    }

    /// Notes an event of this epoch. Returns whether it is the first.
    pub(crate) fn announce(&mut self, epoch: u64) -> bool {
        let is_news = epoch > self.announced;
        self.announced = self.announced.max(epoch);
        is_news
    }

    /// Begins an epoch in which no call of this instance is yet, and gives the local state up.
    pub(super) fn enter_epoch(&mut self, in_flight: &mut InFlight, now: Moment) {
        self.local = None;
        self.stats.forget_decided();
        self.begin_epoch(in_flight, now);
        self.generation += 1;
    }

    fn begin_epoch(&mut self, in_flight: &mut InFlight, now: Moment) {
        self.stats.begin_epoch();
        self.notice = Notice::default();
        self.local_probes = Counts::default();
        self.last_failure = None;
        (self.would_open, self.would_open_until) = (false, Moment::default());
        let may_have_probes = self.may_have_probes(now);
        self.probes.begin_epoch(may_have_probes);
        // Its outcomes belong to an epoch that has ended.
        in_flight.sent = SentDelta::default();
        if !may_have_probes {
            in_flight.leases.clear();
        }
    }

    pub(super) fn begin_probes(&mut self, may_have_probes: bool) {
        self.probes.begin_epoch(may_have_probes);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|_| !may_have_probes) {
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
    pub(super) fn may_have_probes(&self, now: Moment) -> bool {
        self.state() == State::HalfOpen || self.record().is_due(now)
    }
}
