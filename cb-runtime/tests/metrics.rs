//! The `metrics` facade as an application uses it: one recorder per process, installed after the first calls.
//!
//! There is one test, because a process has one recorder. What each round publishes is tested beside the
//! code.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::{Breaker, BreakerConfig, Registry, State, circuit_breaker};
use cb_testkit::{PATIENCE, Proxy, RedisServer, wait_until};
use common::{Broken, bounded};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

#[circuit_breaker(name = "tenant-{id}", registry = registry)]
async fn tenant(registry: &Registry, id: usize) -> Result<(), Broken> {
    Ok(())
}

#[circuit_breaker(name = "users", registry = registry, cache_ttl = 300, cache_key = id, failure_threshold = 1_000_000)]
async fn user(registry: &Registry, id: u32, fails: bool) -> Result<u32, Broken> {
    if fails { Err(Broken::Down) } else { Ok(id) }
}

/// All values recorded so far. A snapshot of the recorder resets its counters to zero.
struct Recorded {
    snapshotter: Snapshotter,
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Vec<f64>>,
    /// The values in the latest snapshot.
    gauges: BTreeMap<String, f64>,
}

impl Recorded {
    fn by(recorder: &DebuggingRecorder) -> Self {
        Recorded {
            snapshotter: recorder.snapshotter(),
            counters: BTreeMap::new(),
            histograms: BTreeMap::new(),
            gauges: BTreeMap::new(),
        }
    }

    fn look(&mut self) {
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let key = key.key();
            let mut labels: Vec<_> =
                key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
            labels.sort();
            let id = format!("{}{}", key.name().trim_start_matches("circuit_breaker_"), labels.concat());
            match value {
                DebugValue::Counter(more) => *self.counters.entry(id).or_default() += more,
                DebugValue::Gauge(value) => {
                    self.gauges.insert(id, value.into_inner());
                }
                DebugValue::Histogram(more) => {
                    self.histograms.entry(id).or_default().extend(more.iter().map(|span| span.0));
                }
            }
        }
    }

    fn count(&self, id: &str) -> u64 {
        self.counters.get(id).copied().unwrap_or_default()
    }

    fn wait_for(&mut self, what: &str, mut condition: impl FnMut(&Recorded) -> bool) {
        wait_until(PATIENCE, what, || {
            self.look();
            condition(self)
        });
    }

    fn wait_for_gauge(&mut self, id: &str, value: f64) {
        self.wait_for(id, |recorded| recorded.gauges.get(id) == Some(&value));
    }

    /// A round publishes one metric after the other, so one that is there does not show that another is.
    fn wait_for_count(&mut self, id: &str, count: u64) {
        self.wait_for(id, |recorded| recorded.count(id) == count);
    }
}

/// A recorder that notes the threads that use it, and blocks them while `door` is locked.
struct GatedRecorder {
    inner: DebuggingRecorder,
    threads: Arc<Mutex<BTreeSet<String>>>,
    door: Arc<tokio::sync::Mutex<()>>,
}

impl GatedRecorder {
    fn enter(&self) {
        let thread = std::thread::current().name().unwrap_or("none").to_owned();
        self.threads.lock().unwrap().insert(thread);
        drop(self.door.blocking_lock());
    }
}

impl Recorder for GatedRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.enter();
        self.inner.describe_counter(key, unit, description);
    }
    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.enter();
        self.inner.describe_gauge(key, unit, description);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.enter();
        self.inner.describe_histogram(key, unit, description);
    }
    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.enter();
        self.inner.register_counter(key, metadata)
    }
    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.enter();
        self.inner.register_gauge(key, metadata)
    }
    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.enter();
        self.inner.register_histogram(key, metadata)
    }
}

async fn trip(breaker: &Breaker, other: &Breaker) {
    for _ in 0..3 {
        breaker.call(async || Err::<(), _>(Broken::Down)).await.unwrap_err();
    }
    wait_until(PATIENCE, "the other instance is open", || other.state() == State::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_activity_is_published_to_the_recorder() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let build = |url| Registry::builder().redis(url).namespace("shop").build().unwrap();
    let (one, other) = (build(proxy.url()), build(server.url()));
    let config = || BreakerConfig::default().failure_threshold(3).reset_timeout(Duration::from_secs(3600));
    let [orders, stock] = ["orders", "stock"].map(|name| one.get_or_create(name, config()));
    let [same_orders, same_stock] = ["orders", "stock"].map(|name| other.get_or_create(name, config()));

    // Calls before a recorder is installed are counted, too.
    orders.call(async || Ok::<_, Broken>(())).await.unwrap();
    let (threads, door) = (Arc::default(), Arc::default());
    let inner = DebuggingRecorder::new();
    let mut recorded = Recorded::by(&inner);
    metrics::set_global_recorder(GatedRecorder {
        inner,
        threads: Arc::clone(&threads),
        door: Arc::clone(&door),
    })
    .map_err(|_| "a recorder is already installed")
    .unwrap();
    recorded.wait_for_gauge("state breaker=orders namespace=shop state=closed", 2.0);

    trip(&orders, &same_orders).await;
    recorded.wait_for_gauge("state breaker=orders namespace=shop state=open", 2.0);
    recorded.wait_for_gauge("epoch breaker=orders namespace=shop", 1.0);
    recorded.wait_for("the transition on both instances", |recorded| {
        let opened =
            |by| format!("transitions_total breaker=orders by={by} from=closed namespace=shop to=open");
        recorded.count(&opened("this")) == 1
            && recorded.count(&opened("another")) == 1
            && recorded.histograms.get("propagation_seconds namespace=shop").is_some_and(|one| one.len() == 1)
    });
    recorded.wait_for_count("calls_total breaker=orders namespace=shop outcome=failure", 3);

    for id in 0..5 {
        tenant(&one, id).await.unwrap();
    }
    recorded.wait_for_gauge("state breaker=tenant-{id} namespace=shop state=closed", 5.0);
    recorded.wait_for_count("calls_total breaker=tenant-{id} namespace=shop outcome=success", 5);

    user(&one, 7, false).await.unwrap();
    assert_eq!(user(&one, 7, true).await, Ok(7));
    bounded(async {
        // The shared cache is written in the background.
        while user(&other, 7, true).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for tier in ["local", "shared"] {
        let labels = format!("breaker=users namespace=shop tier={tier}");
        let ages = format!("cache_age_seconds {labels}");
        recorded.wait_for(tier, |recorded| {
            recorded.count(&format!("cache_hits_total {labels}")) == 1
                && recorded.histograms.get(&ages).is_some_and(|ages| ages.len() == 1)
        });
    }

    // Durations are published by a registry that measures calls, and by no other.
    let (clock, hands) = Clock::manual();
    let measured = Registry::builder().namespace("measured").clock(clock).measure_calls().build().unwrap();
    let timed = measured.get_or_create("orders", config());
    for seconds in [1, 2] {
        let body = async || {
            hands.advance(Duration::from_secs(seconds));
            Ok::<_, Broken>(())
        };
        timed.call(body).await.unwrap();
    }
    let spans = "call_seconds breaker=orders namespace=measured";
    recorded.wait_for(spans, |recorded| recorded.histograms.get(spans).is_some_and(|spans| spans.len() == 2));
    let total: f64 = recorded.histograms[spans].iter().sum();
    assert!((total - 3.0).abs() < 0.06, "{total} s");
    let unasked = |key: &String| key.starts_with("call_seconds") && key.contains("namespace=shop");
    assert!(!recorded.histograms.keys().any(unasked));
    assert_eq!(timed.snapshot().outcomes.slow, 0, "no call is slow without a limit");

    // A recorder that blocks delays neither calls nor a shutdown.
    let held = bounded(door.lock()).await;
    trip(&stock, &same_stock).await;
    bounded(other.shutdown()).await;
    drop(held);
    recorded.wait_for_count("calls_total breaker=stock namespace=shop outcome=failure", 3);

    proxy.cut();
    recorded.wait_for_gauge("store_degraded namespace=shop", 1.0);
    proxy.heal();

    // A shutdown publishes the remaining counts without waiting for the next round.
    for _ in 0..7 {
        tenant(&one, 0).await.unwrap();
    }
    bounded(one.shutdown()).await;
    recorded.look();
    assert_eq!(recorded.count("calls_total breaker=tenant-{id} namespace=shop outcome=success"), 12);
    assert_eq!(*threads.lock().unwrap(), BTreeSet::from(["cb-metrics".to_owned()]));
}
