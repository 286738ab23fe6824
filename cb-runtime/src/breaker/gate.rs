//! The one word that a call reads: which state calls meet now, and the generation of that state.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::snapshot::State;

/// A state and its generation, packed: bits 0–2 the state, the rest a number that grows with every
/// change this instance makes or takes over. It is not the epoch: what an instance does while it is
/// cut off has no epoch, and must still make the outcomes of earlier calls late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass(u64);

impl Pass {
    #[inline]
    pub(crate) fn state(self) -> State {
        State::from_bits(self.0)
    }

    /// Closed, the one state that the fast path serves.
    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        self.0 & 7 == State::Closed as u64
    }
}

pub(crate) struct Gate(AtomicU64);

impl Gate {
    pub(crate) fn new(state: State) -> Self {
        Gate(AtomicU64::new(state as u64))
    }

    /// Acquire: who sees a state also sees what was written before it was set.
    #[inline]
    pub(crate) fn pass(&self) -> Pass {
        Pass(self.0.load(Ordering::Acquire))
    }

    /// Whether `pass` is still what a new call would get.
    #[inline]
    pub(crate) fn is_current(&self, pass: Pass) -> bool {
        self.0.load(Ordering::Relaxed) == pass.0
    }

    /// Starts a new generation. Callers hold the breaker's lock, so a load and a store suffice.
    pub(crate) fn set(&self, state: State) {
        let generation = (self.0.load(Ordering::Relaxed) >> 3).wrapping_add(1);
        self.0.store(generation << 3 | state as u64, Ordering::Release);
    }
}
