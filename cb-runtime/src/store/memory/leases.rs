//! The leases of one breaker's probes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::{LeaseId, LeaseRequest, MAX_SPAN_US};

/// When each lease expires.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StoredLeases(BTreeMap<(Arc<str>, LeaseId), u64>);

impl StoredLeases {
    /// The number of leases that have not expired.
    pub(super) fn held(&self, now: u64) -> u32 {
        u32::try_from(self.0.values().filter(|until| **until > now).count()).unwrap_or(u32::MAX)
    }

    /// Removes lapsed leases, and releases and renews this instance's.
    pub(super) fn settle(&mut self, instance: &Arc<str>, ask: &LeaseRequest, now: u64) {
        self.0.retain(|_, until| *until > now);
        if ask.is_nothing() {
            return;
        }
        // A lease that ends so far ahead was taken before the clock was set back: it ends after one more
        // term.
        let term = ask.term_us.min(MAX_SPAN_US);
        let far = now.saturating_add(2 * term);
        for until in self.0.values_mut().filter(|until| term > 0 && **until > far) {
            *until = now + term;
        }
        for &id in &ask.release {
            self.0.remove(&(instance.clone(), id));
        }
        for &id in &ask.renew {
            if let Some(until) = self.0.get_mut(&(instance.clone(), id)) {
                *until = now + ask.term_us.min(MAX_SPAN_US);
            }
        }
    }

    /// The granted ids; and if some were denied, the time until the first held lease expires.
    pub(super) fn hand_out(
        &mut self,
        instance: &Arc<str>,
        ask: &LeaseRequest,
        now: u64,
    ) -> (Vec<LeaseId>, Option<u64>) {
        let mut granted = Vec::new();
        for &id in &ask.want {
            let lease = (instance.clone(), id);
            if self.0.contains_key(&lease) || self.0.len() < ask.limit as usize {
                self.0.insert(lease, now + ask.term_us.min(MAX_SPAN_US));
                granted.push(id);
            }
        }
        let denied = granted.len() < ask.want.len();
        let first = self.0.values().min().filter(|_| denied);
        let wait = first.map(|until| until.saturating_sub(now));
        (granted, wait)
    }
}
