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

    /// Closed, and admitting all: the one state that the fast path serves.
    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        self.0 & 7 == State::Closed as u64
    }

    /// Closed, and admitting but a part of the calls.
    pub(crate) fn is_ramping(self) -> bool {
        self.0 & 7 == RAMPING
    }
}

/// Stands for closed, in the time of a ramp-up; not the number of any state.
const RAMPING: u64 = 6;

fn bits(state: State, ramping: bool) -> u64 {
    if ramping && state == State::Closed { RAMPING } else { state as u64 }
}

pub(crate) struct Gate(AtomicU64);

impl Gate {
    pub(crate) fn new(state: State, ramping: bool) -> Self {
        Gate(AtomicU64::new(bits(state, ramping)))
    }

    /// Acquire: who sees a state also sees what was written before it was set.
    #[inline]
    pub(crate) fn pass(&self) -> Pass {
        Pass(self.0.load(Ordering::Acquire))
    }

    /// Whether a new call would get a pass of the same generation.
    #[inline]
    pub(crate) fn is_current(&self, pass: Pass) -> bool {
        (self.0.load(Ordering::Relaxed) ^ pass.0) >> 3 == 0
    }

    /// The ramp-up that `pass` was given in is over. It is no change of state: the generation goes on.
    pub(crate) fn end_ramp(&self, pass: Pass) {
        let closed = pass.0 & !7 | State::Closed as u64;
        // If it fails, another state has begun, or somebody else has ended it.
        let _ = self.0.compare_exchange(pass.0, closed, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Starts a new generation. Callers hold the breaker's lock, so a load and a store suffice.
    pub(crate) fn set(&self, state: State, ramping: bool) {
        let generation = (self.0.load(Ordering::Relaxed) >> 3).wrapping_add(1);
        self.0.store(generation << 3 | bits(state, ramping), Ordering::Release);
    }
}
