//! The one door to a breaker's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::gate::GateWord;
use super::machine::state::LocalChange;
use super::machine::{Effects, Now, StateMachine, Wake};
use super::permit::Grant;
use super::{Core, Inner, closed, due, rejects_until};
use crate::clock::Moment;
use crate::error::Error;
use crate::event::{Event, Transition};
use crate::snapshot::State;
use crate::store::LeaseId;
use crate::sync::lock;

/// What is done once the lock is released: it runs listeners and wakes tasks, which may come back to this
/// breaker.
struct Deferred {
    effects: Effects,
    grants: Vec<(oneshot::Sender<Grant>, Grant)>,
    /// Callers whose requests came to nothing. They learn it by the end of their channel.
    dismissed: Vec<(LeaseId, oneshot::Sender<Grant>)>,
    applied: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Core {
    /// Takes the lock, absorbs the counters, lets `act` decide, and publishes the state that calls meet. Once
    /// the lock is released, tells the listeners, answers the callers that wait, and wakes the coordinator.
    pub(super) fn transact<T>(&self, act: impl FnOnce(&mut Inner, Now) -> T) -> T {
        self.transact_at_gate(act).0
    }

    /// As [`transact`](Self::transact); also returns the gate's word as it was before the lock was released.
    pub(super) fn transact_at_gate<T>(&self, act: impl FnOnce(&mut Inner, Now) -> T) -> (T, GateWord) {
        self.transact_for(false, act)
    }

    /// As [`transact`](Self::transact), to record a failure, which leaves other threads' credit valid.
    pub(super) fn transact_failure(&self, act: impl FnOnce(&mut Inner, Now)) {
        self.transact_for(true, act);
    }

    fn transact_for<T>(&self, failure: bool, act: impl FnOnce(&mut Inner, Now) -> T) -> (T, GateWord) {
        let mut inner = lock(&self.inner);
        let before = inner.published;
        let at = self.context.clock.now();
        let abandoned = self.context.is_abandoned(at);
        let now = Now {
            at,
            skew: self.context.skew(),
            // Read under the lock: a loss of the store lowers the flag first and takes this lock then, so it
            // finds every proposal and every waiting caller that relied on the flag.
            store_up: self.context.store_up() && !abandoned,
            is_shared: self.context.has_shared_store(),
            answer_time: self.context.timeouts.longest(),
            random: fastrand::f64(),
        };
        if abandoned {
            inner.machine.detach();
        }
        let successes = self.counters.drain();
        let unjudged = self.credit.collect(&mut inner.granted, failure, &self.counters, &self.context, now);
        if unjudged.failures > 0 {
            self.last_failure.fetch_max(unjudged.latest.0, Ordering::Relaxed);
        }
        inner.machine.absorb(successes, unjudged, now);
        if inner.published != inner.machine.generation() {
            // What `act` does may depend on the gate.
            self.publish(&mut inner, now.at);
        }
        let result = act(&mut inner, now);
        self.publish(&mut inner, now.at);
        let word = self.gate.word();
        // Another state may have health checks, wherever it was decided: the coordinator finds out.
        let has_changed = inner.published != before && self.is_checked();
        let wake = inner.machine.take_wake().or(has_changed.then_some(Wake::Paced));
        let has_more = inner.machine.has_effects() || !inner.callers.is_empty();
        let deferred = has_more.then(|| self.defer(&mut inner, word, now));
        drop(inner);
        if let Some(deferred) = deferred {
            self.finish(deferred);
        }
        if let Some(wake) = wake {
            self.mark_dirty(wake == Wake::AtOnce);
        }
        (result, word)
    }

    /// Lets calls meet the machine's state.
    fn publish(&self, inner: &mut Inner, now: Moment) {
        let Inner { machine, granted, published, .. } = inner;
        if *published == machine.generation() {
            return self.publish_times(machine, now);
        }
        *published = machine.generation();
        self.gate.set(machine.state(), closed(machine, &self.context, now), || {
            self.publish_times(machine, now);
            self.credit.take_back(granted);
            self.ramp.set(machine.ramp(now));
        });
    }

    /// When the state ends, and what else of it is a time.
    fn publish_times(&self, machine: &StateMachine, now: Moment) {
        let due = due(machine);
        if self.due.load(Ordering::Relaxed) != due {
            self.due.store(due, Ordering::Relaxed);
            self.due_after.store(due.saturating_sub(now.0), Ordering::Relaxed);
        }
        set(&self.rejects_until, rejects_until(machine, &self.context.clock, now));
        if machine.state() == State::Open {
            set(&self.opened_at, machine.record().since().0);
        }
        set(&self.next_check, machine.next_check().map_or(0, |next| next.0));
    }

    #[cold]
    fn defer(&self, inner: &mut Inner, word: GateWord, now: Now) -> Deferred {
        let mut effects = inner.machine.take_effects();
        if effects.would_open.is_some() {
            inner.would_have_opened = (inner.would_have_opened.0 + 1, Some(now.at));
        }
        let mut grants = Vec::new();
        for id in std::mem::take(&mut effects.granted) {
            let caller = inner.callers.iter().position(|(caller, _)| *caller == id);
            match (caller, self.me.upgrade()) {
                (Some(at), Some(me)) => {
                    grants.push((inner.callers.swap_remove(at).1, Grant::new(me, word, id)));
                }
                _ => inner.machine.release_probe(id, now),
            }
        }
        let Inner { machine, callers, overrides, .. } = inner;
        let dismissed = callers.extract_if(.., |(id, _)| !machine.awaits_probe(*id)).collect();
        let applied = effects.applied.and_then(|applied| {
            let at = overrides.iter().position(|(id, _)| *id == applied)?;
            Some(overrides.swap_remove(at).1)
        });
        Deferred { effects, grants, dismissed, applied }
    }

    #[cold]
    fn finish(&self, deferred: Deferred) {
        let Deferred { effects, grants, dismissed, applied } = deferred;
        for change in effects.local_changes {
            self.emit_local(change);
        }
        if let Some(reason) = effects.would_open {
            self.context.events.emit(Event::WouldHaveOpened { breaker: self.name.clone(), reason });
        }
        drop(dismissed);
        for (caller, grant) in grants {
            // A caller that has gone gives its grant back by dropping it.
            let _ = caller.send(grant);
        }
        if let Some(applied) = applied {
            let _ = applied.send(Ok(()));
        }
    }

    /// Reports a change that no event of the store will report.
    fn emit_local(&self, change: LocalChange) {
        let LocalChange { from, to, epoch, evidence } = change;
        self.context.events.emit(Event::LocalTransition(Arc::new(Transition {
            breaker: self.name.clone(),
            epoch,
            at: self.context.wall(self.context.clock.now()),
            cursor: None,
            from,
            to: to.state,
            reason: to.reason,
            actor: to.actor,
            originator: to.originator,
            own: true,
            successes: evidence.successes,
            failures: evidence.failures,
            open_for: (to.state == State::Open).then(|| Duration::from_micros(to.reset_timeout_us)),
        })));
    }
}

/// Calls read it: its cache line is written to only if it changes.
fn set(value: &AtomicU64, to: u64) {
    if value.load(Ordering::Relaxed) != to {
        value.store(to, Ordering::Relaxed);
    }
}
