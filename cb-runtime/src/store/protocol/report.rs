//! A report: an instance's counts of quiet breakers.

use std::sync::Arc;

use super::{Counts, Position, WindowRequest};

/// An instance's counts of quiet breakers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) instance: Arc<str>,
    /// Reports and batches share one sequence. A number that the store has seen is a retry, as in
    /// [`Batch`](super::Batch).
    pub(crate) seq: u64,
    /// As in [`Batch`](super::Batch).
    pub(crate) as_of_us: Option<u64>,
    /// At most some hundred, and at most one for a breaker; an entry takes Redis 3 to 5 µs. An empty report
    /// only checks whether the store is the same.
    pub(crate) entries: Vec<Reported>,
}

/// One breaker's part of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reported {
    pub(crate) name: Arc<str>,
    /// The epoch of the closed state in which this was counted.
    pub(crate) epoch: u64,
    pub(crate) counts: Counts,
    /// The age of the latest success, which ends the fleet's streak as in a batch.
    pub(crate) success_age_us: Option<u64>,
    /// The age of the latest failure, for display. Failures that count toward a streak are sent in a batch.
    pub(crate) failure_age_us: Option<u64>,
    /// Whether the instance needs to know that the store holds a streak.
    pub(crate) by_streak: bool,
    /// The instance's window; `since` is not used here.
    pub(crate) window: Option<WindowRequest>,
    /// As in [`Delta`](super::Delta).
    pub(crate) buckets: Vec<(u64, Counts)>,
}

/// The store's answer to a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Acknowledged {
    pub(crate) now_us: u64,
    pub(crate) position: Position,
    /// The entries to exchange: the store has another state or epoch and has dropped the counts, or it holds
    /// a streak that this instance's successes may end.
    pub(crate) exchange: Vec<usize>,
    /// Breakers that should be held in some state other than closed, and whose keys are gone or cannot be
    /// read: an instance that knows them had better exchange them. The store looks at some of them with every
    /// report.
    pub(crate) suspects: Vec<Arc<str>>,
    /// As in [`Answer`](super::Answer).
    pub(crate) warnings: Vec<String>,
}
