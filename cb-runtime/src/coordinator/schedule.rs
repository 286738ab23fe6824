//! When to look at which breaker again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::breaker::Core;
use crate::clock::Moment;

/// Each breaker is in it once, at the earliest of its times; later entries of the same breaker are void.
#[derive(Default)]
pub(super) struct Schedule(BTreeMap<(Moment, usize), Weak<Core>>);

impl Schedule {
    pub(super) fn add(&mut self, core: &Arc<Core>, at: Moment) {
        if core.look_at(at) {
            self.0.insert((at, Arc::as_ptr(core).addr()), Arc::downgrade(core));
        }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.0.first_key_value().map(|((at, _), _)| *at)
    }

    /// Those that are due.
    pub(super) fn take(&mut self, now: Moment) -> Vec<Arc<Core>> {
        let mut due = Vec::new();
        while let Some(entry) = self.0.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), core) = entry.remove_entry();
            due.extend(core.upgrade().filter(|core| core.take_look(at)));
        }
        due
    }
}
