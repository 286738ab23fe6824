//! Counters that calls add to without meeting each other: one cache line per shard, a shard per thread
//! as far as they go round.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use crate::snapshot::Outcomes;

/// An outcome, as the index of its counter in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    Ignored,
    Cancelled,
    Late,
    Rejected,
}

const OUTCOMES: usize = 6;

pub(crate) struct Tally {
    shards: Box<[CachePadded<[AtomicU64; OUTCOMES]>]>,
}

/// Shards per breaker: a power of two, at least twice the cores, so that the threads of one runtime rarely share
/// one; at most 32, so that a breaker stays below 10 KB.
fn shard_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        (cores * 2).next_power_of_two().clamp(4, 32)
    })
}

/// This thread's number, given out round robin at its first call.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    NUMBER.with(|number| match number.get() {
        usize::MAX => {
            let new = NEXT.fetch_add(1, Ordering::Relaxed) & 0xffff;
            number.set(new);
            new
        }
        known => known,
    })
}

impl Tally {
    pub(crate) fn new() -> Self {
        Tally { shards: (0..shard_count()).map(|_| CachePadded::default()).collect() }
    }

    #[inline]
    pub(crate) fn add(&self, outcome: Outcome) {
        let shard = &self.shards[thread_number() & (self.shards.len() - 1)];
        shard[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The sum over all threads. Not a snapshot: calls go on while it is taken.
    pub(crate) fn sum(&self, outcome: Outcome) -> u64 {
        self.shards.iter().map(|shard| shard[outcome as usize].load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        Outcomes {
            success: self.sum(Outcome::Success),
            failure: self.sum(Outcome::Failure),
            ignored: self.sum(Outcome::Ignored),
            cancelled: self.sum(Outcome::Cancelled),
            late: self.sum(Outcome::Late),
            rejected: self.sum(Outcome::Rejected),
        }
    }
}
