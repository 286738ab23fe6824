//! One name's guard.

pub(crate) mod gate;
pub(crate) mod permit;
pub(crate) mod tally;

use std::sync::Arc;
use std::time::Duration;

use crate::error::{BreakerError, RefusalKind};
use crate::snapshot::State;
use crate::store::LeaseId;
use gate::{Gate, Pass};
use permit::{Admission, Permit};
use tally::{Outcome, Tally};

/// A handle on one breaker. Cheap to clone; all clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    core: Arc<Core>,
}

/// What all handles share. (SKELETON: always closed; the real one is being built.)
pub struct Core {
    name: Arc<str>,
    gate: Gate,
    tally: Tally,
}

impl Breaker {
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The name it was registered under.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The state that calls meet here and now.
    pub fn state(&self) -> State {
        self.core.gate.pass().state()
    }
}

impl Core {
    #[inline]
    pub(crate) fn admit(&self) -> Admission<'_> {
        Admission::Go(Permit::new(self, self.gate.pass(), None))
    }

    #[inline]
    pub(crate) fn record(&self, pass: Pass, _lease: Option<LeaseId>, outcome: Outcome) {
        let _ = pass;
        self.tally.add(outcome);
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn skeleton(name: &str) -> Self {
        Core { name: name.into(), gate: Gate::new(State::Closed), tally: Tally::new() }
    }

    /// How long a call may take: the operator's word, else what the function was `given` by its
    /// attribute, else the registry's default.
    #[inline]
    pub(crate) fn call_timeout(&self, given: Option<Duration>) -> Option<Duration> {
        given
    }

    /// How long a success may answer later failures; the same precedence.
    #[inline]
    pub(crate) fn cache_ttl(&self, given: Option<Duration>) -> Option<Duration> {
        given
    }

    pub(crate) fn rejection(&self) -> BreakerError {
        BreakerError::new(self.name.clone(), RefusalKind::Open { retry_after: Duration::ZERO })
    }
}
