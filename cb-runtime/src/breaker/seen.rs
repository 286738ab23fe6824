//! What metrics show of a breaker.

use super::Core;
use crate::snapshot::{Outcomes, State};
use crate::sync::lock;

impl Core {
    /// The state that calls meet.
    pub(crate) fn state(&self) -> State {
        self.gate.word().state()
    }

    /// Of the last state that the store has confirmed.
    pub(crate) fn epoch(&self) -> u64 {
        lock(&self.inner).machine.epoch()
    }

    /// What has become of its calls.
    pub(crate) fn outcomes(&self) -> Outcomes {
        self.counters.outcomes()
    }
}
