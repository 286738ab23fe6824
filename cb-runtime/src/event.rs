//! The events of a registry: transitions, in the order of their epochs, and problems.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;

use crate::error::Error;
#[cfg(feature = "metrics")]
use crate::metrics::{By, Fact, Meter};
use crate::serial;
use crate::snapshot::State;
use crate::sync::lock;
use crate::text::single_line;

/// An event. Events of changes are sent after the change.
///
/// `serde` writes it as one object whose `event` is the kind: `{"event": "transition", "breaker": "orders",
/// …}`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A transition of the fleet's state of a breaker. Every instance receives each transition exactly
    /// once, and a breaker's transitions in the order of their epochs.
    Transition(Arc<Transition>),
    /// A transition of this instance alone, made while it could not reach the store or below the quorum. The
    /// instance returns to the fleet's state later.
    LocalTransition(Arc<Transition>),
    /// A cached result has answered in place of a failed or rejected call.
    CacheHit {
        /// The breaker's name.
        breaker: Arc<str>,
        /// Where the result was found.
        tier: CacheTier,
        /// How long ago it had been stored.
        #[serde(serialize_with = "serial::span")]
        age: Duration,
    },
    /// A health check that this instance made has ended. A transition tells what it led to.
    HealthCheck {
        /// The breaker's name.
        breaker: Arc<str>,
        /// `Ok` if it passed; else the check's own error, its panic, or that it took too long. `serde` writes
        /// it as `error`, which is `null` if the check passed.
        #[serde(rename = "error", serialize_with = "only_error")]
        result: Result<(), String>,
        /// From its beginning to its end, or until it was dropped.
        #[serde(serialize_with = "serial::span")]
        took: Duration,
    },
    /// A [metrics-only](crate::State::MetricsOnly) breaker would have opened. Sent once when its rules
    /// begin to be met, not for every call.
    WouldHaveOpened {
        /// The breaker's name.
        breaker: Arc<str>,
        /// The rule, with its figures and the limit.
        reason: String,
    },
    /// The store does not answer. From now on this instance decides locally. Where connections are dropped
    /// all the time, losses of less than a second in the ten seconds after such an event are not sent one by
    /// one, nor are their ends: an [`Error`](Event::Error) tells their number.
    StoreLost(Error),
    /// The store answers again, and this instance has adopted the fleet's states.
    StoreRestored,
    /// Another problem in the background. Calls are not affected.
    Error(Error),
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn only_error<S: Serializer>(result: &Result<(), String>, out: S) -> Result<S::Ok, S::Error> {
    result.as_ref().err().serialize(out)
}

/// A transition of a breaker's state.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Transition {
    /// The breaker's name.
    pub breaker: Arc<str>,
    /// The number of the new state. For a local transition, that of the last state which the store confirmed.
    pub epoch: u64,
    /// When it happened, by the store's clock, so that all instances see one time. For a local transition,
    /// this instance's estimate of the store's clock.
    #[serde(serialize_with = "serial::time")]
    pub at: SystemTime,
    /// The state before.
    pub from: State,
    /// The state from now on.
    pub to: State,
    /// The rule that led to it, with its figures and the limit; or the reason that an operator gave.
    pub reason: String,
    /// The [actor](crate::Breaker::by) of a manual override; empty if none was given.
    pub actor: String,
    /// The id of the instance that made the transition.
    pub originator: String,
    /// Whether that instance is this one.
    pub own: bool,
    /// The number of successes that the decision rests on.
    pub successes: u64,
    /// The number of failures that the decision rests on.
    pub failures: u64,
    /// The time from opening to half-open, if it has opened.
    #[serde(serialize_with = "serial::option_span")]
    pub open_for: Option<Duration>,
    /// Its position in the fleet's history, to [resume from](crate::Registry::subscribe_from). A local
    /// transition has none.
    pub cursor: Option<Cursor>,
}

/// A position in the fleet's history: the one after a [`Transition`].
///
/// `Display` writes it as a text without blanks, which `FromStr` reads and which can be the `id` of a
/// server-sent event. The format may change with any version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub(crate) incarnation: String,
    pub(crate) number: u64,
    pub(crate) id: String,
}

impl Cursor {
    /// Whether this position is certainly not after `other`.
    fn is_covered_by(&self, other: &Cursor) -> bool {
        self.incarnation == other.incarnation && self.number <= other.number
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.incarnation, self.number, self.id)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// The error of parsing a text that is not a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseCursorError(());

impl fmt::Display for ParseCursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no cursor of a circuit breaker's transition")
    }
}

impl std::error::Error for ParseCursorError {}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // All parts are checked, because the text may come from a browser, and is sent to the store.
        let digits =
            |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
        let read = || {
            let mut parts = text.rsplitn(3, ':');
            let (id, number, incarnation) = (parts.next()?, parts.next()?, parts.next()?);
            let (time, serial) = id.split_once('-')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            let is_whole = digits(time) && digits(serial) && digits(number);
            (is_whole && incarnation.len() <= 100 && incarnation.chars().all(plain)).then_some(())?;
            Some(Cursor { incarnation: incarnation.into(), number: number.parse().ok()?, id: id.into() })
        };
        read().ok_or(ParseCursorError(()))
    }
}

/// Where a cached result was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CacheTier {
    /// In this process.
    Local,
    /// In the store that the fleet shares.
    Shared,
}

/// A subscription to all events since it was made, or [since a cursor](crate::Registry::subscribe_from).
///
/// A subscriber that is more than 1,024 events behind loses the oldest ones; [`Events::lost`] counts them.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    /// Past transitions that have not been received yet.
    past: VecDeque<Event>,
    /// The cursor of the last of them. The channel may contain some of them, too.
    resumed: Option<Cursor>,
    lost: u64,
}

const CAPACITY: usize = 1024;

impl Events {
    /// The next event; `None` once the registry has been shut down. Cancelling loses nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        loop {
            match self.receiver.recv().await {
                Ok(event) if self.is_known(&event) => {}
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(n)) => self.lost += n,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event, without waiting.
    pub fn try_recv(&mut self) -> Option<Event> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        loop {
            match self.receiver.try_recv() {
                Ok(event) if self.is_known(&event) => {}
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(n)) => self.lost += n,
                Err(_) => return None,
            }
        }
    }

    /// The minimum number of missing events: those that this subscriber was too slow for, and those between
    /// its cursor and the oldest event in the store.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Prepends past transitions, which were read after the subscription was made. `lost`: the number of
    /// missing transitions before them.
    pub(crate) fn behind(mut self, past: Vec<Transition>, lost: u64) -> Self {
        self.resumed = past.last().and_then(|last| last.cursor.clone());
        self.past = past.into_iter().map(|transition| Event::Transition(Arc::new(transition))).collect();
        self.lost += lost;
        self
    }

    fn is_known(&self, event: &Event) -> bool {
        let Event::Transition(transition) = event else { return false };
        let (Some(here), Some(resumed)) = (&transition.cursor, &self.resumed) else { return false };
        here.is_covered_by(resumed)
    }
}

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
        // Not with the first event: a process that is forked while another thread starts it would wait for
        // that thread for ever.
        reporter();
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
        Events { receiver, past: VecDeque::new(), resumed: None, lost: 0 }
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

/// The way to the thread that runs user code; `None` if it could not be started.
fn reporter() -> Option<&'static SyncSender<Queued>> {
    static REPORTER: OnceLock<Option<SyncSender<Queued>>> = OnceLock::new();
    let reporter = REPORTER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Queued>(CAPACITY);
        let run = move || {
            for (event, on_error) in receiver {
                // A panic in user code must not end the thread.
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
    reporter.as_ref()
}

/// Queues an event for the thread that runs user code. The event is dropped if the queue is full.
fn report(event: Event, on_error: Option<OnError>) {
    if let Some(reporter) = reporter() {
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

fn trace(event: &Event) {
    match event {
        Event::Transition(t) | Event::LocalTransition(t) => {
            let local = matches!(event, Event::LocalTransition(_));
            let (breaker, from, to) = (single_line(&t.breaker), t.from.as_str(), t.to.as_str());
            let (reason, actor, originator) =
                (single_line(&t.reason), single_line(&t.actor), single_line(&t.originator));
            macro_rules! log {
                ($level:ident) => {
                    tracing::$level!(
                        target: "cb_runtime", %breaker, epoch = t.epoch, from, to, %reason, %actor, %originator,
                        own = t.own, local, "circuit breaker is {to}"
                    )
                };
            }
            if t.to == State::Closed { log!(info) } else { log!(warn) }
        }
        Event::CacheHit { breaker, tier, age } => {
            let breaker = single_line(breaker);
            tracing::debug!(target: "cb_runtime", %breaker, ?tier, ?age, "answered from the cache");
        }
        Event::HealthCheck { breaker, result: Ok(()), took } => {
            let breaker = single_line(breaker);
            tracing::debug!(target: "cb_runtime", %breaker, ?took, "health check passed");
        }
        Event::HealthCheck { breaker, result: Err(error), took } => {
            let (breaker, error) = (single_line(breaker), single_line(error));
            tracing::warn!(target: "cb_runtime", %breaker, ?took, %error, "health check failed");
        }
        Event::WouldHaveOpened { breaker, reason } => {
            let (breaker, reason) = (single_line(breaker), single_line(reason));
            tracing::warn!(
                target: "cb_runtime", %breaker, %reason, "metrics-only circuit breaker would have opened"
            );
        }
        Event::StoreLost(error) => {
            let error = error.to_string();
            let error = single_line(&error);
            tracing::warn!(
                target: "cb_runtime", "store lost, circuit breakers decide by themselves until it is back: {error}"
            );
        }
        Event::StoreRestored => tracing::info!(target: "cb_runtime", "store restored"),
        Event::Error(error) => {
            let error = error.to_string();
            tracing::error!(target: "cb_runtime", "{}", single_line(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_read_back_and_hostile_texts_are_refused() {
        let cursor = Cursor { incarnation: "00ab".into(), number: 7, id: "1700000000000-3".into() };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in
            ["", "a", ":1:1-1 x", "a:1:1", "a:x:1-1", "a b:1:1-1", "a:1:+1-1", "a\n:1:1-1", "a:-1:1-1"]
        {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_event_is_serialized_as_one_tagged_object() {
        let breaker: Arc<str> = "orders".into();
        let took = Duration::from_millis(1500);
        let cases = [
            (
                Event::CacheHit { breaker: breaker.clone(), tier: CacheTier::Local, age: took },
                r#"{"event":"cache-hit","breaker":"orders","tier":"local","age":1.5}"#,
            ),
            (
                Event::HealthCheck { breaker: breaker.clone(), result: Err("no".into()), took },
                r#"{"event":"health-check","breaker":"orders","error":"no","took":1.5}"#,
            ),
            (
                Event::HealthCheck { breaker, result: Ok(()), took },
                r#"{"event":"health-check","breaker":"orders","error":null,"took":1.5}"#,
            ),
            (Event::StoreRestored, r#"{"event":"store-restored"}"#),
            (
                Event::StoreLost(Error::store("testing", "gone")),
                r#"{"event":"store-lost","kind":"store","message":"the store failed while testing: gone"}"#,
            ),
        ];
        for (event, json) in cases {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
        }
    }

    #[test]
    fn transition_is_written_with_its_time_and_its_cursor() {
        let transition = Transition {
            breaker: "orders".into(),
            epoch: 3,
            at: crate::clock::wall(1_700_000_000_250_000),
            from: State::Closed,
            to: State::Open,
            reason: "5 failures".into(),
            actor: String::new(),
            originator: "1-a".into(),
            own: true,
            successes: 0,
            failures: 5,
            open_for: Some(Duration::from_secs(30)),
            cursor: Some(Cursor { incarnation: "ab".into(), number: 1, id: "5-0".into() }),
        };
        let json = serde_json::to_value(Event::Transition(Arc::new(transition))).unwrap();
        assert_eq!(json["event"], "transition");
        assert_eq!(json["at"], "2023-11-14T22:13:20.250000Z");
        assert_eq!(json["to"], "open");
        assert_eq!(json["open_for"], 30.0);
        assert_eq!(json["cursor"], "ab:1:5-0");
    }
}
