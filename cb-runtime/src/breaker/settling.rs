//! A breaker's side towards the coordinator: what it has to tell the store, and what the store says.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::permit::Grant;
use super::{Core, Desk, due};
use crate::config::drift::differences;
use crate::error::{Error, ErrorKind};
use crate::store::{Entry, Record, View};
use crate::sync::lock;

/// For those who come later.
const SAID_AGAIN: Duration = Duration::from_secs(60);

impl Core {
    /// Brings the books up to date, and judges: successes alone can complete a rate's minimum of calls.
    /// Returns whether there is something to exchange with the store.
    pub(crate) fn review(&self) -> bool {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        let store_up = self.store_up();
        desk.ledger.fold(self.tally.account(), now);
        let change = desk.ledger.judge(now, self.home.skew(), store_up);
        if change.is_some() {
            self.show(&desk.ledger);
        }
        let wants = desk.ledger.wants_exchange(now) || !desk.orders.is_empty();
        let epoch = desk.ledger.epoch();
        let would_open = desk.would_open_now(None, now, self.home.skew(), store_up);
        drop(desk);
        self.tell_would_open(would_open);
        self.tell_private(change, epoch);
        wants
    }

    /// What this breaker has to say to the store; with `retry`, the evidence of the batch whose fate is unknown.
    pub(crate) fn entry(&self, retry: bool) -> Entry {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        desk.ledger.fold(self.tally.account(), now);
        let mut entry = desk.ledger.entry(self.name.clone(), now, self.home.skew(), retry);
        if !retry && !desk.orders.is_empty() {
            let mut order = desk.orders.remove(0);
            if !order.release || desk.ledger.state().is_manual() {
                entry.proposal = Some(order.proposal.clone());
                order.told = true;
            }
            desk.ordered = Some(order);
        }
        // What nobody says is forgotten; who has heard of a difference need not say it all the time.
        if !self.drift_told.load(Ordering::Acquire) || now.since(desk.line_said_at) >= SAID_AGAIN {
            entry.settings = desk.line.clone();
            desk.line_said_at = now;
        }
        entry
    }

    /// Takes over the store's answer to the last entry.
    pub(crate) fn answered(&self, view: &View, store_now: u64) {
        self.damaged.store(false, Ordering::Release);
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        desk.ledger.fold(self.tally.account(), now);
        let answered = desk.ledger.answered(view, store_now, now, self.home.skew());
        if answered.moved {
            self.show(&desk.ledger);
        } else {
            self.due.store(due(&desk.ledger), Ordering::Relaxed);
        }
        let pass = self.gate.pass();
        let mut grants = Vec::new();
        for id in answered.allotted.granted {
            let grant = self.me.upgrade().map(|core| Grant::new(core, pass, id));
            match desk.callers.iter().position(|(caller, _)| *caller == id) {
                Some(at) => grants.push((desk.callers.swap_remove(at).1, grant)),
                None => desk.ledger.probes.ended(id),
            }
        }
        // Whoever cannot get a probe any more learns it by the end of the channel.
        let Desk { ledger, callers, .. } = &mut *desk;
        let gone: Vec<_> = callers.extract_if(.., |(id, _)| !ledger.probes.awaits(*id)).collect();
        // Meanwhile this instance has learned that there is something to release.
        let mut ordered = desk.ordered.take();
        if let Some(order) = ordered.take_if(|order| !order.told && desk.ledger.state().is_manual()) {
            desk.orders.insert(0, order);
        }
        let more = answered.more || !desk.orders.is_empty();
        let drift = self.drift(&desk, view);
        let epoch = desk.ledger.epoch();
        drop(desk);
        self.tell_private(answered.change, epoch);
        drop(gone);
        if let Some(drift) = drift {
            self.home.outlet.error(drift);
        }
        for (caller, grant) in grants {
            if let Some(grant) = grant {
                // A caller that has gone gives its grant back by dropping it.
                let _ = caller.send(grant);
            }
        }
        if let Some(order) = ordered {
            let _ = order.answer.send(Ok(()));
        }
        if more {
            self.flag(true);
        }
    }

    /// Another instance judges by other settings, and that has not been reported yet.
    fn drift(&self, desk: &Desk, view: &View) -> Option<Error> {
        let differences = differences(&desk.line, view.other_settings.as_ref()?);
        if differences.is_empty() || self.drift_told.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(Error::new(ErrorKind::Drift { breaker: self.name.clone(), differences }))
    }

    /// Takes over a state that another instance (or this one) has brought about.
    pub(crate) fn adopt(&self, record: &Record) {
        let now = self.home.clock.now();
        let mut desk = lock(&self.desk);
        desk.ledger.fold(self.tally.account(), now);
        if desk.ledger.adopt(record, now) {
            self.show(&desk.ledger);
        } else {
            self.due.store(due(&desk.ledger), Ordering::Relaxed);
        }
        let Desk { ledger, callers, .. } = &mut *desk;
        let gone: Vec<_> = callers.extract_if(.., |(id, _)| !ledger.probes.awaits(*id)).collect();
        drop(desk);
        drop(gone);
    }

    /// The store has refused this breaker's entry because what it holds under its keys is damaged.
    pub(crate) fn refused(&self, problem: &str) {
        let what = format!("breaker \"{}\"", self.name);
        let error = Error::new(ErrorKind::Data { what, problem: problem.to_owned() });
        lock(&self.desk).ledger.refused();
        let known = self.damaged.swap(true, Ordering::AcqRel);
        self.store_lost(&error);
        if !known {
            self.home.outlet.error(error);
        }
    }

    /// The store does not answer: who waits for it stops waiting, orders fail, this instance goes on alone.
    pub(crate) fn store_lost(&self, error: &Error) {
        let mut desk = lock(&self.desk);
        let change = desk.ledger.store_lost();
        let gone = std::mem::take(&mut desk.callers);
        let ordered = desk.ordered.take();
        let orders = std::mem::take(&mut desk.orders);
        let epoch = desk.ledger.epoch();
        drop(desk);
        drop(gone);
        for order in ordered.into_iter().chain(orders) {
            let _ = order.answer.send(Err(error.clone()));
        }
        self.tell_private(change, epoch);
    }

    /// Has something that a store which has lost its data must be told.
    pub(crate) fn has_history(&self) -> bool {
        let desk = lock(&self.desk);
        desk.ledger.epoch() > 0 || desk.ledger.is_local()
    }
}
