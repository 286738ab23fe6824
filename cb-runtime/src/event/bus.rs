//! Sending events: to subscribers, to the log, and to the error callback.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;

#[cfg(feature = "metrics")]
use super::CacheTier;
use super::{Event, Events, log};
use crate::error::Error;
#[cfg(feature = "metrics")]
use crate::metrics::{By, Fact, Meter};
use crate::sync::{PerProcess, lock};

/// The number of events that a subscriber may be behind, and that may wait for the callback.
const CAPACITY: usize = 1024;

/// The callback for background errors.
pub(crate) type OnError = Arc<dyn Fn(&Error) + Send + Sync>;

/// Sends a registry's events to its subscribers, and to `tracing` and the error callback on a thread of
/// their own, so that user code runs neither in calls nor in exchanges.
pub(crate) struct EventBus {
    /// `None` once the registry has been shut down, which ends all subscriptions.
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
        Events::new(receiver)
    }

    pub(crate) fn close(&self) {
        lock(&self.subscribers).take();
    }

    /// Never blocks: a subscriber that is too slow loses events.
    pub(crate) fn emit(&self, event: Event) {
        #[cfg(feature = "metrics")]
        note(&self.meter, &event);
        if let Some(sender) = &*lock(&self.subscribers) {
            let _ = sender.send(event.clone());
        }
        report(event, self.on_error.clone());
    }

    pub(crate) fn error(&self, error: Error) {
        self.emit(Event::Error(error));
    }
}

type Queued = (Event, Option<OnError>);

/// The way to the thread that runs user code. It fails if the thread cannot be started.
fn reporter() -> io::Result<&'static SyncSender<Queued>> {
    static REPORTER: PerProcess<SyncSender<Queued>> = PerProcess::new();
    REPORTER.get_or_make(|| {
        let (sender, receiver) = sync_channel::<Queued>(CAPACITY);
        let run = move || {
            for (event, on_error) in receiver {
                // A panic in user code must not end the thread.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    log::log(&event);
                    if let (Event::Error(error) | Event::StoreLost(error), Some(on_error)) =
                        (&event, on_error)
                    {
                        on_error(error);
                    }
                }));
            }
        };
        std::thread::Builder::new().name("cb-events".into()).spawn(run)?;
        Ok(sender)
    })
}

/// Queues an event for the thread that runs user code. The event is dropped if the queue is full.
fn report(event: Event, on_error: Option<OnError>) {
    if let Ok(reporter) = reporter() {
        let _ = reporter.try_send((event, on_error));
    }
}

/// Counts an event for the next round of publishing. The counts are sums, so none is lost however many events
/// there are.
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
