//! Counters without contention: each thread has cache lines of its own per breaker.
//!
//! Successes carry no time, because reading a clock would cost more than the rest of a call. Only the first
//! success that a thread counts after a drain notes its time. The time of a single success is therefore
//! exact, and of several, a lower bound of the latest one's time is known. Where no rule looks at failures in
//! a row, which a success ends, a coarse clock's time serves as the lower bound: each judged failure drains.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crossbeam_utils::CachePadded;

use super::machine::stats::Successes;
use crate::clock::{Clock, Moment};
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
    RampRejected,
    SlowSuccess,
    SlowFailure,
    /// A failed or rejected call that a cached result has answered; counted in addition to its outcome.
    Cached,
    /// As [`Rejected`](Self::Rejected) and [`RampRejected`](Self::RampRejected), where the function's
    /// fallback answers: so a rejection takes one addition.
    RejectedToFallback,
    RampRejectedToFallback,
    /// A failed or rejected call that a fallback has been called for; counted in addition to its outcome.
    Fallback,
}

const OUTCOMES: usize = 13;

// Two cache lines.
const _: () = assert!(size_of::<Line>() == 128);

/// The whole of which [`ShardedCounter::add_share`] adds parts.
pub(crate) const ONE: u64 = 1 << 32;
/// The golden ratio of [`ONE`]: its multiples lie far apart.
const PHASE: u64 = 0x9E37_79B9;

pub(crate) struct ShardedCounter {
    /// One line per thread number.
    lines: Box<[CachePadded<Line>]>,
    /// For all threads without a number.
    shared: Box<CachePadded<Line>>,
    /// Grows by one with every drain that has found a noted time. Read by all threads, rarely written.
    span: AtomicU64,
    /// Notes of times are exact.
    notes_exactly: AtomicBool,
}

/// A thread's two cache lines. A success touches only the first, as does a rejection.
#[derive(Default)]
#[repr(C)]
struct Line {
    /// The span in which a time was noted last, and that time.
    noted_in: AtomicU64,
    noted: AtomicU64,
    counts: [AtomicU64; OUTCOMES],
    /// See [`ShardedCounter::add_share`].
    shares: AtomicU64,
}

impl Line {
    /// For the line's own thread: no other thread writes to it, so it takes no atomic addition.
    #[inline]
    fn add(&self, outcome: Outcome) {
        let count = &self.counts[outcome as usize];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Notes the time before the success is counted, so that the time is a lower bound for later successes.
    #[cold]
    fn note(&self, span: u64, now: Moment) {
        self.noted.store(now.0, Ordering::Relaxed);
        self.noted_in.store(span, Ordering::Release);
    }
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

/// Stands for a thread that has no number.
const NONE: usize = usize::MAX;
/// Stands for a thread for which no number was left.
const SHARED: usize = usize::MAX - 1;

thread_local!(static NUMBER: Cell<usize> = const { Cell::new(NONE) });

/// The free numbers, highest first.
static FREE: OnceLock<Mutex<Vec<usize>>> = OnceLock::new();

/// Returns the thread's number when the thread ends. The lock makes its counts visible to the next owner.
struct Owner(usize);

impl Drop for Owner {
    fn drop(&mut self) {
        // Destructors that run later count in the shared line.
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

/// This thread's number; beyond all lines if it has none.
#[inline]
pub(super) fn thread_number() -> usize {
    NUMBER.get()
}

impl ShardedCounter {
    pub(crate) fn new(notes_exactly: bool) -> Self {
        // Phases apart, so that threads do not admit their first call after a recovery at the same time.
        let line = |number| Line {
            shares: AtomicU64::new(PHASE.wrapping_mul(number) & (ONE - 1)),
            ..Line::default()
        };
        let threads = numbered_threads() as u64;
        ShardedCounter {
            lines: (0..threads).map(|number| CachePadded::new(line(number))).collect(),
            shared: Box::new(CachePadded::new(line(threads))),
            // Differs from the initial span of the lines.
            span: AtomicU64::new(1),
            notes_exactly: AtomicBool::new(notes_exactly),
        }
    }

    /// From now on, whether a rule needs the exact time of a success.
    pub(crate) fn note_exactly(&self, exactly: bool) {
        self.notes_exactly.store(exactly, Ordering::Relaxed);
    }

    /// Counts a success that has just ended. `false`: it is not counted, because it is the first that the
    /// thread counts after a drain; it is a [`first_success`](Self::first_success).
    #[inline]
    pub(crate) fn later_success(&self) -> bool {
        match self.lines.get(NUMBER.get()) {
            Some(line) if line.noted_in.load(Ordering::Relaxed) == self.span.load(Ordering::Relaxed) => {
                line.add(Outcome::Success);
                true
            }
            _ => false,
        }
    }

    /// Counts the first success of a thread after a drain, or any of a thread without a number. `first` is
    /// called if it is the first.
    #[cold]
    #[inline(never)]
    pub(crate) fn first_success(&self, clock: &Clock, first: impl FnOnce()) {
        let number = NUMBER.get();
        let line = match self.lines.get(number) {
            Some(line) => line,
            None if number == NONE && take_number() != SHARED => {
                if !self.later_success() {
                    self.first_success(clock, first);
                }
                return;
            }
            // Several threads may note a time here: any of them is one at which a success had ended.
            None => &self.shared,
        };
        let span = self.span.load(Ordering::Relaxed);
        let noted = line.noted_in.load(Ordering::Relaxed) != span;
        if noted {
            let exactly = self.notes_exactly.load(Ordering::Relaxed);
            line.note(span, if exactly { clock.now() } else { clock.coarse_before_now() });
        }
        self.add(Outcome::Success);
        // After it has been counted: a drain that this call leads to finds it.
        if noted {
            first();
        }
    }

    /// Returns all successes so far, and starts a new span. One caller at a time.
    pub(crate) fn drain(&self) -> Successes {
        let span = self.span.load(Ordering::Relaxed);
        let (mut count, mut latest) = (0, None);
        for line in self.all() {
            // The time first: it is noted before the success is counted.
            if line.noted_in.load(Ordering::Acquire) == span {
                latest = latest.max(Some(Moment(line.noted.load(Ordering::Relaxed))));
            }
            count += line.counts[Outcome::Success as usize].load(Ordering::Relaxed);
        }
        if latest.is_some() {
            self.span.store(span + 1, Ordering::Relaxed);
        }
        Successes { count, latest }
    }

    /// Counts an outcome.
    #[inline]
    pub(crate) fn add(&self, outcome: Outcome) {
        let number = NUMBER.get();
        match self.lines.get(number) {
            Some(line) => line.add(outcome),
            None => self.add_without_number(number, outcome),
        }
    }

    #[cold]
    fn add_without_number(&self, number: usize, outcome: Outcome) {
        if number == NONE && take_number() != SHARED {
            return self.add(outcome);
        }
        self.shared.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a part of [`ONE`] to this thread's sum. Returns whether the sum has passed a whole number.
    #[inline]
    pub(crate) fn add_share(&self, share: u64) -> bool {
        let number = NUMBER.get();
        let before = match self.lines.get(number) {
            Some(line) => {
                let before = line.shares.load(Ordering::Relaxed);
                line.shares.store(before.wrapping_add(share), Ordering::Relaxed);
                before
            }
            None => self.shared.shares.fetch_add(share, Ordering::Relaxed),
        };
        before / ONE != before.wrapping_add(share) / ONE
    }

    /// The number of threads with a line of their own.
    pub(super) fn threads(&self) -> usize {
        self.lines.len()
    }

    /// The successes in the line of this number, which exists.
    #[inline]
    pub(super) fn successes_of(&self, number: usize) -> u64 {
        self.lines[number].counts[Outcome::Success as usize].load(Ordering::Relaxed)
    }

    fn all(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().chain([&*self.shared]).map(|line| &**line)
    }

    /// The sum over all threads; not a snapshot, because calls continue meanwhile.
    pub(crate) fn sum(&self, outcome: Outcome) -> u64 {
        self.all().map(|line| line.counts[outcome as usize].load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        Outcomes {
            success: self.sum(Outcome::Success) + self.sum(Outcome::SlowSuccess),
            failure: self.sum(Outcome::Failure) + self.sum(Outcome::SlowFailure),
            slow: self.sum(Outcome::SlowSuccess) + self.sum(Outcome::SlowFailure),
            ignored: self.sum(Outcome::Ignored),
            cancelled: self.sum(Outcome::Cancelled),
            late: self.sum(Outcome::Late),
            rejected: self.sum(Outcome::Rejected) + self.sum(Outcome::RejectedToFallback),
            ramp_rejected: self.sum(Outcome::RampRejected) + self.sum(Outcome::RampRejectedToFallback),
            cached: self.sum(Outcome::Cached),
            fallback: self.sum(Outcome::RejectedToFallback)
                + self.sum(Outcome::RampRejectedToFallback)
                + self.sum(Outcome::Fallback),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succeed(counters: &ShardedCounter, clock: &Clock) {
        if !counters.later_success() {
            counters.first_success(clock, || ());
        }
    }

    #[test]
    fn nothing_is_lost_between_threads_that_come_and_go() {
        let counters = ShardedCounter::new(true);
        // More threads than numbers, several times: numbers are shared, returned and reused.
        let crowd = 2 * numbered_threads() + 3;
        for _ in 0..20 {
            std::thread::scope(|scope| {
                for _ in 0..crowd {
                    scope.spawn(|| (0..500).for_each(|_| counters.add(Outcome::Success)));
                }
            });
        }
        assert_eq!(counters.sum(Outcome::Success), 20 * 500 * crowd as u64);
        assert_eq!(counters.outcomes().failure, 0);
    }

    #[test]
    fn first_success_after_a_drain_notes_its_time() {
        let (clock, hands) = Clock::manual();
        let counters = ShardedCounter::new(true);
        let begin = clock.now();
        let pass = |seconds| hands.advance(std::time::Duration::from_secs(seconds));
        let at = |seconds| Some(begin.after(std::time::Duration::from_secs(seconds)));

        assert_eq!(counters.drain(), Successes { count: 0, latest: None });
        pass(1);
        succeed(&counters, &clock);
        pass(1);
        succeed(&counters, &clock);
        assert_eq!(counters.drain(), Successes { count: 2, latest: at(1) });
        assert_eq!(counters.drain(), Successes { count: 2, latest: None });
        pass(1);
        succeed(&counters, &clock);
        pass(1);
        std::thread::scope(|scope| scope.spawn(|| succeed(&counters, &clock)).join()).unwrap();
        assert_eq!(counters.drain(), Successes { count: 4, latest: at(4) });
    }
}
