//! The probes of a half-open state, as far as this instance has to do with them.

use std::time::Duration;

use crate::clock::Moment;
use crate::config::Settings;
use crate::store::{LeaseAsk, LeaseId, View};

/// A lease lapses so long after its holder was last heard of. The coordinator renews it at a fifth of
/// that, so that only a dead (or cut off) holder loses one.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// A denial is remembered so long, so that a crowd of callers does not become a crowd of commands.
const DENIAL: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Probes {
    last_id: LeaseId,
    /// Callers that wait to be asked for, and those that the exchange under way asks for.
    waiting: Vec<LeaseId>,
    asking: Vec<LeaseId>,
    /// Leases of calls that are being made.
    held: Vec<LeaseId>,
    given_back: Vec<LeaseId>,
    denied_until: Moment,
    /// Calls being made without a lease, while the store is away.
    alone: u32,
}

/// Who gets a probe and who does not, after an exchange.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Allotted {
    pub(crate) granted: Vec<LeaseId>,
    pub(crate) denied: Vec<LeaseId>,
}

impl Probes {
    /// One more caller wants a probe. `None`: it cannot get one now.
    pub(crate) fn join(&mut self, limit: u32, now: Moment) -> Option<LeaseId> {
        let mine = self.waiting.len() + self.asking.len() + self.held.len();
        if mine >= limit as usize || now < self.denied_until {
            return None;
        }
        self.last_id += 1;
        self.waiting.push(self.last_id);
        Some(self.last_id)
    }

    /// The same without a store to ask.
    pub(crate) fn join_alone(&mut self, limit: u32) -> bool {
        let free = self.alone < limit;
        self.alone += u32::from(free);
        free
    }

    /// A call has ended, however it did. `lease`: 0 = it was made without one.
    pub(crate) fn ended(&mut self, lease: LeaseId) {
        if lease == 0 {
            self.alone = self.alone.saturating_sub(1);
        } else if let Some(at) = self.held.iter().position(|held| *held == lease) {
            self.held.swap_remove(at);
            self.given_back.push(lease);
            // What this instance gives back is free again.
            self.denied_until = Moment::default();
        }
    }

    pub(crate) fn are_wanted(&self) -> bool {
        !self.waiting.is_empty() || !self.asking.is_empty()
    }

    pub(crate) fn want_exchange(&self) -> bool {
        !self.waiting.is_empty() || !self.given_back.is_empty()
    }

    pub(crate) fn ask(&mut self, settings: &Settings) -> LeaseAsk {
        self.asking.append(&mut self.waiting);
        LeaseAsk {
            release: std::mem::take(&mut self.given_back),
            renew: self.held.clone(),
            want: self.asking.clone(),
            limit: settings.half_open_max_calls,
            term_us: crate::clock::micros(LEASE),
        }
    }

    /// Those that the exchange under way asks for; to be taken before its answer is looked at.
    pub(crate) fn take_asking(&mut self) -> Vec<LeaseId> {
        std::mem::take(&mut self.asking)
    }

    /// The store's answer for `asked`.
    pub(crate) fn allot(&mut self, asked: Vec<LeaseId>, view: &View, now: Moment) -> Allotted {
        let (granted, denied): (Vec<_>, Vec<_>) = asked.into_iter().partition(|id| view.granted.contains(id));
        if !denied.is_empty() {
            let wait = view.lease_wait_us.map_or(DENIAL, Duration::from_micros);
            self.denied_until = now.after(wait.min(DENIAL));
        }
        self.held.extend(&granted);
        Allotted { granted, denied }
    }

    /// The exchange said nothing about these: the next one asks for them again.
    pub(crate) fn ask_again(&mut self, asked: Vec<LeaseId>) {
        self.waiting.extend(asked);
    }

    /// Another state begins: leases of the one before are void. Who waits goes on waiting if that state may have
    /// probes, too.
    pub(crate) fn begin_epoch(&mut self, may_come: bool) {
        self.held.clear();
        self.given_back.clear();
        self.alone = 0;
        self.denied_until = Moment::default();
        if !may_come {
            self.waiting.clear();
            self.asking.clear();
        }
    }

    /// The store is away: nobody can be asked.
    pub(crate) fn store_lost(&mut self) {
        self.waiting.clear();
        self.asking.clear();
    }

    /// Whether someone still waits under this id.
    pub(crate) fn awaits(&self, id: LeaseId) -> bool {
        self.waiting.contains(&id) || self.asking.contains(&id)
    }
}
