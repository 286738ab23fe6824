//! Rounds on the test's thread with its own recorder. Registries are built from their parts, so that the
//! process's publishing thread does not know them.

mod page;
mod recorded;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::MetricSource;
use super::publisher::{Publisher, REPEAT};
use crate::breaker::Core;
use crate::breaker::context::RegistryContext;
use crate::breaker::counters::Outcome;
use crate::breaker::permit::Admission;
use crate::breakers::{BreakerKind, BreakerMap, KeyedSite};
use crate::cache::Cache;
use crate::clock::{Clock, ManualClock};
use crate::config::{BreakerConfig, CacheLimits, PerFunction};
use crate::event::{CacheTier, Event, EventBus, Transition};
use crate::registry::MeteredRegistry;
use crate::snapshot::State;
use crate::store::Batch;
use crate::store::memory::MemoryStore;
use recorded::Recorded;

const TENANTS: KeyedSite = KeyedSite { bit: 1, pattern: "tenant-{id}", at: std::panic::Location::caller() };

/// A registry without a coordinator.
struct MeteredInstance {
    source: Arc<MeteredRegistry>,
    store: MemoryStore,
    hands: ManualClock,
}

impl MeteredInstance {
    fn new() -> Self {
        MeteredInstance::with_places(16)
    }

    fn with_places(places: usize) -> Self {
        let (clock, hands) = Clock::manual();
        let store = MemoryStore::new(clock.clone());
        let events = Arc::new(EventBus::new(None));
        let cache = Cache::new(clock.clone(), CacheLimits::default(), Arc::new(|_| ()));
        let up = Arc::new(AtomicBool::new(true));
        let breakers = Arc::new(BreakerMap::new(places, clock.now()));
        let context = Arc::new(RegistryContext::new("here".into(), clock, events, cache, up));
        let source = Arc::new(MeteredRegistry { namespace: "test".into(), context, breakers });
        MeteredInstance { source, store, hands }
    }

    fn kept(&self, name: &str) -> Arc<Core> {
        self.source.breakers.entry(name).insert(BreakerKind::Pinned, |name, _| self.make(name))
    }

    fn keyed(&self, name: &str) -> Arc<Core> {
        if let Some(known) = self.source.breakers.get_keyed(name, &BreakerConfig::default(), TENANTS) {
            return known.core;
        }
        let entry = self.source.breakers.entry(name);
        assert!(entry.has_room());
        entry.insert(BreakerKind::Keyed(TENANTS), |name, _| self.make(name))
    }

    fn make(&self, name: Arc<str>) -> Arc<Core> {
        let config = BreakerConfig::default().failure_threshold(3);
        Core::new(name, &config, None, &self.source.context)
    }

    /// Exchanges all breakers with the store, twice: proposals need the first contact.
    fn exchange(&self) {
        (1..=2).for_each(|seq| self.exchange_once(seq));
    }

    fn exchange_once(&self, seq: u64) {
        let cores = self.source.breakers.all();
        // A new breaker is in the dirty list, which refers to it.
        drop(self.source.context.take_dirty());
        let entries = cores.iter().map(|core| core.encode(false)).collect();
        let batch = Batch { instance: "here".into(), seq, entries, ..Batch::default() };
        let answer = self.store.exchange_now(&batch);
        for (core, view) in cores.iter().zip(answer.views) {
            core.receive(&view.unwrap(), answer.now_us);
        }
        drop(self.source.context.take_dirty());
    }

    /// Evicts keyed breakers that have not been used for long.
    fn sweep(&self) {
        self.hands.advance(Duration::from_secs(3600));
        self.source.breakers.sweep(self.source.context.clock.now());
    }

    fn emit(&self, event: Event) {
        self.source.context.events.emit(event);
    }
}

fn call(core: &Core, outcome: Outcome) {
    match core.admit() {
        Admission::Go(permit) => permit.end(outcome),
        Admission::No(_) => {}
        Admission::Wait(_) => panic!("no probe is due"),
    }
}

fn calls(core: &Core, outcome: Outcome, times: usize) {
    (0..times).for_each(|_| call(core, outcome));
}

fn publisher(instances: &[&MeteredInstance]) -> Publisher {
    let mut publisher = Publisher::default();
    for instance in instances {
        publisher.enter(instance.source.clone());
    }
    publisher
}

fn transition(own: bool) -> Transition {
    Transition {
        breaker: "orders".into(),
        epoch: 7,
        at: std::time::SystemTime::UNIX_EPOCH,
        cursor: None,
        from: State::HalfOpen,
        to: State::Open,
        reason: String::new(),
        actor: String::new(),
        originator: String::new(),
        own,
        successes: 0,
        failures: 1,
        open_for: None,
    }
}

#[test]
fn failure_rate_of_a_window_is_published_and_set_back() {
    let here = MeteredInstance::new();
    let config = BreakerConfig::default().failure_rate_threshold(0.9).minimum_calls(100);
    let make = |name, _| Core::new(name, &config, None, &here.source.context);
    let [orders, users] =
        ["orders", "users"].map(|name| here.source.breakers.entry(name).insert(BreakerKind::Pinned, make));
    here.kept("no window");
    for core in [&orders, &users] {
        calls(core, Outcome::Failure, 1);
        calls(core, Outcome::Success, 3);
    }
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    let of_orders = "circuit_breaker_failure_rate breaker=orders namespace=test";
    recorded.round(&mut publisher);
    assert_eq!(recorded.gauge(of_orders), Some(0.25));
    assert_eq!(recorded.gauge("circuit_breaker_failure_rate breaker=no window namespace=test"), None);
    let of_users = "circuit_breaker_failure_rate breaker=users namespace=test";
    assert_eq!(recorded.gauge(of_users), Some(0.25));
    // A reload takes its window away.
    let without = BreakerConfig::default().resolve().unwrap();
    users.configure(without, &PerFunction::default());
    recorded.round(&mut publisher);
    assert_eq!((recorded.gauge(of_orders), recorded.gauge(of_users)), (Some(0.25), Some(0.0)));
    publisher.leave(&(here.source.clone() as Arc<dyn MetricSource>));
    recorded.round(&mut publisher);
    assert_eq!(recorded.gauge(of_orders), Some(0.0));
}

#[test]
fn every_outcome_is_counted_once() {
    let here = MeteredInstance::new();
    let orders = here.kept("orders");
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    calls(&orders, Outcome::Success, 5);
    calls(&orders, Outcome::Ignored, 4);
    recorded.round(&mut publisher);
    recorded.round(&mut publisher);
    calls(&orders, Outcome::Success, 1);
    calls(&orders, Outcome::Failure, 3);
    calls(&orders, Outcome::Success, 2);
    recorded.round(&mut publisher);
    recorded.round(&mut publisher);
    let of = |outcome| format!("circuit_breaker_calls_total breaker=orders namespace=test outcome={outcome}");
    let expected = [
        ("success", 6),
        ("failure", 3),
        ("ignored", 4),
        ("cancelled", 0),
        ("late", 0),
        ("rejected", 2),
        ("ramp_rejected", 0),
    ];
    for (outcome, count) in expected {
        assert_eq!(recorded.counters[&of(outcome)], count, "{outcome}");
    }
    assert_eq!(recorded.counters["circuit_breaker_slow_calls_total breaker=orders namespace=test"], 0);
}

#[test]
fn calls_of_many_threads_are_counted_once_while_they_are_published() {
    let here = MeteredInstance::new();
    let orders = here.kept("orders");
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| calls(&orders, Outcome::Success, 50_000))).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            recorded.round(&mut publisher);
        }
    });
    recorded.round(&mut publisher);
    assert_eq!(recorded.calls("orders", "success"), 200_000);
}

#[test]
fn gauge_of_the_previous_state_is_reset() {
    let here = MeteredInstance::new();
    let orders = here.kept("orders");
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    recorded.round(&mut publisher);
    assert_eq!(recorded.states("orders"), [("closed", 1.0)]);
    calls(&orders, Outcome::Failure, 3);
    recorded.round(&mut publisher);
    assert_eq!(recorded.states("orders"), [("open", 1.0)]);
    here.exchange();
    recorded.round(&mut publisher);
    assert_eq!(recorded.gauge("circuit_breaker_epoch breaker=orders namespace=test"), Some(1.0));
}

#[test]
fn late_recorder_receives_later_rounds() {
    let here = MeteredInstance::new();
    let orders = here.kept("orders");
    let mut publisher = publisher(&[&here]);
    calls(&orders, Outcome::Success, 5);
    publisher.round();
    calls(&orders, Outcome::Success, 2);
    calls(&orders, Outcome::Failure, 3);
    let mut recorded = Recorded::new();
    recorded.round(&mut publisher);
    assert_eq!(recorded.calls("orders", "success"), 2);
    assert_eq!(recorded.states("orders"), [("open", 1.0)]);
    assert_eq!(recorded.units["circuit_breaker_calls_total"], Some(metrics::Unit::Count));
}

#[test]
fn unchanged_breaker_is_published_again_after_some_rounds() {
    let here = MeteredInstance::new();
    let _orders = here.kept("orders");
    let users = here.kept("users");
    let mut publisher = publisher(&[&here]);
    publisher.round();
    let mut recorded = Recorded::new();
    let of_orders = |recorded: &Recorded| recorded.keys().filter(|key| key.contains("orders")).count();
    for _ in 1..REPEAT {
        calls(&users, Outcome::Success, 1);
        recorded.round(&mut publisher);
        assert_eq!(of_orders(&recorded), 0, "nothing has changed");
    }
    assert_eq!(recorded.calls("users", "success"), u64::from(REPEAT - 1));
    recorded.round(&mut publisher);
    assert_eq!(recorded.states("orders"), [("closed", 1.0)]);
    assert_eq!((recorded.calls("orders", "success"), recorded.calls("orders", "failure")), (0, 0));
    // And again.
    let mut recorded = Recorded::new();
    (0..REPEAT).for_each(|_| recorded.round(&mut publisher));
    assert_eq!(recorded.states("orders"), [("closed", 1.0)]);
}

#[test]
fn keyed_breakers_are_aggregated_by_pattern() {
    let here = MeteredInstance::new();
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    for name in ["tenant-1", "tenant-2", "tenant-3"] {
        calls(&here.keyed(name), Outcome::Success, 2);
    }
    calls(&here.keyed("tenant-3"), Outcome::Failure, 3);
    here.emit(Event::WouldHaveOpened { breaker: "tenant-2".into(), reason: String::new() });
    recorded.round(&mut publisher);
    assert_eq!(recorded.states("tenant-{id}"), [("closed", 2.0), ("open", 1.0)]);
    assert_eq!(recorded.calls("tenant-{id}", "success"), 6);
    assert_eq!(
        recorded.counters["circuit_breaker_would_have_opened_total breaker=tenant-{id} namespace=test"],
        1
    );
    assert!(!recorded.keys().any(|key| key.contains("tenant-1") || key.contains("circuit_breaker_epoch")));
    // A look-up by name pins the breaker, which from now on has its own labels.
    calls(&here.kept("tenant-1"), Outcome::Success, 1);
    recorded.round(&mut publisher);
    assert_eq!((recorded.calls("tenant-{id}", "success"), recorded.calls("tenant-1", "success")), (6, 1));
    assert_eq!(recorded.states("tenant-{id}"), [("closed", 1.0), ("open", 1.0)]);
    assert_eq!(recorded.states("tenant-1"), [("closed", 1.0)]);
}

#[test]
fn eviction_loses_no_counts() {
    let here = MeteredInstance::new();
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    calls(&here.keyed("tenant-1"), Outcome::Success, 2);
    recorded.round(&mut publisher);
    calls(&here.keyed("tenant-1"), Outcome::Success, 3);
    calls(&here.keyed("tenant-2"), Outcome::Success, 4);
    let (breaker, age) = ("tenant-2".into(), Duration::from_secs(4));
    here.emit(Event::CacheHit { breaker, tier: CacheTier::Local, age });
    here.exchange();
    here.sweep();
    assert!(here.source.breakers.all().is_empty(), "both are idle and told");
    recorded.round(&mut publisher);
    assert_eq!(recorded.calls("tenant-{id}", "success"), 9);
    let hits = "circuit_breaker_cache_hits_total breaker=tenant-{id} namespace=test tier=local";
    assert_eq!(recorded.counters[hits], 1);
    assert_eq!(recorded.states("tenant-{id}"), [], "nobody is in any state");
    // Recreated breakers start from zero.
    calls(&here.keyed("tenant-1"), Outcome::Success, 1);
    recorded.round(&mut publisher);
    recorded.round(&mut publisher);
    assert_eq!(recorded.calls("tenant-{id}", "success"), 10);
    assert_eq!(recorded.states("tenant-{id}"), [("closed", 1.0)]);
}

#[test]
fn ended_registry_is_published_completely() {
    let (here, there) = (MeteredInstance::new(), MeteredInstance::new());
    let mut publisher = publisher(&[&here, &there]);
    let mut recorded = Recorded::new();
    for (instance, times) in [(&here, 2), (&there, 5)] {
        calls(&instance.kept("orders"), Outcome::Success, times);
    }
    calls(&here.kept("users"), Outcome::Failure, 3);
    here.exchange();
    here.source.context.set_store_up(false);
    recorded.round(&mut publisher);
    assert_eq!(recorded.states("orders"), [("closed", 2.0)], "one in each of two registries");
    assert_eq!(recorded.gauge("circuit_breaker_store_degraded namespace=test"), Some(1.0));
    assert_eq!(recorded.gauge("circuit_breaker_epoch breaker=users namespace=test"), Some(1.0));

    calls(&here.kept("orders"), Outcome::Success, 1);
    publisher.leave(&(here.source.clone() as Arc<dyn MetricSource>));
    recorded.round(&mut publisher);
    assert_eq!(recorded.calls("orders", "success"), 8);
    assert_eq!(recorded.states("orders"), [("closed", 1.0)]);
    assert_eq!(recorded.states("users"), []);
    assert_eq!(recorded.gauge("circuit_breaker_epoch breaker=users namespace=test"), Some(0.0));
    assert_eq!(recorded.gauge("circuit_breaker_store_degraded namespace=test"), Some(0.0));

    there.source.context.set_store_up(false);
    recorded.round(&mut publisher);
    publisher.leave(&(there.source.clone() as Arc<dyn MetricSource>));
    recorded.round(&mut publisher);
    assert_eq!(recorded.states("orders"), []);
    assert_eq!(recorded.gauge("circuit_breaker_store_degraded namespace=test"), Some(0.0));
    let weak = Arc::downgrade(&here.source);
    drop(here);
    assert!(weak.upgrade().is_none(), "nothing of it is kept");
}

#[test]
fn events_are_counted_by_kind() {
    let here = MeteredInstance::new();
    let _orders = here.kept("orders");
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    here.emit(Event::Transition(transition(true).into()));
    here.emit(Event::Transition(transition(false).into()));
    here.emit(Event::Transition(transition(false).into()));
    here.emit(Event::LocalTransition(transition(true).into()));
    let of_another = Transition { breaker: "not registered here".into(), ..transition(false) };
    here.emit(Event::Transition(of_another.into()));
    for seconds in [1, 2, 2] {
        let (breaker, age) = ("orders".into(), Duration::from_secs(seconds));
        here.emit(Event::CacheHit { breaker, tier: CacheTier::Shared, age });
    }
    for result in [Ok(()), Err("down".to_owned())] {
        let (breaker, took) = ("orders".into(), Duration::from_millis(50));
        here.emit(Event::HealthCheck { breaker, result, took });
    }
    here.source.context.events.meter.arrived(Duration::from_millis(3));
    recorded.round(&mut publisher);
    recorded.round(&mut publisher);

    let transitions = |breaker, by| {
        let key = format!(
            "circuit_breaker_transitions_total breaker={breaker} by={by} from=half-open namespace=test to=open"
        );
        recorded.counters[&key]
    };
    assert_eq!(transitions("orders", "this"), 1);
    assert_eq!(transitions("orders", "another"), 2);
    assert_eq!(transitions("orders", "alone"), 1);
    assert_eq!(transitions("(others)", "another"), 1);
    let shared = "breaker=orders namespace=test tier=shared";
    assert_eq!(recorded.counters[&format!("circuit_breaker_cache_hits_total {shared}")], 3);
    recorded.assert_spans(&format!("circuit_breaker_cache_age_seconds {shared}"), &[1.0, 2.0, 2.0]);
    for result in ["passed", "failed"] {
        let labels = format!("breaker=orders namespace=test result={result}");
        assert_eq!(recorded.counters[&format!("circuit_breaker_health_checks_total {labels}")], 1);
        recorded.assert_spans(&format!("circuit_breaker_health_check_seconds {labels}"), &[0.05]);
    }
    recorded.assert_spans("circuit_breaker_propagation_seconds namespace=test", &[0.003]);
    assert_eq!(recorded.units["circuit_breaker_propagation_seconds"], Some(metrics::Unit::Seconds));
    assert!(!recorded.keys().any(|key| key.contains("_state breaker=(others)")), "nothing is known of it");
}

#[test]
fn panicking_recorder_loses_only_that_value() {
    let here = MeteredInstance::new();
    calls(&here.kept("orders"), Outcome::Success, 2);
    calls(&here.kept("users"), Outcome::Success, 3);
    let mut publisher = publisher(&[&here]);
    let mut recorded = Recorded::new();
    recorded.panics_at("orders");
    recorded.round(&mut publisher);
    assert_eq!(recorded.calls("users", "success"), 3);
    assert!(!recorded.keys().any(|key| key.contains("orders")));
    recorded.panics_at("no more");
    calls(&here.kept("orders"), Outcome::Success, 4);
    recorded.round(&mut publisher);
    assert_eq!(recorded.calls("orders", "success"), 4);
}
