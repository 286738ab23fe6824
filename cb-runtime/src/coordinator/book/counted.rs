//! What the breakers of a book have counted, for those who publish it.

use std::sync::Arc;

use super::{BITE, Book, Page, Pages};
use crate::meter::{Calls, OTHERS, calls};
use crate::snapshot::State;
use crate::sync::lock;

/// One breaker, and what is new about it.
pub(crate) struct Counted<'a> {
    pub(crate) name: &'a Arc<str>,
    /// What the name is one of, if it is a guest's.
    pub(crate) pattern: Option<&'static str>,
    pub(crate) state: State,
    /// Not of guests, which are summed up.
    pub(crate) epoch: Option<u64>,
    /// What has become of its calls since it was asked the last time.
    pub(crate) calls: Calls,
}

impl Book {
    /// Tells of every breaker; a bite of them at a time, because nobody can be admitted meanwhile. None of them is held
    /// for it: that would keep idle guests from being let go.
    pub(crate) fn count(&self, mut tell: impl FnMut(Counted<'_>)) {
        let names: Vec<_> = self.read().cores.keys().cloned().collect();
        for bite in names.chunks(BITE) {
            let pages = self.read();
            for name in bite {
                if let Some(page) = pages.cores.get(name) {
                    tell(Counted {
                        name,
                        pattern: page.pattern(),
                        state: page.core.state(),
                        epoch: (!page.guest).then(|| page.core.epoch()),
                        calls: page.new_calls(),
                    });
                }
            }
        }
    }
}

impl Pages {
    /// A guest is about to be let go: what has not been published of it goes to the sum of its like.
    pub(super) fn count_out(&self, name: &Arc<str>) {
        if let Some(page) = self.cores.get(name) {
            let sum = page.pattern().unwrap_or(OTHERS);
            page.core.home().outlet.meter.leave(name, sum, page.new_calls());
        }
    }
}

impl Page {
    fn pattern(&self) -> Option<&'static str> {
        self.guest.then(|| self.pattern.get().copied().unwrap_or(OTHERS))
    }

    fn new_calls(&self) -> Calls {
        let now = calls(self.core.outcomes());
        let mut published = lock(&self.published);
        let new = std::array::from_fn(|at| now[at].saturating_sub(published[at]));
        *published = now;
        new
    }
}
