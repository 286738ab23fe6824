//! A breaker's side towards the coordinator: what it has to tell the store, and what the store says.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::permit::Grant;
use super::{Core, Inner, due};
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
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        let store_up = self.store_up();
        inner.machine.fold(self.counters.drain(), now);
        let change = inner.machine.judge(now, self.context.skew(), store_up);
        if change.is_some() {
            self.publish_state(&inner.machine);
        }
        let wants = inner.machine.wants_exchange(now)
            || !inner.overrides.is_empty()
            || inner.checks.want_exchange(self.check_context(&inner.machine, now));
        let epoch = inner.machine.epoch();
        let would_open = inner.would_open_now(None, now, self.context.skew(), store_up);
        drop(inner);
        self.emit_would_open(would_open);
        self.emit_local(change, epoch);
        wants
    }

    /// What this breaker has to say to the store; with `retry`, the evidence of the batch whose fate is unknown.
    pub(crate) fn entry(&self, retry: bool) -> Entry {
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        inner.machine.fold(self.counters.drain(), now);
        let mut entry = inner.machine.entry(self.name.clone(), now, self.context.skew(), retry);
        let Inner { machine, checks, .. } = &mut *inner;
        entry.role = checks.ask(self.check_context(machine, now));
        if !retry && !inner.overrides.is_empty() {
            let mut pending = inner.overrides.remove(0);
            if !pending.release || inner.machine.state().is_manual() {
                entry.proposal = Some(pending.proposal.clone());
                pending.told = true;
            }
            inner.override_in_flight = Some(pending);
        }
        // What nobody says is forgotten; who has heard of a difference need not say it all the time.
        if !self.drift_told.load(Ordering::Acquire) || now.since(inner.line_said_at) >= SAID_AGAIN {
            entry.settings = inner.line.clone();
            inner.line_said_at = now;
        }
        entry
    }

    /// Takes over the store's answer to the last entry.
    pub(crate) fn answered(&self, view: &View, store_now: u64) {
        self.damaged.store(false, Ordering::Release);
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        inner.machine.fold(self.counters.drain(), now);
        let answered = inner.machine.answered(view, store_now, now, self.context.skew());
        if answered.moved {
            self.publish_state(&inner.machine);
        } else {
            self.due.store(due(&inner.machine), Ordering::Relaxed);
        }
        let Inner { machine, checks, .. } = &mut *inner;
        checks.answered(view.role, self.check_context(machine, now));
        let word = self.gate.word();
        let mut grants = Vec::new();
        for id in answered.allotted.granted {
            let grant = self.me.upgrade().map(|core| Grant::new(core, word, id));
            match inner.callers.iter().position(|(caller, _)| *caller == id) {
                Some(at) => grants.push((inner.callers.swap_remove(at).1, grant)),
                None => inner.machine.probes.ended(id),
            }
        }
        // Whoever cannot get a probe any more learns it by the end of the channel.
        let Inner { machine, callers, .. } = &mut *inner;
        let gone: Vec<_> = callers.extract_if(.., |(id, _)| !machine.probes.awaits(*id)).collect();
        // Meanwhile this instance has learned that there is something to release.
        let mut override_in_flight = inner.override_in_flight.take();
        if let Some(pending) =
            override_in_flight.take_if(|pending| !pending.told && inner.machine.state().is_manual())
        {
            inner.overrides.insert(0, pending);
        }
        let more = answered.more || !inner.overrides.is_empty();
        let drift = self.drift(&inner, view);
        let epoch = inner.machine.epoch();
        drop(inner);
        self.emit_local(answered.change, epoch);
        drop(gone);
        if let Some(drift) = drift {
            self.context.events.error(drift);
        }
        for (caller, grant) in grants {
            if let Some(grant) = grant {
                // A caller that has gone gives its grant back by dropping it.
                let _ = caller.send(grant);
            }
        }
        if let Some(pending) = override_in_flight {
            let _ = pending.answer.send(Ok(()));
        }
        if more {
            self.mark_dirty(true);
        }
    }

    /// Another instance judges by other settings, and that has not been reported yet.
    fn drift(&self, inner: &Inner, view: &View) -> Option<Error> {
        let other = view.other_settings.as_ref()?;
        // Who has judged by that in earnest reports it: it hears of this instance's present settings.
        if inner.former_lines.iter().any(|former| **former == **other) {
            return None;
        }
        let differences = differences(&inner.line, other);
        if differences.is_empty() || self.drift_told.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(Error::new(ErrorKind::Drift { breaker: self.name.clone(), differences }))
    }

    /// Takes over a state that another instance (or this one) has brought about.
    pub(crate) fn adopt(&self, record: &Record) {
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        inner.machine.fold(self.counters.drain(), now);
        if inner.machine.adopt(record, now) {
            self.publish_state(&inner.machine);
        } else {
            self.due.store(due(&inner.machine), Ordering::Relaxed);
        }
        let Inner { machine, callers, .. } = &mut *inner;
        let gone: Vec<_> = callers.extract_if(.., |(id, _)| !machine.probes.awaits(*id)).collect();
        drop(inner);
        drop(gone);
    }

    /// The store has refused this breaker's entry because what it holds under its keys is damaged.
    pub(crate) fn refused(&self, problem: &str) {
        let what = format!("breaker \"{}\"", self.name);
        let error = Error::new(ErrorKind::Data { what, problem: problem.to_owned() });
        lock(&self.inner).machine.refused();
        let known = self.damaged.swap(true, Ordering::AcqRel);
        self.store_lost(&error);
        if !known {
            self.context.events.error(error);
        }
    }

    /// The store does not answer: who waits for it stops waiting, overrides fail, this instance goes on alone.
    pub(crate) fn store_lost(&self, error: &Error) {
        let mut inner = lock(&self.inner);
        let change = inner.machine.store_lost();
        inner.checks.store_lost();
        let gone = std::mem::take(&mut inner.callers);
        let override_in_flight = inner.override_in_flight.take();
        let overrides = std::mem::take(&mut inner.overrides);
        let epoch = inner.machine.epoch();
        drop(inner);
        drop(gone);
        for pending in override_in_flight.into_iter().chain(overrides) {
            let _ = pending.answer.send(Err(error.clone()));
        }
        self.emit_local(change, epoch);
    }

    /// Has something that a store which has lost its data must be told.
    pub(crate) fn has_history(&self) -> bool {
        let inner = lock(&self.inner);
        inner.machine.epoch() > 0 || inner.machine.is_local()
    }
    /// Nothing of it is lost if this instance forgets it: it is closed, the store knows all that it has counted, and
    /// nobody waits for anything.
    pub(crate) fn is_at_rest(&self) -> bool {
        let now = self.context.clock.now();
        let mut inner = lock(&self.inner);
        inner.machine.fold(self.counters.drain(), now);
        let Inner { machine, callers, overrides, override_in_flight, .. } = &*inner;
        machine.is_at_rest(now) && callers.is_empty() && overrides.is_empty() && override_in_flight.is_none()
    }
}
