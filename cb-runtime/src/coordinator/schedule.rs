//! The times of scheduled reviews.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::breaker::Core;
use crate::clock::Moment;

/// The earliest time of each breaker is valid; its other entries are skipped.
#[derive(Default)]
pub(super) struct Schedule(BTreeMap<(Moment, usize), Weak<Core>>);

impl Schedule {
    pub(super) fn add(&mut self, core: &Arc<Core>, at: Moment) {
        if core.schedule_review(at) {
            self.0.insert((at, Arc::as_ptr(core).addr()), Arc::downgrade(core));
        }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.0.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes and returns the breakers whose review is due.
    pub(super) fn take(&mut self, now: Moment) -> Vec<Arc<Core>> {
        let mut due = Vec::new();
        while let Some(entry) = self.0.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), core) = entry.remove_entry();
            due.extend(core.upgrade().filter(|core| core.take_scheduled_review(at)));
        }
        due
    }
}
