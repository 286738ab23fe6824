//! The instances that have reported failures.

use std::sync::Arc;

use crate::store::MAX_FAILING;

/// Instances with the time, or the place, of their latest failure; latest first.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Failing(Vec<(Arc<str>, u64)>);

impl Failing {
    pub(super) fn note(&mut self, instance: &Arc<str>, at: u64) {
        let known = self.0.iter().position(|(other, _)| other == instance);
        let before = known.map_or(0, |known| self.0.remove(known).1);
        let at = at.max(before);
        let later = self.0.iter().take_while(|&&(_, other)| other > at).count();
        self.0.insert(later, (instance.clone(), at));
        self.0.truncate(MAX_FAILING);
    }

    pub(super) fn forget(&mut self, node: &str) {
        self.0.retain(|(other, _)| **other != *node);
    }

    pub(super) fn of_others(&self, instance: &str) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |(other, _)| **other != *instance).map(|&(_, at)| at)
    }
}
