//! Notices: breakers of which all instances are to report without delay.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::MAX_NOTICES;

/// How many are kept for instances that are slow to read them.
const KEPT: usize = 100;

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Notices {
    latest: u64,
    kept: VecDeque<(u64, Arc<str>)>,
    /// A second of the store's time, and the notices in it.
    given: (u64, u64),
}

impl Notices {
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Returns whether it was given: there may have been too many in this second.
    pub(super) fn give(&mut self, name: &Arc<str>, now: u64) -> bool {
        let second = now / 1_000_000;
        if self.given.0 != second {
            self.given = (second, 0);
        }
        if self.given.1 == MAX_NOTICES {
            return false;
        }
        self.given.1 += 1;
        self.latest += 1;
        self.kept.push_back((self.latest, name.clone()));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        true
    }

    /// Those after this one, and the number of the latest.
    pub(super) fn after(&self, number: u64) -> (Vec<Arc<str>>, u64) {
        let later = self.kept.iter().filter(|(at, _)| *at > number);
        (later.map(|(_, name)| name.clone()).collect(), self.latest)
    }
}
