//! The word that a call reads: the current state and its generation.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::snapshot::State;
use crate::store::LeaseId;

/// A state and its generation, packed: bits 0–2 the state (and the mode of a closed one), the rest a number
/// that grows with every transition that this instance makes or adopts. It is not the epoch: local states
/// have no epoch, and must still make the outcomes of earlier calls late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GateWord(u64);

/// Flags of a call in the word of its permit. No word of the gate has them, so a permit with a flag never
/// takes the fast path of recording.
const PANICKED: u64 = 1 << 63;
const SLOW: u64 = 1 << 62;
const NOTES: u64 = PANICKED | SLOW;

/// Values of the three bits: a state, and for a closed one its mode, which spares the fast path further
/// checks.
const PLAIN: u64 = 0;
const MEASURING: u64 = 1;
const RAMPING: u64 = 2;
const OPEN: u64 = 3;
const HALF_OPEN: u64 = 4;
const FORCED_OPEN: u64 = 5;
const DISABLED: u64 = 6;
const METRICS_ONLY: u64 = 7;

/// The mode of a closed circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Plain,
    /// Measures the durations of calls.
    Measuring,
    /// Admits a share of the calls, and may measure.
    Ramping,
}

impl GateWord {
    /// The word of a permit without a call. It has both notes, and no generation grows as far.
    pub(crate) const VOID: GateWord = GateWord(u64::MAX);

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

    /// Calls are rejected until some moment.
    #[inline]
    pub(crate) fn is_open_or_half_open(self) -> bool {
        matches!(self.0 & 7, OPEN | HALF_OPEN)
    }

    /// Grows with every change of state.
    #[cfg(test)]
    pub(crate) fn generation(self) -> u64 {
        self.0 >> 3
    }

    /// Closed in plain mode: the fast path.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & 7 == PLAIN
    }

    /// The word of a permit for a probe, with the lease in place of the generation. A breaker never reuses
    /// the number of a lease, and a lease is void once its state has ended, so the lease also identifies
    /// the generation.
    pub(crate) fn of_probe(lease: LeaseId) -> Self {
        GateWord((lease << 3 | HALF_OPEN) & !NOTES)
    }

    /// The lease of a permit for a probe.
    pub(crate) fn lease(self) -> Option<LeaseId> {
        (self.0 & 7 == HALF_OPEN).then_some((self.0 & !NOTES) >> 3)
    }

    /// The word of a rejection: the coarse clock's time stands in the place of the generation, so that an
    /// error does not read the clock once more. 0 = unknown.
    #[inline]
    pub(crate) fn rejected_at(self, coarse: u64) -> Self {
        GateWord(coarse & !7 | self.0 & 7)
    }

    /// When the call was rejected, by the coarse clock, if its rejection took a look at it.
    #[inline]
    pub(crate) fn rejection_time(self) -> Option<u64> {
        Some(self.0 & !7).filter(|coarse| *coarse > 0)
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

    /// Acquire: a thread that reads a state also sees the writes before it was set.
    #[inline]
    pub(crate) fn word(&self) -> GateWord {
        GateWord(self.0.load(Ordering::Acquire))
    }

    /// Whether `word` is still the gate's.
    #[inline]
    pub(crate) fn is_unchanged(&self, word: GateWord) -> bool {
        self.0.load(Ordering::Relaxed) == word.0
    }

    /// Whether the generation of `word` is still current.
    #[inline]
    pub(crate) fn is_current(&self, word: GateWord) -> bool {
        (self.0.load(Ordering::Relaxed) ^ (word.0 & !NOTES)) >> 3 == 0
    }

    /// Sets the mode of a closed circuit, if `word` is current. The generation stays.
    pub(crate) fn change(&self, word: GateWord, closed: Closed) {
        let closed = word.0 & !7 | bits(word.state(), closed);
        // Fails if another state has begun, or another thread has changed the mode.
        let _ = self.0.compare_exchange(word.0, closed, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Starts a new generation, after storing the fields that depend on it: a call that sees the state also
    /// sees them. Callers hold the breaker's lock, so a load and a store suffice.
    pub(crate) fn set(&self, state: State, closed: Closed, store_dependents: impl FnOnce()) {
        store_dependents();
        let generation = (self.0.load(Ordering::Relaxed) >> 3).wrapping_add(1);
        self.0.store(generation << 3 | bits(state, closed), Ordering::Release);
    }
}
