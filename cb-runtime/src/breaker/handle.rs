//! What users hold: a breaker by name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Core, Order};
use crate::error::{Error, ErrorKind};
use crate::snapshot::{Snapshot, State};
use crate::store::Proposal;
use crate::sync::lock;

/// A handle on one breaker. Cheap to clone; all clones are the same breaker.
#[derive(Clone)]
pub struct Breaker {
    core: Arc<Core>,
    /// What this handle was asked for with; like an annotated function's, not a thing of the breaker.
    call_timeout: Option<Duration>,
}

impl Breaker {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Breaker { core, call_timeout: None }
    }

    pub(crate) fn with_call_timeout(self, call_timeout: Option<Duration>) -> Self {
        Breaker { call_timeout, ..self }
    }

    pub(crate) fn given_call_timeout(&self) -> Option<Duration> {
        self.call_timeout
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The name it was registered under.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The state that calls meet here and now; one atomic load.
    pub fn state(&self) -> State {
        self.core.gate.pass().state()
    }

    /// What this instance knows of the breaker at this moment; from memory, without I/O.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot()
    }

    /// Opens the circuit for the whole fleet until someone [releases](Self::release) it. Returns once the
    /// store has it. Cancelling abandons the answer, not the order.
    ///
    /// # Errors
    /// If the store does not take the order; nothing has changed then, or it cannot be known.
    pub async fn force_open(&self, reason: &str) -> Result<(), Error> {
        self.order(State::ForcedOpen, reason).await
    }

    /// Switches the breaker off for the whole fleet until someone [releases](Self::release) it: calls are
    /// made, nothing is counted. Returns once the store has it.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn disable(&self, reason: &str) -> Result<(), Error> {
        self.order(State::Disabled, reason).await
    }

    /// Ends a state that is held by hand: the circuit is closed and counts from nothing. Does nothing in
    /// any other state.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn release(&self) -> Result<(), Error> {
        if self.state().is_manual() { self.order(State::Closed, "released").await } else { Ok(()) }
    }

    /// Closes the circuit for the whole fleet, whatever its state, and counts from nothing.
    ///
    /// # Errors
    /// As [`force_open`](Self::force_open).
    pub async fn reset(&self) -> Result<(), Error> {
        self.order(State::Closed, "reset").await
    }

    async fn order(&self, to: State, reason: &str) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal {
            to,
            reason: shorten(reason),
            remaining_us: None,
            reset_timeout_us: 0,
            attempt: 0,
            force: true,
            token: None,
            actor: String::new(),
            evidence: crate::store::Counts::default(),
        };
        {
            let mut desk = lock(&self.core.desk);
            // Under the lock that the coordinator takes at its end: either it finds this order, or we see the end.
            if self.core.home.has_ended() {
                return Err(Error::new(ErrorKind::ShutDown));
            }
            desk.orders.push(Order { proposal, answer });
        }
        self.core.flag(true);
        answered.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::ShutDown)))
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.core.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// A reason is for people; the store keeps only so much of it.
fn shorten(reason: &str) -> String {
    let mut end = reason.len().min(crate::store::MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
