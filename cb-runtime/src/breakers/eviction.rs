//! Which keyed breakers are evicted, and when.
//!
//! A keyed breaker may be evicted when no call and no handle refers to it, and when the store has all of its
//! counts: a recreated breaker starts from the fleet's state. Closed breakers go first, the least recently
//! used before others. A breaker that is not closed goes only after it has not been called for [`UNCALLED`],
//! and the map keeps its state.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{BreakerMap, CHUNK, Registered};
use crate::clock::{Moment, micros};

/// A breaker that has not been used for this long is evicted, even if there is room.
const LONG_UNUSED: Duration = Duration::from_secs(600);
/// A breaker that is not closed is evicted at the earliest when it has not been called for this long, less
/// the time between two sweeps: one that goes on rejecting calls would come back at once.
const UNCALLED: Duration = Duration::from_secs(10);
/// The interval in which lapsed states are removed.
const LAPSE_SWEEP: Duration = Duration::from_secs(60);

/// A breaker that might be evicted. The order is that of eviction.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    is_unclosed: bool,
    used_at: u64,
    name: Arc<str>,
}

impl BreakerMap {
    /// Evicts keyed breakers that have not been used for long. If less than an eighth of the places is free,
    /// it evicts further ones, until a quarter is.
    pub(crate) fn sweep(&self, now: Moment) {
        let before = Moment(self.swept_at.swap(now.0, Ordering::Relaxed));
        if now.0 / micros(LAPSE_SWEEP) != before.0 / micros(LAPSE_SWEEP) {
            self.forget_lapsed(now);
        }
        let (mut candidates, mut wanted) = self.candidates(now);
        candidates.sort_unstable();
        for chunk in candidates.chunks(CHUNK) {
            let most = wanted.max(chunk.iter().filter(|candidate| candidate.is_old(now)).count());
            if most > 0 {
                // They are dropped here, after the lock.
                wanted = wanted.saturating_sub(self.evict(chunk, most, now).len());
            }
        }
    }

    /// Breakers that may be evicted, and the number of them that must be.
    fn candidates(&self, now: Moment) -> (Vec<Candidate>, usize) {
        let breakers = self.read();
        if breakers.keyed == 0 {
            return (Vec::new(), 0);
        }
        let spare = (self.places / 8).max(1);
        let free = self.places.saturating_sub(breakers.keyed);
        let over = breakers.keyed.saturating_sub(self.places);
        let wanted = if free < spare { over + 2 * spare - free } else { 0 };
        let candidates = breakers.registered.iter().filter_map(|(name, breaker)| {
            let candidate = breaker.candidate(name, now)?;
            (wanted > 0 || candidate.is_old(now)).then_some(candidate)
        });
        (candidates.collect(), wanted)
    }

    /// Evicts at most `most` of the candidates.
    fn evict(&self, candidates: &[Candidate], most: usize, now: Moment) -> Vec<Registered> {
        let mut breakers = self.write();
        let mut evicted = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            if evicted.len() == most {
                break;
            }
            let Some(breaker) = breakers.registered.get(&candidate.name) else { continue };
            let is_candidate = || breaker.candidate(&candidate.name, now).as_ref() == Some(candidate);
            if !is_candidate() {
                continue;
            }
            breaker.take_all_back();
            // If only the map refers to it now, nothing else can while the map is locked, and what is synced
            // stays so.
            if !is_candidate() {
                continue;
            }
            let Some(record) = breaker.core.synced_record() else { continue };
            #[cfg(feature = "metrics")]
            breaker.count_out(&candidate.name);
            evicted.extend(breakers.registered.remove(&candidate.name));
            breakers.keyed -= 1;
            breakers.hold(&candidate.name, &record, now);
        }
        evicted
    }
}

impl Candidate {
    fn is_old(&self, now: Moment) -> bool {
        self.used_at.saturating_add(micros(LONG_UNUSED)) <= now.0
    }
}

impl Registered {
    /// As a candidate for eviction, if it is keyed and only the map refers to it.
    fn candidate(&self, name: &Arc<str>, now: Moment) -> Option<Candidate> {
        let (used_at, is_free) = self.last_use();
        let is_unclosed = !self.core.is_closed();
        let is_unused = !is_unclosed || used_at.saturating_add(micros(UNCALLED)) <= now.0;
        (self.keyed && is_free && is_unused).then(|| Candidate { is_unclosed, used_at, name: name.clone() })
    }
}
