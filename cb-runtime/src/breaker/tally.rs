//! Counters that calls add to without meeting each other: a cache line per thread and breaker.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crossbeam_utils::CachePadded;

use crate::snapshot::Outcomes;
use crate::sync::lock;

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
    /// One line per thread number, and the last one for all threads without a number.
    lines: Box<[CachePadded<[AtomicU64; OUTCOMES]>]>,
}

/// Threads with a line of their own: at least twice the cores, so that the workers of a runtime and some
/// more have one; at most 32, so that a breaker stays below 10 KB.
fn numbered_threads() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        (cores * 2).clamp(4, 32)
    })
}

/// A thread's number while it has none (yet, or any more).
const NONE: usize = usize::MAX;
/// A thread's number when there was none left for it.
const SHARED: usize = usize::MAX - 1;

thread_local!(static NUMBER: Cell<usize> = const { Cell::new(NONE) });

/// Numbers that no living thread has; the highest first.
static FREE: OnceLock<Mutex<Vec<usize>>> = OnceLock::new();

/// Gives the thread's number back when the thread ends. The lock makes the next owner see all that was counted.
struct Owner(usize);

impl Drop for Owner {
    fn drop(&mut self) {
        // What this thread may still count, in destructors that run later, goes to the shared line.
        NUMBER.set(SHARED);
        if let Some(free) = FREE.get() {
            lock(free).push(self.0);
        }
    }
}

/// This thread's first count.
#[cold]
fn take_number() -> usize {
    thread_local!(static OWNER: Cell<Option<Owner>> = const { Cell::new(None) });
    let free = FREE.get_or_init(|| Mutex::new((0..numbered_threads()).rev().collect()));
    NUMBER.set(SHARED);
    // A thread that is ending already has nobody to give a number back, and gets none.
    let _ = OWNER.try_with(|owner| {
        if let Some(number) = lock(free).pop() {
            owner.set(Some(Owner(number)));
            NUMBER.set(number);
        }
    });
    NUMBER.get()
}

impl Tally {
    pub(crate) fn new() -> Self {
        Tally { lines: (0..=numbered_threads()).map(|_| CachePadded::default()).collect() }
    }

    /// One more. A thread that has its line to itself needs no atomic addition: nobody else writes there.
    #[inline]
    pub(crate) fn add(&self, outcome: Outcome) {
        let number = NUMBER.get();
        match self.lines[..self.lines.len() - 1].get(number) {
            Some(line) => {
                let count = &line[outcome as usize];
                count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            None => self.add_without_number(number, outcome),
        }
    }

    #[cold]
    fn add_without_number(&self, number: usize, outcome: Outcome) {
        if number == NONE && take_number() != SHARED {
            return self.add(outcome);
        }
        let shared = self.lines.last().expect("there is always the shared line");
        shared[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The sum over all threads. Not a snapshot: calls go on while it is taken.
    pub(crate) fn sum(&self, outcome: Outcome) -> u64 {
        self.lines.iter().map(|line| line[outcome as usize].load(Ordering::Relaxed)).sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads_that_come_and_go() {
        let tally = Tally::new();
        // More at once than there are numbers, and again and again: numbers are shared, given back and taken over.
        let crowd = 2 * numbered_threads() + 3;
        for _ in 0..20 {
            std::thread::scope(|scope| {
                for _ in 0..crowd {
                    scope.spawn(|| (0..500).for_each(|_| tally.add(Outcome::Success)));
                }
            });
        }
        assert_eq!(tally.sum(Outcome::Success), 20 * 500 * crowd as u64);
        assert_eq!(tally.outcomes().failure, 0);
    }
}
