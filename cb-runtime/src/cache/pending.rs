//! What waits to be written to the store: bounded, and of each result only the latest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::envelope::Envelope;
use super::key::Identity;
use crate::clock::Moment;

/// The most writes that wait.
pub(super) const MAX_WRITES: usize = 1024;
/// The most bytes that they may hold. The local tier holds the same bytes, so as a rule nothing is held twice.
pub(super) const MAX_BYTES: usize = super::local::MAX_BYTES;

/// A result on its way to the store.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) breaker: Arc<str>,
    pub(super) envelope: Envelope,
    /// When the function returned it. What it waits here is taken off its ttl.
    pub(super) made: Moment,
}

impl Write {
    /// For how long the store is to keep it; zero if it is too late.
    pub(super) fn remaining(&self, now: Moment) -> Duration {
        self.envelope.ttl().saturating_sub(now.since(self.made))
    }
}

#[derive(Default)]
pub(super) struct Pending {
    writes: HashMap<Identity, Write>,
    order: VecDeque<Identity>,
    bytes: usize,
    /// Someone is writing, or about to look here.
    drained: bool,
}

/// What became of a write that was to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits, and nobody is looking after the queue: the caller has to see to that.
    First,
    Waits,
    /// There is no room.
    Dropped,
}

impl Pending {
    pub(super) fn push(&mut self, identity: Identity, write: Write) -> Pushed {
        let old = self.writes.get(&identity).map(|old| old.envelope.len());
        let bytes = self.bytes - old.unwrap_or(0) + write.envelope.len();
        if bytes > MAX_BYTES || (old.is_none() && self.writes.len() >= MAX_WRITES) {
            return Pushed::Dropped;
        }
        self.bytes = bytes;
        if self.writes.insert(identity, write).is_none() {
            self.order.push_back(identity);
        }
        if std::mem::replace(&mut self.drained, true) { Pushed::Waits } else { Pushed::First }
    }

    /// The writes that have waited longest. `None`: there are none, and who asked stops looking after the queue.
    pub(super) fn take(&mut self, (most, most_bytes): (usize, usize)) -> Option<Vec<(Identity, Write)>> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < most
            && bytes < most_bytes
            && let Some(identity) = self.order.pop_front()
        {
            if let Some(write) = self.writes.remove(&identity) {
                self.bytes -= write.envelope.len();
                bytes += write.envelope.len();
                taken.push((identity, write));
            }
        }
        self.drained = !taken.is_empty();
        self.drained.then_some(taken)
    }

    /// Lets go of what is too late anyway. `false`: nothing is left, and who asked stops looking after the queue.
    pub(super) fn purge(&mut self, now: Moment) -> bool {
        self.writes.retain(|_, write| !write.remaining(now).is_zero());
        self.order.retain(|identity| self.writes.contains_key(identity));
        self.bytes = self.writes.values().map(|write| write.envelope.len()).sum();
        self.drained = !self.writes.is_empty();
        self.drained
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Nobody looks after the queue any more; the next push starts someone.
    pub(super) fn abandon(&mut self) {
        self.drained = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::KeyHasher;
    use super::*;

    const ALL: (usize, usize) = (usize::MAX, usize::MAX);

    fn identity(number: usize) -> Identity {
        let mut key = KeyHasher::new("f", "");
        key.arg(&number);
        Identity::new("b", &key.finish().unwrap())
    }

    fn write(text: &str) -> Write {
        let envelope = Envelope::seal(text, Duration::from_secs(10)).unwrap();
        Write { breaker: "b".into(), envelope, made: Moment(0) }
    }

    #[test]
    fn of_each_result_the_latest_waits_in_the_place_of_the_first() {
        let mut pending = Pending::default();
        assert_eq!(pending.push(identity(1), write("old")), Pushed::First);
        assert_eq!(pending.push(identity(2), write("other")), Pushed::Waits);
        assert_eq!(pending.push(identity(1), write("new")), Pushed::Waits);
        let taken = pending.take(ALL).unwrap();
        let texts: Vec<String> = taken.iter().map(|(_, write)| write.envelope.value().unwrap()).collect();
        assert_eq!(texts, ["new", "other"]);
        assert!(pending.take(ALL).is_none());
        assert_eq!(pending.push(identity(1), write("again")), Pushed::First);
    }

    #[test]
    fn when_full_new_ones_are_dropped_and_known_ones_still_updated() {
        let mut pending = Pending::default();
        for number in 0..MAX_WRITES {
            assert_ne!(pending.push(identity(number), write("x")), Pushed::Dropped);
        }
        assert_eq!(pending.push(identity(MAX_WRITES), write("x")), Pushed::Dropped);
        assert_eq!(pending.push(identity(0), write("y")), Pushed::Waits);
        assert_eq!(pending.take((1, usize::MAX)).unwrap()[0].1.envelope.value::<String>().unwrap(), "y");
        assert_eq!(pending.push(identity(MAX_WRITES), write("x")), Pushed::Waits);
    }

    #[test]
    fn the_bytes_are_bounded_too() {
        let mut pending = Pending::default();
        let half = "x".repeat(MAX_BYTES / 2);
        assert_eq!(pending.push(identity(1), write(&half)), Pushed::First);
        assert_eq!(pending.push(identity(2), write(&half)), Pushed::Dropped);
        assert_eq!(pending.push(identity(1), write("small")), Pushed::Waits);
        assert_eq!(pending.push(identity(2), write(&half)), Pushed::Waits);
        pending.take((9, 1)).unwrap();
        assert_eq!(pending.writes.len(), 1, "a batch is bounded by bytes, too");
        pending.take(ALL).unwrap();
        assert_eq!(pending.bytes, 0);
    }

    #[test]
    fn what_is_too_late_makes_room() {
        let mut pending = Pending::default();
        pending.push(identity(1), write("x"));
        pending.push(identity(2), Write { made: Moment(5_000_000), ..write("y") });
        assert!(pending.purge(Moment(10_000_000)));
        assert_eq!((pending.writes.len(), pending.order.len()), (1, 1));
        assert!(!pending.purge(Moment(15_000_000)));
        assert_eq!(pending.bytes, 0);
        assert_eq!(pending.push(identity(1), write("x")), Pushed::First);
    }

    #[test]
    fn waiting_is_taken_off_the_ttl() {
        let write = write("x");
        assert_eq!(write.remaining(Moment(4_000_000)), Duration::from_secs(6));
        assert_eq!(write.remaining(Moment(11_000_000)), Duration::ZERO);
    }
}
