//! A breaker's side towards the coordinator: what it has to tell the store, and what the store says.

use std::sync::atomic::Ordering;

use super::permit::Grant;
use super::{Core, Desk, due};
use crate::error::{Error, ErrorKind};
use crate::store::{Entry, Record, View};
use crate::sync::lock;

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
        drop(desk);
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
            let order = desk.orders.remove(0);
            entry.proposal = Some(order.proposal.clone());
            desk.ordered = Some(order);
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
        let ordered = desk.ordered.take();
        let more = answered.more || !desk.orders.is_empty();
        let epoch = desk.ledger.epoch();
        drop(desk);
        self.tell_private(answered.change, epoch);
        drop(gone);
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
