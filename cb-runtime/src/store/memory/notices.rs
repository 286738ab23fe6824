//! Notices: breakers of which all instances are to report without delay.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::micros;
use crate::store::NOTICE_PAUSE;

/// How many are kept for instances that are slow to read them.
const KEPT: usize = 100;

#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Notices {
    latest: u64,
    kept: VecDeque<(u64, Arc<str>)>,
    /// When the latest was given, by the store's time.
    given_at: u64,
    /// Breakers that the next one will name.
    waiting: Vec<Arc<str>>,
}

impl Notices {
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Adds a breaker to the next notice. Returns when that will be given.
    pub(super) fn request(&mut self, name: &Arc<str>, now: u64) -> u64 {
        self.waiting.push(name.clone());
        self.due_at(now)
    }

    fn due_at(&self, now: u64) -> u64 {
        let is_past = self.given_at > 0 && self.given_at <= now;
        if is_past { now.max(self.given_at + micros(NOTICE_PAUSE)) } else { now }
    }

    /// Gives the next notice, if it is due.
    pub(super) fn give(&mut self, now: u64) {
        if self.waiting.is_empty() || self.due_at(now) > now {
            return;
        }
        self.given_at = now;
        self.latest += 1;
        for name in self.waiting.drain(..) {
            self.kept.push_back((self.latest, name));
        }
        while self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// Forgets what is not in the stream. Numbers grow on.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        *self = Notices { latest: self.latest, ..Notices::default() };
    }

    /// Those after this one, and the number of the latest.
    pub(super) fn after(&self, number: u64) -> (Vec<Arc<str>>, u64) {
        let later = self.kept.iter().filter(|(at, _)| *at > number);
        (later.map(|(_, name)| name.clone()).collect(), self.latest)
    }
}
