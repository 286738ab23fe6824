//! The cache as a whole, on a store that tests can stop, fill and count.

mod tiers;
mod trouble;
mod writes;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use tokio::sync::watch;

use super::*;
use crate::clock::ManualClock;
use crate::error::Error;
use crate::event::Event;
use crate::store::{Answer, Batch, BoxFuture, Cached, EventsAt, FleetRow, Load, Position, StreamEvent};

const TTL: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

/// What a store answers to the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    /// Answers only once the mood has changed.
    Frozen,
    Failing,
    Panicking,
}

/// Value, when it was put, and for how long.
type Kept = (Vec<u8>, Moment, Option<Duration>);

/// Keeps results by the clock of the test. Of the contract only the cache's part.
struct Shelf {
    clock: Clock,
    mood: watch::Sender<Mood>,
    kept: Mutex<HashMap<String, Kept>>,
    gets: AtomicUsize,
    puts: AtomicUsize,
}

impl Shelf {
    async fn ready(&self) -> Result<(), Error> {
        let mut mood = self.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Frozen).await.unwrap();
        assert_ne!(mood, Mood::Panicking, "a store's own fault");
        if mood == Mood::Failing { Err(Error::store("testing", "it is told to")) } else { Ok(()) }
    }

    fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    fn put_raw(&self, key: &str, value: &[u8], ttl: Option<Duration>) {
        self.kept.lock().unwrap().insert(key.to_owned(), (value.to_vec(), self.clock.now(), ttl));
    }

    fn keys(&self) -> Vec<String> {
        self.kept.lock().unwrap().keys().cloned().collect()
    }

    fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }

    fn puts(&self) -> usize {
        self.puts.load(Ordering::SeqCst)
    }
}

impl Store for Shelf {
    fn exchange(&self, _batch: Batch) -> BoxFuture<'_, Result<Answer, Error>> {
        unreachable!("the cache does not exchange")
    }

    fn report(&self, _: crate::store::Report) -> BoxFuture<'_, Result<crate::store::Acknowledged, Error>> {
        unreachable!("the cache does not report")
    }

    fn load(&self) -> BoxFuture<'_, Result<Load, Error>> {
        unreachable!("the cache does not load")
    }

    fn watch(&self, _: Position, _: Duration) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        unreachable!("the cache does not watch")
    }

    fn history(&self, _: EventsAt, _: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>> {
        unreachable!("the cache does not look at the history")
    }

    fn fleet(&self) -> BoxFuture<'_, Result<Vec<FleetRow>, Error>> {
        unreachable!("the cache does not look at the fleet")
    }

    fn cache_get(&self, key: String) -> BoxFuture<'_, Result<Option<Cached>, Error>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            self.ready().await?;
            let kept = self.kept.lock().unwrap();
            Ok(kept.get(&key).and_then(|(value, put, ttl)| {
                let passed = self.clock.now().since(*put);
                let remaining = ttl.map(|ttl| ttl.saturating_sub(passed));
                (remaining != Some(Duration::ZERO)).then(|| Cached { value: value.clone(), remaining })
            }))
        })
    }

    fn cache_put(&self, key: String, value: Vec<u8>, ttl: Duration) -> BoxFuture<'_, Result<(), Error>> {
        assert_eq!(ttl.subsec_nanos() % 1_000_000, 0, "whole milliseconds");
        self.puts.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            self.ready().await?;
            self.put_raw(&key, &value, Some(ttl));
            Ok(())
        })
    }
}

/// A store, the clocks, and the background of all instances that share them.
struct Fleet {
    shelf: Arc<Shelf>,
    /// By which results age.
    clock: Clock,
    hands: ManualClock,
    /// By which the store is spared.
    pace: Clock,
    pace_hands: ManualClock,
    background: tokio::runtime::Runtime,
}

impl Fleet {
    fn new() -> Self {
        let (clock, hands) = Clock::manual();
        let shelf = Shelf {
            clock: clock.clone(),
            mood: watch::Sender::new(Mood::Well),
            kept: Mutex::default(),
            gets: AtomicUsize::new(0),
            puts: AtomicUsize::new(0),
        };
        let background =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (pace, pace_hands) = Clock::manual();
        Fleet { shelf: Arc::new(shelf), clock, hands, pace, pace_hands, background }
    }

    /// An instance that waits for the store as long as a test may take.
    fn instance(&self) -> Instance {
        let mut instance = self.impatient_instance();
        let cache = Arc::get_mut(&mut instance.cache).unwrap();
        let shared = Arc::get_mut(cache.shared.as_mut().unwrap()).unwrap();
        shared.pace_by(self.pace.clone(), 20 * SECOND);
        instance
    }

    /// An instance as users have it.
    fn impatient_instance(&self) -> Instance {
        let up = Arc::new(AtomicBool::new(true));
        let store: Arc<dyn Store> = self.shelf.clone();
        let handle = self.background.handle().clone();
        let mut instance = Instance::alone(self.clock.clone());
        let cache = Arc::into_inner(instance.cache).unwrap();
        instance.cache = Arc::new(cache.with_store(&store, up.clone(), handle));
        Instance { up, ..instance }
    }
}

struct Instance {
    cache: Arc<Cache>,
    up: Arc<AtomicBool>,
    events: Arc<Mutex<Vec<Event>>>,
    breaker: Arc<str>,
}

impl Instance {
    fn alone(clock: Clock) -> Self {
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = events.clone();
        let cache = Arc::new(Cache::new(clock, Arc::new(move |event| sink.lock().unwrap().push(event))));
        Instance { cache, up: Arc::default(), events, breaker: "user-service".into() }
    }

    fn remember<T: Serialize + ?Sized>(&self, number: u64, value: &T) {
        self.cache.remember(&self.breaker, &key(number), TTL, value);
    }

    fn recall<T: DeserializeOwned>(&self, number: u64) -> Option<T> {
        wait_for(self.cache.recall(&self.breaker, &key(number), TTL))
    }

    fn settle(&self) {
        wait_for(self.cache.flush(20 * SECOND));
    }

    /// Tier and age in seconds of every hit since the last time.
    fn hits(&self) -> Vec<(CacheTier, u64)> {
        let taken =
            self.events.lock().unwrap().extract_if(.., |e| matches!(e, Event::CacheHit { .. })).collect();
        let taken: Vec<Event> = taken;
        let hit = |event| match event {
            Event::CacheHit { tier, age, .. } => (tier, age.as_secs()),
            _ => unreachable!(),
        };
        taken.into_iter().map(hit).collect()
    }

    /// What was wrong since the last time.
    fn warnings(&self) -> Vec<String> {
        let mut events = self.events.lock().unwrap();
        let taken: Vec<Event> = events.extract_if(.., |e| matches!(e, Event::Error(_))).collect();
        let text = |event: Event| match event {
            Event::Error(error) => {
                assert!(error.is_cache(), "{error}");
                error.to_string()
            }
            _ => unreachable!(),
        };
        taken.into_iter().map(text).collect()
    }

    /// The one thing that was wrong since the last time.
    fn trouble(&self) -> String {
        let mut warnings = self.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        warnings.remove(0)
    }
}

fn key(number: u64) -> CacheKey {
    let mut key = KeyHasher::new("app::get_user", "1");
    key.arg(&number);
    key.finish().unwrap()
}

/// Runs a future without any runtime, as some users' executors do, and not for ever.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it takes too long");
        std::thread::park_timeout(left);
    }
}

/// Waits for something that nobody announces.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
