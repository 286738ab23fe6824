//! What a registry tells those who listen: changes of state, in epoch order, and trouble.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::Error;
use crate::snapshot::State;

/// Something that happened. Sent after the change it tells of has been made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The fleet's state of a breaker has changed. Every instance sees each change exactly once,
    /// a breaker's changes in the order of their epochs.
    Transition(Arc<Transition>),
    /// This instance has changed its own state while it could not reach the store. After the heal it
    /// is where the fleet is.
    LocalTransition(Arc<Transition>),
    /// A result that had been cached answered in place of a failed or rejected call.
    CacheHit {
        /// The breaker's name.
        breaker: Arc<str>,
        /// Where it was found.
        tier: CacheTier,
        /// How long before that it had been stored.
        age: Duration,
    },
    /// The store does not answer; from now on this instance decides by itself.
    StoreLost(Error),
    /// The store answers again, and this instance has taken over the fleet's states.
    StoreRestored,
    /// Something else went wrong in the background. Calls are not affected.
    Error(Error),
}

/// A change of state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The breaker's name.
    pub breaker: Arc<str>,
    /// The number of the new state. For a local transition, that of the last state which the store confirmed.
    pub epoch: u64,
    /// The state before.
    pub from: State,
    /// The state from now on.
    pub to: State,
    /// The rule that led to it, with its figures and the limit; or an operator's words.
    pub reason: String,
    /// The id of the instance that brought the change about.
    pub originator: String,
    /// That instance is the one whose event this is.
    pub own: bool,
    /// The successes that were looked at for the decision.
    pub successes: u64,
    /// The failures that were looked at for the decision.
    pub failures: u64,
    /// For how long it opened, if it did.
    pub open_for: Option<Duration>,
}

/// Where a cached result was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheTier {
    /// In this process.
    Local,
    /// In the store that the fleet shares.
    Shared,
}

/// A subscription: all events from the moment of subscribing on.
///
/// A subscriber that is more than 1,024 events behind loses the oldest ones; how many is in
/// [`Events::lost`].
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    lost: u64,
}

pub(crate) const CAPACITY: usize = 1024;

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Events { receiver, lost: 0 }
    }

    /// The next event; `None` once the registry has been shut down. Cancelling loses nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(n)) => self.lost += n,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<Event> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(n)) => self.lost += n,
                Err(_) => return None,
            }
        }
    }

    /// How many events this subscriber has lost by being too slow.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
