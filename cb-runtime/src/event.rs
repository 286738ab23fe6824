//! What a registry tells those who listen: changes of state, in epoch order, and trouble.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::Error;
#[cfg(feature = "metrics")]
use crate::metrics::{By, Fact, Meter};
use crate::snapshot::State;
use crate::sync::lock;

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
    /// A health check that this instance made has ended. What it led to is told by a transition.
    HealthCheck {
        /// The breaker's name.
        breaker: Arc<str>,
        /// `Ok` if it passed, else why not: the check's own error, a panic, or that it took too long.
        result: Result<(), String>,
        /// From its beginning to its end, or until it was given up.
        took: Duration,
    },
    /// A breaker that is [only watching](crate::State::MetricsOnly) would have opened now. Told when its rules begin to speak for it,
    /// not for every call; again after they have not in between.
    WouldHaveOpened {
        /// The breaker's name.
        breaker: Arc<str>,
        /// The rule, with its figures and the limit.
        reason: String,
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
    /// Who ordered it, if a person did and [said so](crate::Breaker::by).
    pub actor: String,
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

/// What a registry does with a background error, if it was told to.
pub(crate) type OnError = Arc<dyn Fn(&Error) + Send + Sync>;

/// Where a registry's events go out: to its subscribers at once, and to `tracing` and the error
/// callback on a thread of their own, so that nothing of the user's runs where calls or exchanges do.
pub(crate) struct EventBus {
    /// `None` once the registry has been shut down: subscribers see the end.
    subscribers: Mutex<Option<broadcast::Sender<Event>>>,
    on_error: Option<OnError>,
    #[cfg(feature = "metrics")]
    pub(crate) meter: Meter,
}

impl EventBus {
    pub(crate) fn new(on_error: Option<OnError>) -> Self {
        EventBus {
            subscribers: Mutex::new(Some(broadcast::Sender::new(CAPACITY))),
            on_error,
            #[cfg(feature = "metrics")]
            meter: Meter::default(),
        }
    }

    pub(crate) fn subscribe(&self) -> Events {
        let receiver = match &*lock(&self.subscribers) {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        };
        Events { receiver, lost: 0 }
    }

    pub(crate) fn close(&self) {
        lock(&self.subscribers).take();
    }

    /// Never blocks: a listener that is too slow loses events, not time of ours.
    pub(crate) fn emit(&self, event: Event) {
        #[cfg(feature = "metrics")]
        note(&self.meter, &event);
        if let Some(sender) = &*lock(&self.subscribers) {
            let _ = sender.send(event.clone());
        }
        tell(event, self.on_error.clone());
    }

    pub(crate) fn error(&self, error: Error) {
        self.emit(Event::Error(error));
    }
}

/// Hands an event to the thread that runs the user's code. It is dropped where a thousand are waiting already.
fn tell(event: Event, on_error: Option<OnError>) {
    type Told = (Event, Option<OnError>);
    static TELLER: OnceLock<Option<SyncSender<Told>>> = OnceLock::new();
    let teller = TELLER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Told>(CAPACITY);
        let run = move || {
            for (event, on_error) in receiver {
                // A panic in the user's code is the user's; the next event is told all the same.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    trace(&event);
                    if let (Event::Error(error) | Event::StoreLost(error), Some(on_error)) =
                        (&event, on_error)
                    {
                        on_error(error);
                    }
                }));
            }
        };
        std::thread::Builder::new().name("cb-events".into()).spawn(run).ok().map(|_| sender)
    });
    if let Some(teller) = teller {
        let _ = teller.try_send((event, on_error));
    }
}

/// Adds it to what is published with the next round: these are numbers, so none is lost in a crowd.
#[cfg(feature = "metrics")]
fn note(meter: &Meter, event: &Event) {
    match event {
        Event::Transition(t) => {
            let by = if t.own { By::This } else { By::Another };
            meter.note(&t.breaker, Fact::Transition { from: t.from, to: t.to, by }, None);
        }
        Event::LocalTransition(t) => {
            meter.note(&t.breaker, Fact::Transition { from: t.from, to: t.to, by: By::Alone }, None);
        }
        Event::CacheHit { breaker, tier, age } => {
            let shared = *tier == CacheTier::Shared;
            meter.note(breaker, Fact::CacheHit { shared }, Some(*age));
        }
        Event::HealthCheck { breaker, result, took } => {
            meter.note(breaker, Fact::HealthCheck { passed: result.is_ok() }, Some(*took));
        }
        Event::WouldHaveOpened { breaker, .. } => meter.note(breaker, Fact::WouldHaveOpened, None),
        Event::StoreLost(_) | Event::StoreRestored | Event::Error(_) => {}
    }
}

fn trace(event: &Event) {
    match event {
        Event::Transition(t) | Event::LocalTransition(t) => {
            let local = matches!(event, Event::LocalTransition(_));
            let (breaker, from, to) = (&*t.breaker, t.from.as_str(), t.to.as_str());
            macro_rules! say {
                ($level:ident) => {
                    tracing::$level!(
                        target: "cb_runtime", breaker, epoch = t.epoch, from, to, reason = %t.reason,
                        actor = %t.actor, originator = %t.originator, own = t.own, local, "circuit breaker is {to}"
                    )
                };
            }
            if t.to == State::Closed { say!(info) } else { say!(warn) }
        }
        Event::CacheHit { breaker, tier, age } => {
            tracing::debug!(target: "cb_runtime", breaker = &**breaker, ?tier, ?age, "answered from the cache");
        }
        Event::HealthCheck { breaker, result: Ok(()), took } => {
            tracing::debug!(target: "cb_runtime", breaker = &**breaker, ?took, "health check passed");
        }
        Event::HealthCheck { breaker, result: Err(error), took } => {
            tracing::warn!(target: "cb_runtime", breaker = &**breaker, ?took, %error, "health check failed");
        }
        Event::WouldHaveOpened { breaker, reason } => {
            tracing::warn!(
                target: "cb_runtime", breaker = &**breaker, reason,
                "circuit breaker is metrics-only, and would have opened"
            );
        }
        Event::StoreLost(error) => {
            tracing::warn!(target: "cb_runtime", %error, "the store is away; breakers decide by themselves");
        }
        Event::StoreRestored => tracing::info!(target: "cb_runtime", "the store is back"),
        Event::Error(error) => {
            tracing::error!(target: "cb_runtime", %error, "a circuit breaker met a problem");
        }
    }
}
