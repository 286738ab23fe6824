//! The leader lease of a breaker's health checks.

use std::sync::Arc;

use crate::store::{LeaderView, MAX_ROLE_TERM_US};

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredLeader {
    holder: Option<Arc<str>>,
    /// The latest token.
    token: u64,
    until: u64,
}

impl StoredLeader {
    pub(super) fn holder(&self, now: u64) -> Option<&Arc<str>> {
        self.holder.as_ref().filter(|_| LeaderView::holds(self.until, now))
    }

    /// Returns whether the instance has the lease, or had it until now.
    pub(super) fn take(&mut self, instance: &Arc<str>, term_us: u64, now: u64) -> bool {
        match self.holder(now) {
            Some(holder) if holder != instance => return false,
            Some(_) => {}
            None => self.token = (self.token + 1).max(now),
        }
        self.holder = Some(instance.clone());
        self.until = now.saturating_add(term_us.min(MAX_ROLE_TERM_US));
        true
    }

    pub(super) fn give_up(&mut self, instance: &Arc<str>) {
        self.holder.take_if(|holder| holder == instance);
    }

    pub(super) fn is_held(&self, instance: &str, token: u64, now: u64) -> bool {
        self.token == token && self.holder(now).is_some_and(|holder| **holder == *instance)
    }

    pub(super) fn view(&self, instance: &str, now: u64) -> LeaderView {
        let holder = self.holder(now);
        LeaderView {
            mine: holder.is_some_and(|holder| **holder == *instance),
            token: self.token,
            remaining_us: holder.map_or(0, |_| self.until - now),
        }
    }
}
