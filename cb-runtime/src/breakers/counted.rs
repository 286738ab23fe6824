//! What the breakers of a breakers have counted, for those who publish it.

use std::sync::Arc;

use super::{BITE, BreakerEntry, BreakerMap, Entries};
use crate::metrics::{Calls, OTHERS, calls};
use crate::snapshot::State;
use crate::sync::lock;

/// One breaker, and what is new about it.
pub(crate) struct Counted<'a> {
    pub(crate) name: &'a Arc<str>,
    /// What the name is one of, if it is a keyed's.
    pub(crate) pattern: Option<&'static str>,
    pub(crate) state: State,
    /// Not of keyed, which are summed up.
    pub(crate) epoch: Option<u64>,
    /// What has become of its calls since it was asked the last time.
    pub(crate) calls: Calls,
}

impl BreakerMap {
    /// Tells of every breaker; a bite of them at a time, because nobody can be admitted meanwhile. None of them is held
    /// for it: that would keep idle keyed from being let go.
    pub(crate) fn count(&self, mut tell: impl FnMut(Counted<'_>)) {
        let names: Vec<_> = self.read().cores.keys().cloned().collect();
        for bite in names.chunks(BITE) {
            let entries = self.read();
            for name in bite {
                if let Some(entry) = entries.cores.get(name) {
                    tell(Counted {
                        name,
                        pattern: entry.pattern(),
                        state: entry.core.state(),
                        epoch: (!entry.keyed).then(|| entry.core.epoch()),
                        calls: entry.new_calls(),
                    });
                }
            }
        }
    }
}

impl Entries {
    /// A keyed is about to be let go: what has not been published of it goes to the sum of its like.
    pub(super) fn count_out(&self, name: &Arc<str>) {
        if let Some(entry) = self.cores.get(name) {
            let sum = entry.pattern().unwrap_or(OTHERS);
            entry.core.context().events.meter.leave(name, sum, entry.new_calls());
        }
    }
}

impl BreakerEntry {
    fn pattern(&self) -> Option<&'static str> {
        self.keyed.then(|| self.pattern.get().copied().unwrap_or(OTHERS))
    }

    fn new_calls(&self) -> Calls {
        let now = calls(self.core.outcomes());
        let mut published = lock(&self.published);
        let new = std::array::from_fn(|at| now[at].saturating_sub(published[at]));
        *published = now;
        new
    }
}
