//! The times of scheduled reviews.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::breaker::Core;
use crate::clock::Moment;

/// So few entries of breakers that were evicted do not matter.
const FEW: usize = 512;

/// The earliest time of each breaker is valid; its other entries are skipped.
#[derive(Default)]
pub(super) struct Schedule {
    reviews: BTreeMap<(Moment, usize), Weak<Core>>,
    /// Beyond this number, entries of breakers that were evicted are removed: they keep its memory.
    limit: usize,
}

impl Schedule {
    pub(super) fn add(&mut self, core: &Arc<Core>, at: Moment) {
        if core.schedule_review(at) {
            self.reviews.insert((at, Arc::as_ptr(core).addr()), Arc::downgrade(core));
            if self.reviews.len() > self.limit {
                self.reviews.retain(|_, core| core.strong_count() > 0);
                self.limit = FEW.max(2 * self.reviews.len());
            }
        }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.reviews.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes and returns the breakers whose review is due.
    pub(super) fn take(&mut self, now: Moment) -> Vec<Arc<Core>> {
        let mut due = Vec::new();
        while let Some(entry) = self.reviews.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), core) = entry.remove_entry();
            due.extend(core.upgrade().filter(|core| core.take_scheduled_review(at)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::{FEW, Schedule};
    use crate::breaker::Core;
    use crate::breaker::context::RegistryContext;
    use crate::cache::Cache;
    use crate::clock::Clock;
    use crate::config::{BreakerConfig, CacheLimits};
    use crate::event::EventBus;

    #[test]
    fn entries_of_evicted_breakers_are_few() {
        let clock = Clock::manual().0;
        let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
        let (bus, up) = (Arc::new(EventBus::new(None)), Arc::new(AtomicBool::new(false)));
        let context = Arc::new(RegistryContext::new("here".into(), clock, bus, cache, up));
        let mut schedule = Schedule::default();
        let kept: Vec<_> = (0..4 * FEW as u64)
            .filter_map(|number| {
                let core = Core::new("tenant".into(), &BreakerConfig::default(), None, &context);
                let at = context.clock.now().after(Duration::from_secs(3600 + number));
                schedule.add(&core, at);
                context.take_dirty();
                (number % 16 == 0).then_some(core)
            })
            .collect();
        assert!(schedule.reviews.len() <= FEW + 1, "{} entries", schedule.reviews.len());
        let due = schedule.take(context.clock.now().after(Duration::from_secs(1_000_000)));
        assert_eq!(due.len(), kept.len());
    }
}
