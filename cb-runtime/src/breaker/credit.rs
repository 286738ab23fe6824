//! Failures that certainly do not trip the circuit, counted without the breaker's lock.
//!
//! Where a closed breaker is judged only by rates over a time window, most failures change nothing but a
//! count. Under the lock, the machine computes its *headroom*: how many more failures certainly do not trip,
//! and until when. The thread whose failure was judged gets half of what is left as its *credit*. Its next
//! failures are counted on credit, in a cache line of its own, and are absorbed when the lock is taken next.
//!
//! Invariant: **the sum of all threads' credit is at most the number of failures that can still come before
//! a rule can trip.** So the failure that trips is never on credit: it is judged, and the circuit is open
//! before its call returns. The invariant holds because
//!
//! - the headroom assumes that no success comes any more, and further successes only lower the rates;
//! - a slow call takes the lock, and so takes all credit back;
//! - successes that leave the window raise the rates, so credit ends before the first bucket of the window
//!   expires. It also ends with the bucket in which it was granted, so that its failures belong to that
//!   bucket, as if each had been judged; and with a change of the skew, by which the fleet's buckets expire;
//! - a failure that is judged meanwhile takes a part of the headroom that is nobody's credit
//!   ([`Granted::has_room`]). If there is none, it takes all credit back before it is judged;
//! - everything else that takes the lock may change the counts, the rules or the state, and takes all credit
//!   back. A thread spends credit with a compare-and-swap, which fails after that.
//!
//! A failure on credit does not wake the coordinator. The judged one before it has, and the coordinator's
//! review takes all credit back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::context::RegistryContext;
use super::counters::{ShardedCounter, thread_number};
use super::machine::stats::Unjudged;
use super::machine::{Headroom, Now};
use crate::clock::Moment;

/// A smaller credit is not worth the work.
const LEAST: u64 = 32;
/// The largest credit.
const MOST: u64 = 1 << 20;

/// The part of the headroom that the judged failure's thread gets.
fn share(left: u64) -> u64 {
    #[cfg(test)]
    if TAKES_ALL.get() {
        return left.min(MOST);
    }
    Some(left / 2).filter(|half| *half >= LEAST).map_or(0, |half| half.min(MOST))
}

#[cfg(test)]
thread_local!(
    /// This thread gets all of the headroom: a headroom that is too large by one trips too late.
    pub(super) static TAKES_ALL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) }
);

/// The credit of all threads.
#[derive(Default)]
pub(super) struct FailureCredit {
    /// One line per thread number, from the first credit on. Most breakers never need them.
    lines: OnceLock<Box<[CachePadded<CreditLine>]>>,
}

/// A thread's credit. Only the thread itself spends it and is granted more; the holder of the breaker's lock
/// may take it back.
#[derive(Default)]
struct CreditLine {
    /// Bits 0–31 the credit, bits 32–63 the number of failures on credit so far. In one word, so that taking
    /// the credit back shows exactly the failures that were counted on it.
    word: AtomicU64,
    /// Until when the credit is valid, and when the latest failure was, by the coarse clock.
    until: AtomicU64,
    latest: AtomicU64,
    /// The skew with which `until` was computed.
    skew: AtomicU64,
    /// The thread's successes before the latest failure, and the number of failures after those.
    successes: AtomicU64,
    streak: AtomicU64,
    /// The failures on credit, and the thread's successes, that the machine has absorbed. Used under the
    /// lock.
    absorbed: AtomicU64,
    absorbed_successes: AtomicU64,
}

// One cache line.
const _: () = assert!(size_of::<CreditLine>() == 64);

const CREDIT: u64 = (1 << 32) - 1;
/// One more failure, and one less credit.
const SPENT: u64 = CREDIT;

/// What the holder of the lock knows about the credit.
#[derive(Debug)]
pub(super) struct Granted {
    /// A failure may be judged without taking credit back: a part of the headroom is nobody's credit.
    has_room: bool,
    /// Until when all of the credit is valid.
    until: Moment,
    /// The skew with which `until` was computed.
    skew: u64,
    /// The credit of threads other than this one, at the latest absorption.
    of_others: u64,
}

impl Default for Granted {
    fn default() -> Self {
        Granted { has_room: false, until: Moment(u64::MAX), skew: 0, of_others: 0 }
    }
}

impl FailureCredit {
    /// Counts a failure of this thread, if the thread has credit.
    #[inline]
    pub(super) fn spend(&self, counters: &ShardedCounter, context: &RegistryContext) -> bool {
        let number = thread_number();
        let Some(line) = self.lines.get().and_then(|lines| lines.get(number)) else { return false };
        let word = line.word.load(Ordering::Relaxed);
        if word & CREDIT == 0 || line.skew.load(Ordering::Relaxed) != context.skew() {
            return false;
        }
        let now = context.clock.coarse();
        if now >= line.until.load(Ordering::Relaxed) {
            return false;
        }
        let successes = counters.successes_of(number);
        let is_next = line.successes.load(Ordering::Relaxed) == successes;
        let streak = if is_next { line.streak.load(Ordering::Relaxed) + 1 } else { 1 };
        line.successes.store(successes, Ordering::Relaxed);
        line.streak.store(streak, Ordering::Relaxed);
        line.latest.store(now, Ordering::Relaxed);
        // Release: what is written above belongs to this failure. It fails if the credit has been taken back.
        line.word
            .compare_exchange(word, word.wrapping_add(SPENT), Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Collects the failures on credit. Takes all credit back, unless this is for a `failure` that the
    /// headroom has room for, beside the credit. The caller holds the breaker's lock, and has drained the
    /// counters before.
    pub(super) fn collect(
        &self,
        granted: &mut Granted,
        failure: bool,
        counters: &ShardedCounter,
        context: &RegistryContext,
        now: Now,
    ) -> Unjudged {
        let mut unjudged = Unjudged::default();
        let Some(lines) = self.lines.get() else { return unjudged };
        let keeps = failure && granted.has_room && now.at < granted.until && now.skew == granted.skew;
        if keeps {
            granted.of_others = 0;
        } else {
            *granted = Granted::default();
        }
        let own = thread_number();
        for (number, line) in lines.iter().enumerate() {
            let word = if keeps {
                line.word.load(Ordering::Acquire)
            } else {
                line.word.fetch_and(!CREDIT, Ordering::Acquire) & !CREDIT
            };
            if number != own {
                granted.of_others += word & CREDIT;
            }
            let failures = (word >> 32).wrapping_sub(line.absorbed.load(Ordering::Relaxed)) & CREDIT;
            if failures > 0 {
                line.absorbed.store(word >> 32, Ordering::Relaxed);
                let absorbed = line.absorbed_successes.load(Ordering::Relaxed);
                unjudged.failures += failures;
                unjudged.streak += line.streak.load(Ordering::Relaxed).min(failures);
                // The thread goes on meanwhile, so these may be those of a later failure.
                unjudged.successes += line.successes.load(Ordering::Relaxed).saturating_sub(absorbed);
                let latest = context.clock.of_coarse(line.latest.load(Ordering::Relaxed));
                unjudged.latest = unjudged.latest.max(latest.min(now.at));
            }
            line.absorbed_successes.store(counters.successes_of(number), Ordering::Relaxed);
        }
        unjudged
    }

    /// Gives this thread half of the headroom that is left. The caller holds the breaker's lock, and has
    /// judged a failure.
    pub(super) fn grant(
        &self,
        granted: &mut Granted,
        headroom: Headroom,
        counters: &ShardedCounter,
        context: &RegistryContext,
        now: Now,
    ) {
        let left = headroom.failures.saturating_sub(granted.of_others);
        let (number, credit) = (thread_number(), share(left));
        granted.has_room = left > 0;
        granted.until = granted.until.min(headroom.until);
        granted.skew = now.skew;
        if number >= counters.threads() {
            return;
        }
        let lines = match self.lines.get() {
            Some(lines) => lines,
            None if credit == 0 => return,
            None => self.lines.get_or_init(|| CreditLine::of_threads(counters)),
        };
        let line = &lines[number];
        line.until.store(context.clock.coarse_before(headroom.until), Ordering::Relaxed);
        line.skew.store(now.skew, Ordering::Relaxed);
        line.successes.store(counters.successes_of(number), Ordering::Relaxed);
        line.streak.store(0, Ordering::Relaxed);
        // No other thread writes to it meanwhile.
        line.word.store(line.word.load(Ordering::Relaxed) & !CREDIT | credit, Ordering::Release);
        granted.has_room = left > credit;
    }

    /// The number of failures on credit so far.
    #[cfg(test)]
    pub(super) fn spent(&self) -> u64 {
        let lines = self.lines.get().into_iter().flatten();
        lines.map(|line| line.word.load(Ordering::Relaxed) >> 32).sum()
    }

    /// Takes all credit back. The failures on it are collected by the next [`collect`](Self::collect).
    pub(super) fn take_back(&self, granted: &mut Granted) {
        if let Some(lines) = self.lines.get() {
            *granted = Granted::default();
            for line in lines {
                line.word.fetch_and(!CREDIT, Ordering::Relaxed);
            }
        }
    }
}

impl CreditLine {
    fn of_threads(counters: &ShardedCounter) -> Box<[CachePadded<CreditLine>]> {
        let line = |number| {
            let absorbed_successes = AtomicU64::new(counters.successes_of(number));
            CachePadded::new(CreditLine { absorbed_successes, ..CreditLine::default() })
        };
        (0..counters.threads()).map(line).collect()
    }
}
