//! Follows the event stream: applies every transition of the fleet to this instance's breakers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Command;
use super::pace::vary;
use super::stream::Stream;
use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::event::{Cursor, Event, Transition};
use crate::snapshot::State;
use crate::store::{Position, Store, StreamEvent};

/// A watch of the stream returns after this, with or without events.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first and the longest delay before a stream that could not be read is read again. Each attempt may
/// need a connection, and the coordinator loads all states after it: a fleet that may not subscribe must not
/// keep Redis busy with that.
const PAUSE: (Duration, Duration) = (Duration::from_millis(300), PATIENCE);

pub(super) struct Follower {
    pub(super) context: Arc<RegistryContext>,
    pub(super) breakers: Arc<BreakerMap>,
    pub(super) store: Arc<dyn Store>,
    pub(super) stream: Arc<Stream>,
    /// Weak, so that the coordinator ends when nothing else can send it requests.
    pub(super) requests: mpsc::WeakUnboundedSender<Command>,
}

impl Follower {
    /// Runs until it is aborted.
    pub(super) async fn run(self) {
        let mut notice = String::new();
        let mut pause = PAUSE.0;
        loop {
            if !self.stream.is_running() {
                self.stream.changed().await;
                continue;
            }
            let from = self.stream.position();
            let answer = tokio::select! {
                answer = self.store.watch(from, notice.clone(), PATIENCE) => answer,
                () = self.stream.changed() => continue,
            };
            match answer {
                Ok(news) => {
                    pause = PAUSE.0;
                    for event in news.events {
                        self.apply(event);
                    }
                    for core in news.notices.iter().filter_map(|name| self.breakers.get(name)) {
                        core.take_notice();
                    }
                    notice = news.notice;
                }
                Err(error) => {
                    self.stream.report(&self.context, error);
                    self.request(Command::Resync);
                    // The store may be back with the stream, or lost, before the delay ends.
                    let _ = tokio::time::timeout(vary(pause), self.stream.changed()).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    pub(super) fn apply(&self, mut event: StreamEvent) {
        let Follower { context, breakers, stream, .. } = self;
        if !stream.read(&event.position) {
            // The missing events' effects are in the states.
            self.request(Command::Resync);
        }
        let now = context.clock.now();
        let elapsed = now.0.wrapping_add(context.skew()).saturating_sub(event.at_us);
        event.record = event.record.aged(elapsed);
        let record = &event.record;
        if breakers.contradicts(&event.name, record) {
            // An answer was faster than this event, or the store has lost this breaker, and an instance that
            // knows less has gone on with it. Which state is in force, the store knows.
            match breakers.get(&event.name) {
                Some(core) => core.exchange_next(),
                None => self.request(Command::WriteBack(event.name.clone())),
            }
        } else if record.state != State::Closed && stream.was_loaded_after(&event.position) {
            // Either the load has adopted it, or the store does not hold it any more.
            if let Some(core) = breakers.get(&event.name) {
                core.exchange_next();
            }
        } else {
            breakers.adopt(&event.name, record, now);
        }
        // A state that was written back after the store had lost it: new instances adopt it, but it is no
        // transition.
        let Some(from) = event.from else { return };
        if breakers.get(&event.name).is_some_and(|core| !core.announce(record.epoch)) {
            return;
        }
        #[cfg(feature = "metrics")]
        if *record.originator != *context.instance {
            context.events.meter.arrived(Duration::from_micros(elapsed));
        }
        context.events.emit(Event::Transition(Arc::new(transition(context, event, from))));
    }

    fn request(&self, command: Command) {
        if let Some(requests) = self.requests.upgrade() {
            let _ = requests.send(command);
        }
    }
}

/// The public form of an event. `from`: the previous state.
pub(crate) fn transition(context: &RegistryContext, event: StreamEvent, from: State) -> Transition {
    let StreamEvent { position: Position { incarnation, id, number }, name, record, evidence, at_us, .. } =
        event;
    Transition {
        breaker: name,
        epoch: record.epoch,
        at: context.wall_of_store(at_us),
        from,
        to: record.state,
        own: *record.originator == *context.instance,
        reason: record.reason,
        actor: record.actor,
        originator: record.originator,
        successes: evidence.successes,
        failures: evidence.failures,
        open_for: (record.state == State::Open).then(|| Duration::from_micros(record.reset_timeout_us)),
        cursor: Some(Cursor { incarnation, number, id }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;
    use crate::cache::Cache;
    use crate::clock::Clock;
    use crate::config::CacheLimits;
    use crate::error::Error;
    use crate::event::EventBus;
    use crate::store::{Acknowledged, Answer, Batch, BoxFuture, EventsAt, Load, News, Report};

    /// A store whose stream cannot be read, and the number of attempts.
    #[derive(Default)]
    struct Unreadable(AtomicU32);

    impl Store for Unreadable {
        fn exchange(&self, _: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
            unreachable!()
        }
        fn report(&self, _: Report) -> BoxFuture<'_, Result<Acknowledged, Error>> {
            unreachable!()
        }
        fn load(&self) -> BoxFuture<'_, Result<Load, Error>> {
            unreachable!()
        }
        fn watch(&self, _: Position, _: String, _: Duration) -> BoxFuture<'_, Result<News, Error>> {
            Box::pin(async {
                self.0.fetch_add(1, Ordering::Relaxed);
                Err(Error::store("subscribing to events", "no permission"))
            })
        }
        fn history(&self, _: EventsAt, _: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
            unreachable!()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stream_that_cannot_be_read_is_read_again_at_growing_intervals() {
        let clock = Clock::manual().0;
        let breakers = Arc::new(BreakerMap::new(16, clock.now()));
        let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
        let (events, up) = (Arc::new(EventBus::new(None)), Arc::new(AtomicBool::new(true)));
        let context = Arc::new(RegistryContext::new("here".into(), clock, events, cache, up));
        let (store, stream) = (Arc::new(Unreadable::default()), Arc::new(Stream::default()));
        let (requests, mut requested) = mpsc::unbounded_channel();
        let follower = Follower {
            context,
            breakers,
            store: store.clone(),
            stream: stream.clone(),
            requests: requests.downgrade(),
        };
        let following = tokio::spawn(follower.run());
        stream.resume();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let attempts = store.0.load(Ordering::Relaxed);
        assert!((12..=24).contains(&attempts), "{attempts}");
        assert_eq!(requested.len(), attempts as usize, "the states are loaded after each");
        while let Ok(request) = requested.try_recv() {
            assert!(matches!(request, Command::Resync));
        }
        // The store was lost, and is back.
        for change in [Stream::pause, Stream::resume] {
            change(&stream);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(store.0.load(Ordering::Relaxed), attempts + 1);
        following.abort();
    }
}
