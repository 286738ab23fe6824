//! What can happen to a store's data, for simulations.

use super::{MemoryStore, Space, new_incarnation};
use crate::snapshot::State;

/// All data of a moment, as an old backup has it.
pub(crate) struct Backup(Space);

impl MemoryStore {
    /// Loses everything, as a Redis does at FLUSHALL.
    pub(crate) fn forget_everything(&self) {
        let mut space = self.lock();
        space.incarnation = new_incarnation();
        space.number = 0;
        space.events.clear();
        space.breakers.clear();
        space.sequences.clear();
        space.notices.forget();
    }

    /// Loses the events, as a Redis does whose stream is trimmed.
    pub(crate) fn forget_events(&self) {
        self.lock().events.clear();
    }

    /// Loses one breaker, as a Redis does whose key is deleted.
    pub(crate) fn forget(&self, breaker: &str) {
        self.lock().breakers.remove(breaker);
    }

    /// The state that it holds this breaker in, and its epoch. An override that has expired is closed, though
    /// no instance has said so yet.
    pub(crate) fn state_of(&self, breaker: &str) -> (State, u64) {
        let space = self.lock();
        let record = space.breakers.get(breaker).map(|breaker| breaker.record(self.clock.now().0));
        record.map_or((State::Closed, 0), |record| {
            (if record.has_expired() { State::Closed } else { record.state }, record.epoch)
        })
    }

    /// The part of the latest event's id that grows whatever happens to the data.
    pub(crate) fn latest_serial(&self) -> u64 {
        self.lock().serial
    }

    /// The stream's length, and each breaker's state and epoch.
    pub(crate) fn positions(&self) -> String {
        let space = self.lock();
        let now = self.clock.now().0;
        let shown = |(name, breaker): (&std::sync::Arc<str>, &super::breaker::StoredBreaker)| {
            let record = breaker.record(now);
            format!("{name} {} {}", record.state, record.epoch)
        };
        let breakers: Vec<_> = space.breakers.iter().map(shown).collect();
        format!("{} {} [{}]", space.incarnation, space.number, breakers.join(", "))
    }

    pub(crate) fn back_up(&self) -> Backup {
        Backup(self.lock().clone())
    }

    /// Starts again from old data. Ids of events are made of the time, so none is given twice.
    pub(crate) fn restore(&self, backup: &Backup) {
        let mut space = self.lock();
        let serial = space.serial;
        *space = Space { serial, ..backup.0.clone() };
    }
}
