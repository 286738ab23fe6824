//! The `metrics` facade as a program has it: one recorder for the process, which comes after the first calls.
//!
//! One test, because a process has one recorder; what rounds publish is tested on its own, beside the code.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// What the recorder has been told so far. A snapshot sets everything back to zero.
struct Told {
    snapshotter: Snapshotter,
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Vec<f64>>,
    /// Of the last snapshot.
    gauges: BTreeMap<String, f64>,
}

impl Told {
    fn by(recorder: &DebuggingRecorder) -> Self {
        Told {
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

    fn wait_for(&mut self, what: &str, mut condition: impl FnMut(&Told) -> bool) {
        wait_until(PATIENCE, what, || {
            self.look();
            condition(self)
        });
    }

    fn wait_for_gauge(&mut self, id: &str, value: f64) {
        self.wait_for(id, |told| told.gauges.get(id) == Some(&value));
    }
}

/// Looks at who runs it, and holds whoever does while its door is locked.
struct Watched {
    inner: DebuggingRecorder,
    threads: Arc<Mutex<BTreeSet<String>>>,
    door: Arc<tokio::sync::Mutex<()>>,
}

impl Watched {
    fn enter(&self) {
        let thread = std::thread::current().name().unwrap_or("none").to_owned();
        self.threads.lock().unwrap().insert(thread);
        drop(self.door.blocking_lock());
    }
}

impl Recorder for Watched {
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
    wait_until(PATIENCE, "the other instance hears of it", || other.state() == State::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fleet_does_is_published() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let build = |url| Registry::builder().redis(url).namespace("shop").build().unwrap();
    let (one, other) = (build(proxy.url()), build(server.url()));
    let config = || BreakerConfig::default().failure_threshold(3).reset_timeout(Duration::from_secs(3600));
    let [orders, stock] = ["orders", "stock"].map(|name| one.get_or_create(name, config()));
    let [same_orders, same_stock] = ["orders", "stock"].map(|name| other.get_or_create(name, config()));

    // Nobody listens yet, and nothing breaks.
    orders.call(async || Ok::<_, Broken>(())).await.unwrap();
    let (threads, door) = (Arc::default(), Arc::default());
    let inner = DebuggingRecorder::new();
    let mut told = Told::by(&inner);
    metrics::set_global_recorder(Watched { inner, threads: Arc::clone(&threads), door: Arc::clone(&door) })
        .map_err(|_| "there is one already")
        .unwrap();
    told.wait_for_gauge("state breaker=orders namespace=shop state=closed", 2.0);

    trip(&orders, &same_orders).await;
    told.wait_for_gauge("state breaker=orders namespace=shop state=open", 2.0);
    told.wait_for_gauge("epoch breaker=orders namespace=shop", 1.0);
    told.wait_for("the transition, from both sides", |told| {
        let opened =
            |by| format!("transitions_total breaker=orders by={by} from=closed namespace=shop to=open");
        told.count(&opened("this")) == 1 && told.count(&opened("another")) == 1
    });
    assert_eq!(told.histograms["propagation_seconds namespace=shop"].len(), 1);
    assert_eq!(told.count("calls_total breaker=orders namespace=shop outcome=failure"), 3);

    for id in 0..5 {
        tenant(&one, id).await.unwrap();
    }
    told.wait_for_gauge("state breaker=tenant-{id} namespace=shop state=closed", 5.0);
    assert_eq!(told.count("calls_total breaker=tenant-{id} namespace=shop outcome=success"), 5);

    user(&one, 7, false).await.unwrap();
    assert_eq!(user(&one, 7, true).await, Ok(7));
    bounded(async {
        // It is written in the background.
        while user(&other, 7, true).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for tier in ["local", "shared"] {
        let labels = format!("breaker=users namespace=shop tier={tier}");
        told.wait_for(tier, |told| told.count(&format!("cache_hits_total {labels}")) == 1);
        assert_eq!(told.histograms[&format!("cache_age_seconds {labels}")].len(), 1);
    }

    // A recorder that hangs holds up nobody.
    let held = bounded(door.lock()).await;
    trip(&stock, &same_stock).await;
    bounded(other.shutdown()).await;
    drop(held);
    told.wait_for("what happened meanwhile", |told| {
        told.count("calls_total breaker=stock namespace=shop outcome=failure") == 3
    });

    proxy.cut();
    told.wait_for_gauge("store_degraded namespace=shop", 1.0);
    proxy.heal();

    // At the end nobody waits for the next round.
    for _ in 0..7 {
        tenant(&one, 0).await.unwrap();
    }
    bounded(one.shutdown()).await;
    told.look();
    assert_eq!(told.count("calls_total breaker=tenant-{id} namespace=shop outcome=success"), 12);
    assert_eq!(*threads.lock().unwrap(), BTreeSet::from(["cb-metrics".to_owned()]));
}
