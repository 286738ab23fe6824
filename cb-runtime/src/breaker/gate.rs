//! The one word that a call reads: which state calls meet now, and the generation of that state.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::snapshot::State;
use crate::store::LeaseId;

/// A state and its generation, packed: bits 0–2 the state (and what a closed one does besides), the rest a number that grows with every
/// change this instance makes or takes over. It is not the epoch: what an instance does while it is
/// cut off has no epoch, and must still make the outcomes of earlier calls late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GateWord(u64);

/// What a call notes about itself in the word of its permit. No word of the gate has these bits: so a permit
/// that has a note never takes the fast path of recording.
const PANICKED: u64 = 1 << 63;
const SLOW: u64 = 1 << 62;
const NOTES: u64 = PANICKED | SLOW;

/// What stands in the three bits: a state, and for closed what else there is to do. So the fast path of a breaker
/// that does nothing else need not ask.
const PLAIN: u64 = 0;
const MEASURING: u64 = 1;
const RAMPING: u64 = 2;
const OPEN: u64 = 3;
const HALF_OPEN: u64 = 4;
const FORCED_OPEN: u64 = 5;
const DISABLED: u64 = 6;
const METRICS_ONLY: u64 = 7;

/// What a closed circuit does besides admitting calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Plain,
    /// Measures how long they take.
    Measuring,
    /// Admits but a part of them; and may measure, too.
    Ramping,
}

impl GateWord {
    pub(crate) fn state(self) -> State {
        match self.0 & 7 {
            OPEN => State::Open,
            HALF_OPEN => State::HalfOpen,
            FORCED_OPEN => State::ForcedOpen,
            DISABLED => State::Disabled,
            METRICS_ONLY => State::MetricsOnly,
            _ => State::Closed,
        }
    }

    /// Grows with every change of state.
    #[cfg(test)]
    pub(crate) fn generation(self) -> u64 {
        self.0 >> 3
    }

    /// Closed, and nothing else to do: what the fast path serves.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & 7 == PLAIN
    }

    /// The word of a permit for a probe: the lease stands in the place of the generation. The number of a
    /// lease is never used again by its breaker, and a lease is void once its state has ended, so it tells
    /// its generation as well.
    pub(crate) fn of_probe(lease: LeaseId) -> Self {
        GateWord((lease << 3 | HALF_OPEN) & !NOTES)
    }

    /// The lease of a permit for a probe.
    pub(crate) fn lease(self) -> Option<LeaseId> {
        (self.0 & 7 == HALF_OPEN).then_some((self.0 & !NOTES) >> 3)
    }

    /// The call was slow.
    #[cold]
    pub(crate) fn note_slow(&mut self) {
        self.0 |= SLOW;
    }

    pub(crate) fn was_slow(self) -> bool {
        self.0 & SLOW != 0
    }

    /// The guarded code panicked.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_panic(&mut self) {
        self.0 |= PANICKED;
    }

    pub(crate) fn panicked(self) -> bool {
        self.0 & PANICKED != 0
    }

    /// Closed, and all calls are admitted.
    #[inline]
    pub(crate) fn admits_all(self) -> bool {
        self.0 & 6 == 0
    }
}

fn bits(state: State, closed: Closed) -> u64 {
    match (state, closed) {
        (State::Closed, Closed::Plain) => PLAIN,
        (State::Closed, Closed::Measuring) => MEASURING,
        (State::Closed, Closed::Ramping) => RAMPING,
        (State::Open, _) => OPEN,
        (State::HalfOpen, _) => HALF_OPEN,
        (State::ForcedOpen, _) => FORCED_OPEN,
        (State::Disabled, _) => DISABLED,
        (State::MetricsOnly, _) => METRICS_ONLY,
    }
}

pub(crate) struct Gate(AtomicU64);

impl Gate {
    pub(crate) fn new(state: State, closed: Closed) -> Self {
        Gate(AtomicU64::new(bits(state, closed)))
    }

    /// Acquire: who sees a state also sees what was written before it was set.
    #[inline]
    pub(crate) fn word(&self) -> GateWord {
        GateWord(self.0.load(Ordering::Acquire))
    }

    /// Whether `pass` is just what a new call would get.
    #[inline]
    pub(crate) fn is_unchanged(&self, word: GateWord) -> bool {
        self.0.load(Ordering::Relaxed) == word.0
    }

    /// Whether a new call would get a pass of the same generation.
    #[inline]
    pub(crate) fn is_current(&self, word: GateWord) -> bool {
        (self.0.load(Ordering::Relaxed) ^ (word.0 & !NOTES)) >> 3 == 0
    }

    /// What a closed circuit does besides, from now on; if `pass` is current. It is no change of state: the generation goes on.
    pub(crate) fn change(&self, word: GateWord, closed: Closed) {
        let closed = word.0 & !7 | bits(word.state(), closed);
        // If it fails, another state has begun, or somebody else has changed it.
        let _ = self.0.compare_exchange(word.0, closed, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Starts a new generation. Callers hold the breaker's lock, so a load and a store suffice.
    pub(crate) fn set(&self, state: State, closed: Closed) {
        let generation = (self.0.load(Ordering::Relaxed) >> 3).wrapping_add(1);
        self.0.store(generation << 3 | bits(state, closed), Ordering::Release);
    }
}
