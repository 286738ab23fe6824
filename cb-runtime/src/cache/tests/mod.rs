//! The cache as a whole, on a store that tests can stop, fill and count.

mod problems;
mod tiers;
mod writes;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::keep::LONGEST_TTL;
use super::*;
use crate::clock::{ManualClock, Moment};
use crate::error::Error;
use crate::event::{CacheTier, Event};
use crate::store::{BoxFuture, Cached};

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
type StoredValue = (Vec<u8>, Moment, Option<Duration>);

/// Holds results by the clock of the test.
struct TestStore {
    clock: Clock,
    mood: watch::Sender<Mood>,
    kept: Mutex<HashMap<String, StoredValue>>,
    gets: AtomicUsize,
    puts: AtomicUsize,
}

impl TestStore {
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

impl ResultStore for TestStore {
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
struct CacheFleet {
    store: Arc<TestStore>,
    /// By which results age.
    clock: Clock,
    hands: ManualClock,
    /// By which the store is spared.
    pace: Clock,
    pace_hands: ManualClock,
    background: tokio::runtime::Runtime,
}

impl CacheFleet {
    fn new() -> Self {
        let (clock, hands) = Clock::manual();
        let store = TestStore {
            clock: clock.clone(),
            mood: watch::Sender::new(Mood::Well),
            kept: Mutex::default(),
            gets: AtomicUsize::new(0),
            puts: AtomicUsize::new(0),
        };
        let background =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (pace, pace_hands) = Clock::manual();
        CacheFleet { store: Arc::new(store), clock, hands, pace, pace_hands, background }
    }

    /// An instance that waits for the store as long as a test may take.
    fn instance(&self) -> CacheInstance {
        self.limited(CacheLimits::default())
    }

    fn limited(&self, limits: CacheLimits) -> CacheInstance {
        let mut instance = self.connected(limits);
        instance.shared().pace_by(self.pace.clone(), 20 * SECOND);
        instance
    }

    /// An instance as users have it.
    fn impatient_instance(&self) -> CacheInstance {
        self.connected(CacheLimits::default())
    }

    fn connected(&self, limits: CacheLimits) -> CacheInstance {
        let up = Arc::new(AtomicBool::new(true));
        let store: Arc<dyn ResultStore> = self.store.clone();
        let handle = self.background.handle().clone();
        let mut instance = CacheInstance::limited(self.clock.clone(), limits);
        let cache = Arc::into_inner(instance.cache).unwrap();
        instance.cache = Arc::new(cache.with_store(&store, up.clone(), handle));
        CacheInstance { up, ..instance }
    }
}

/// The function whose results are cached.
fn function() -> &'static Function {
    static SITE: CacheSite = CacheSite::new("app", None, None);
    SITE.find(FunctionId(1), "app::get_user::{{closure}}")
}

struct CacheInstance {
    cache: Arc<Cache>,
    up: Arc<AtomicBool>,
    events: Arc<Mutex<Vec<Event>>>,
    breaker: Arc<str>,
    name: BreakerName,
}

impl CacheInstance {
    /// An instance without a store.
    fn alone(clock: Clock) -> Self {
        CacheInstance::limited(clock, CacheLimits::default())
    }

    fn limited(clock: Clock, limits: CacheLimits) -> Self {
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = events.clone();
        let cache = Cache::new(clock, limits, Arc::new(move |event| sink.lock().unwrap().push(event)));
        let (breaker, name) = ("user-service".into(), "user-service".into());
        CacheInstance { cache: Arc::new(cache), up: Arc::default(), events, breaker, name }
    }

    fn shared(&mut self) -> &mut SharedTier {
        let cache = Arc::get_mut(&mut self.cache).unwrap();
        Arc::get_mut(&mut cache.remote.as_mut().unwrap().shared).unwrap()
    }

    fn waiting(&self) -> usize {
        self.cache.remote.as_ref().unwrap().shared.waiting()
    }

    fn caller(&self) -> Caller<'_> {
        let scope = self.cache.scope(&self.breaker);
        Caller { breaker: &self.breaker, name: &self.name, scope, function: function() }
    }

    fn key(&self, number: u64) -> CacheKey {
        let mut arguments = Arguments::new("1");
        arguments.add(&number);
        self.cache.key(&self.breaker, self.caller().scope, (function().id(), function), &arguments).unwrap()
    }

    fn remember<T: Serialize + DeserializeOwned>(&self, number: u64, value: &T) {
        self.remember_for(TTL, number, value);
    }

    fn remember_for<T: Serialize + DeserializeOwned>(&self, ttl: Duration, number: u64, value: &T) {
        let (key, caller) = (self.key(number), self.caller());
        if let Some(now) = self.cache.stale_at(caller.scope, &key) {
            self.cache.keep(caller, key, ttl, value, now);
        }
    }

    fn remember_text(&self, number: u64, text: &str) {
        self.remember(number, &text.to_owned());
    }

    fn recall<T: DeserializeOwned>(&self, number: u64) -> Option<T> {
        wait_for(self.recalled(number))
    }

    async fn recalled<T: DeserializeOwned>(&self, number: u64) -> Option<T> {
        self.recalled_for(TTL, number).await
    }

    async fn recalled_for<T: DeserializeOwned>(&self, ttl: Duration, number: u64) -> Option<T> {
        let key = self.key(number);
        match self.cache.recall_here(self.caller(), &key, ttl) {
            Here::Found(value) => Some(value),
            Here::Undecodable => None,
            Here::Nothing(store) => self.cache.recall_shared(self.caller(), key.with_store(store), ttl).await,
        }
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
    fn problems(&self) -> Vec<String> {
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
    fn problem(&self) -> String {
        let mut problems = self.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }
}

/// Runs a future without any runtime, as some users' executors do, and not for ever.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct UnparkThread(Thread);
    impl Wake for UnparkThread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(UnparkThread(std::thread::current())));
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
