//! The first contact with the store, and every one after a loss.

use std::sync::Arc;
use std::time::Duration;

use super::outages::Outages;
use super::pace::vary;
use super::requests::Sent;
use super::stream::Continuity;
use super::{Coordinator, RETRY};
use crate::breaker::machine::Want;
use crate::clock::{Moment, micros};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::store::{
    Batch, Counts, Entry, EventsAt, IDLE, Load, MAX_ENTRIES, Position, Proposal, REMEMBERED, Record,
};

/// The limit of a load, which takes a request for every hundred breakers that are not closed. Each request
/// has the store's own limit, so this one need not be short: an instance that gives up before it has read all
/// of them never joins the fleet.
const LOAD: Duration = Duration::from_secs(60);

impl Coordinator {
    /// Loads the fleet's states, repeats the request whose fate is unknown, and exchanges what has been
    /// decided and counted since.
    pub(super) async fn connect(&mut self) {
        self.context.sign_of_life();
        if let Some(position) = self.stream.overdue_after() {
            let next = self.store.history(EventsAt::After(position.id), 1);
            if let Ok(events) = self.wait_for("reading the event stream", next).await {
                self.stream.settle_overdue(events.is_empty());
            }
        }
        let sent_at = self.context.clock.now();
        let before = self.stream.position();
        let result = match self.wait_within(LOAD, "reading the fleet's states", self.store.load()).await {
            Ok(load) => self.loaded(&load, &before, sent_at).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.continuity = Continuity::Unbroken;
                self.retry_after = RETRY.0;
                if !self.context.store_up() {
                    self.context.set_store_up(true);
                    self.emit(Outages::restored);
                    self.stream.resume();
                }
            }
            Err(error) => self.lost(&error),
        }
    }

    /// What has happened to the stream between these positions. Without a gap, the events themselves show
    /// which states have ended.
    pub(super) async fn continuity(&self, before: &Position, now: &Position) -> Result<Continuity, Error> {
        let is_same = before.incarnation == now.incarnation && before.number == now.number;
        let known = if is_same && before.id == now.id {
            Continuity::Unbroken
        } else if is_same {
            Continuity::Lost
        } else if before.followed_by(now) != Continuity::Gap {
            before.followed_by(now)
        } else {
            let next = self.store.history(EventsAt::After(before.id.clone()), 1);
            let next = self.wait_for("reading the event stream", next).await?;
            next.first().map_or(Continuity::Gap, |event| before.followed_by(&event.position))
        };
        // Keys and events may have expired since.
        Ok(if self.was_away() { known.max(Continuity::Gap) } else { known })
    }

    /// The time since the latest answer: by the monotonic clock, which may stand still while the machine
    /// sleeps, or by the wall clock, which may be set. A load too many does no harm.
    fn silent_for(&self) -> Duration {
        let clock = &self.context.clock;
        let by_wall = Duration::from_micros(clock.wall_us().saturating_sub(self.answered_wall_us));
        clock.now().since(self.answered_at).max(by_wall)
    }

    /// By now, what is known here may have ended and expired in the store.
    pub(super) fn was_away(&self) -> bool {
        self.silent_for() > IDLE / 2
    }

    pub(super) async fn loaded(
        &mut self,
        load: &Load,
        before: &Position,
        sent_at: Moment,
    ) -> Result<(), Error> {
        let found = self.continuity(before, &load.position).await?;
        self.stream.note_answered(&load.position);
        self.continuity = self.continuity.max(found).max(self.stream.take_continuity());
        if self.silent_for() > REMEMBERED {
            // Nothing tells what was lost from what has ended and expired since: the store is right.
            self.continuity = Continuity::Gap;
        }
        let answered_at = self.context.clock.now().0.saturating_sub(micros(load.read_for));
        self.measure_at(Moment(answered_at).max(sent_at), load.now_us, sent_at);
        self.stream.place(&load.position, before);
        for problem in &load.warnings {
            self.stream.report_damage(&self.context, problem);
        }
        match self.continuity {
            Continuity::Unbroken => {}
            Continuity::Gap => self.breakers.doubt(&load.held, sent_at),
            Continuity::Lost => self.breakers.end_doubts(),
        }
        for (name, record) in &load.held {
            match record {
                // The reader may have read on since the store was asked.
                Ok(record) => self.breakers.learn(name, record, self.context.clock.now()),
                Err(problem) => {
                    self.missing.insert(name.clone());
                    self.context.events.error(Error::new(ErrorKind::Data {
                        what: format!("breaker \"{name}\""),
                        problem: problem.clone(),
                    }));
                }
            }
        }
        if let Some(unknown) = self.unknown.take() {
            self.send(unknown, true).await?;
        }
        if self.continuity == Continuity::Lost {
            self.write_back(|_| true).await?;
        }
        let mut all = self.breakers.all();
        all.retain(|core| match core.review().want {
            Want::Exchange | Want::Confirmation => true,
            _ if core.has_history() => true,
            Want::Report(_) => {
                core.mark_counted();
                false
            }
            Want::Nothing => false,
        });
        while !all.is_empty() {
            let batch = all.drain(..all.len().min(MAX_ENTRIES)).collect();
            self.seq += 1;
            self.send(Sent::Batch(batch), false).await?;
        }
        Ok(())
    }

    /// Writes states back that the store has lost, and ends overrides that have expired, of breakers that are
    /// not registered here. For those that are registered, their exchanges do both.
    pub(super) async fn write_back(&mut self, wants: impl Fn(&str) -> bool) -> Result<(), Error> {
        for held in self.breakers.held(self.context.clock.now(), wants).chunks(MAX_ENTRIES) {
            let sent_at = self.context.clock.now();
            self.seq += 1;
            let entry = |(name, record): &(Arc<str>, Record)| Entry {
                name: name.clone(),
                known: Some(record.clone()),
                proposal: record.has_expired().then(|| Proposal {
                    to: Record::expired(&self.context.instance),
                    force: false,
                    token: None,
                    evidence: Counts::default(),
                }),
                ..Entry::default()
            };
            let batch = Batch {
                instance: self.context.instance.clone(),
                seq: self.seq,
                as_of_us: self.skew.estimate(sent_at),
                entries: held.iter().map(entry).collect(),
                ..Batch::default()
            };
            let answer = self.wait_for("writing states back", self.store.exchange(batch)).await?;
            self.measure(answer.now_us, sent_at);
            for ((name, _), view) in held.iter().zip(answer.views) {
                if let Ok(view) = view {
                    self.breakers.adopt(name, &view.record, self.context.clock.now());
                }
            }
        }
        Ok(())
    }

    /// The store has not answered: this instance acts locally from now on.
    pub(super) fn lost(&mut self, error: &Error) {
        self.retry_at = self.context.clock.now().after(vary(self.retry_after));
        // All breakers are reviewed when the store is back.
        self.tense.clear();
        self.quiet.clear();
        self.retry_after = (self.retry_after * 2).min(RETRY.1);
        let was_up = self.context.store_up();
        self.context.store_failed(error);
        self.stream.pause();
        for core in self.breakers.all() {
            core.store_lost(error);
        }
        if was_up || !self.outages.is_lost() {
            let now = self.context.clock.now();
            self.emit(|outages| outages.lost(error.clone(), now));
        }
    }

    pub(super) fn emit(&mut self, event: impl FnOnce(&mut Outages) -> Option<Event>) {
        if let Some(event) = event(&mut self.outages) {
            self.context.events.emit(event);
        }
    }
}
