//! When the coordinator reviews which breaker, and whether to exchange or to report it then.

use std::sync::Arc;
use std::time::Duration;

use super::{Coordinator, SWEEP};
use crate::breaker::Core;
use crate::breaker::machine::{Cadence, PACE, Want};
use crate::clock::Moment;

impl Coordinator {
    /// When the next turn is due if nothing happens before.
    pub(super) fn next_turn(&self) -> Moment {
        let up = self.context.store_up();
        let mut next = if up { self.pace.heartbeat_at() } else { self.retry_at };
        let mut by = |at: Moment| next = next.min(at);
        by(self.swept_at.after(self.sweep_interval()));
        if !self.checked.is_empty() {
            by(self.checked_at.after(PACE));
        }
        if !self.tense.is_empty() {
            by(self.pace.exchange_at());
        }
        let review_at = self.review_at();
        if self.context.has_counted() {
            by(self.pace.report_at().max(review_at));
        }
        if self.context.has_dirty() {
            by(review_at);
        }
        if let Some(at) = self.schedule.next() {
            by(at.max(review_at));
        }
        if let Some(at) = self.outages.due() {
            by(at);
        }
        next
    }

    /// A sweep looks at each breaker: while there is room, some ten thousand would cost more than all else.
    pub(super) fn sweep_interval(&self) -> Duration {
        if self.breakers.is_crowded() { PACE } else { SWEEP }
    }

    /// Breakers are reviewed every [`PACE`], and at once if one of them is urgent.
    pub(super) fn review_at(&self) -> Moment {
        self.reviewed_at.after(PACE)
    }

    /// Reviews the breakers on which something has happened, or whose scheduled review is due. Breakers that
    /// have counted since their last review are among them if the usual report is due.
    pub(super) fn review(&mut self, now: Moment, due: Cadence) {
        self.reviewed_at = now;
        let mut cores = self.context.take_dirty();
        cores.extend(self.schedule.take(now));
        if due == Cadence::Usual {
            cores.extend(self.context.take_counted());
        }
        for core in cores {
            self.review_one(core, due);
        }
    }

    /// Puts the breaker into the next exchange, into this turn's report if reports at its cadence are `due`,
    /// or off until they are.
    pub(super) fn review_one(&mut self, core: Arc<Core>, due: Cadence) {
        let agenda = core.review();
        if let Some(at) = agenda.review_at {
            self.schedule.add(&core, at);
        }
        if agenda.has_checks {
            self.checked.insert(core.name().clone(), Arc::downgrade(&core));
        }
        match agenda.want {
            Want::Nothing => {}
            Want::Exchange => self.tense.push(core),
            Want::Confirmation if due == Cadence::Usual => self.tense.push(core),
            Want::Report(cadence) if cadence <= due => self.quiet.push(core),
            Want::Confirmation | Want::Report(_) => core.mark_counted(),
        }
    }
}
