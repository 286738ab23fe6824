//! The coordinator's side of a breaker: its counts for the store, and the store's answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use super::machine::Agenda;
use crate::clock::Moment;
use crate::error::Error;
use crate::store::{Entry, Record, Reported, View};

impl Core {
    /// Judges the counts. Returns whether to exchange or report, and when to review again.
    pub(crate) fn review(&self) -> Agenda {
        self.transact(|inner, now| inner.machine.review(now))
    }

    /// Schedules the next review, unless an earlier one is scheduled. Returns whether it was scheduled.
    pub(crate) fn schedule_review(&self, at: Moment) -> bool {
        let before = self.review_at.load(Ordering::Relaxed);
        let earlier = before == 0 || at.0 < before;
        if earlier {
            self.review_at.store(at.0, Ordering::Relaxed);
        }
        earlier
    }

    /// Begins the review that was scheduled for this time. Returns whether it is still the scheduled one.
    pub(crate) fn take_scheduled_review(&self, at: Moment) -> bool {
        self.review_at.compare_exchange(at.0, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// This breaker's part of a report; `None` if there are no counts, or the breaker must be exchanged.
    pub(crate) fn encode_report(&self, retry: bool, as_of: Moment) -> Option<Reported> {
        let reported = self.transact(|inner, now| inner.machine.encode_report(retry, as_of, now))?;
        Some(Reported { name: self.name.clone(), ..reported })
    }

    /// Notes that the store has merged the latest report.
    pub(crate) fn receive_report(&self) {
        self.transact(|inner, now| inner.machine.receive_report(now));
    }

    /// Requests an exchange, because the store's state differs from the reported one.
    pub(crate) fn exchange_next(&self) {
        self.transact(|inner, _| inner.machine.exchange_next());
        self.mark_dirty(false);
    }

    /// All instances are asked to report this breaker without delay.
    pub(crate) fn take_notice(&self) {
        self.transact(|inner, now| inner.machine.take_notice(now.at));
        self.mark_dirty(false);
    }

    /// The next entry; with `retry`, it carries the outcomes of the batch whose fate is unknown.
    pub(crate) fn encode(&self, retry: bool) -> Entry {
        self.transact(|inner, now| {
            let entry = inner.machine.encode(retry, now);
            // The store would make a key to keep the settings.
            let only_succeeded = self.is_keyed.load(Ordering::Relaxed)
                && entry.known.as_ref().is_none_or(|known| known.epoch == 0)
                && entry.delta.counts.failures == 0;
            let settings = if only_succeeded || inner.machine.only_observes() {
                Arc::default()
            } else {
                inner.line.encode(self.drift_reported.load(Ordering::Acquire), now.at)
            };
            Entry { name: self.name.clone(), settings, ..entry }
        })
    }

    /// Adopts the store's answer to the latest entry.
    pub(crate) fn receive(&self, view: &View, store_now: u64) {
        let drift = self.transact(|inner, now| {
            inner.machine.receive(view, store_now, now);
            self.drift(&inner.line, view.other_settings.as_deref())
        });
        if let Some(drift) = drift {
            self.context.events.error(drift);
        }
    }

    /// Adopts a state from the event stream or a load.
    pub(crate) fn adopt(&self, record: &Record) {
        self.transact(|inner, now| inner.machine.adopt(record, now));
    }

    /// This instance has missed events. `may_have_ended`: the store did not hold this epoch at `as_of`.
    pub(crate) fn doubt(&self, may_have_ended: impl FnOnce(u64) -> bool, as_of: Moment) {
        self.transact(|inner, _| {
            if may_have_ended(inner.machine.epoch()) {
                inner.machine.doubt(as_of);
            }
        });
    }

    pub(crate) fn end_doubt(&self) {
        self.transact(|inner, _| inner.machine.end_doubt());
    }

    /// Whether the confirmed state contradicts an event with this record. After a long idleness a closed
    /// breaker has none, because the store may have expired it, and begun its epochs anew.
    pub(crate) fn contradicts(&self, event: &Record) -> bool {
        self.transact(|inner, now| {
            inner.machine.forget_if_idle(now.at);
            inner.machine.contradicts(event)
        })
    }

    /// Notes an event of this epoch. Returns whether to send it to subscribers: after a failover that lost
    /// writes, a store may use a number twice.
    pub(crate) fn announce(&self, epoch: u64) -> bool {
        self.transact(|inner, _| inner.machine.announce(epoch))
    }

    /// The store has refused this breaker's entry: its outcomes are kept, and overrides that wait fail.
    pub(crate) fn receive_error(&self, problem: &str) {
        let error = Error::store("exchanging counts", problem);
        let failed = self.transact(|inner, _| {
            inner.machine.receive_error();
            std::mem::take(&mut inner.overrides)
        });
        for (_, caller) in failed {
            let _ = caller.send(Err(error.clone()));
        }
    }

    /// Handles the loss of the store: waiting callers stop waiting, overrides fail, and decisions are
    /// local. The status was set before, so that no caller begins to wait after this.
    pub(crate) fn store_lost(&self, error: &Error) {
        let failed = self.transact(|inner, now| {
            debug_assert!(!now.store_up, "a caller that comes now would wait for the store");
            inner.machine.store_lost();
            std::mem::take(&mut inner.overrides)
        });
        for (_, caller) in failed {
            let _ = caller.send(Err(error.clone()));
        }
    }

    /// The store takes long to answer: callers do not wait for probes any longer. A probe that is granted to
    /// one of them is returned.
    pub(crate) fn stop_waiting(&self) {
        drop(self.transact(|inner, _| std::mem::take(&mut inner.callers)));
    }

    /// Whether a store that has lost its data needs this breaker's state or counts.
    pub(crate) fn has_history(&self) -> bool {
        self.transact(|inner, _| inner.machine.epoch() > 0 || inner.machine.is_local())
    }

    /// Its state, if the breaker can be dropped and recreated from that: it is fully synced, and no caller
    /// waits.
    pub(crate) fn synced_record(&self) -> Option<Record> {
        self.transact(|inner, now| {
            let waits = !inner.callers.is_empty() || !inner.overrides.is_empty();
            inner.machine.synced_record(now.at).filter(|_| !waits)
        })
    }
}
