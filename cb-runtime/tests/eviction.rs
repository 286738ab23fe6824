//! Keyed breakers: their limit, and which of them are evicted.

mod common;

use std::sync::Arc;
use std::time::Duration;

use cb_runtime::clock::{Clock, ManualClock};
use cb_runtime::{BreakerConfig, Event, Events, Registry, RegistryBuilder, State, circuit_breaker};
use cb_testkit::{PATIENCE, RedisServer, wait_until};
use common::Broken;
use tokio::sync::Notify;

#[derive(Clone)]
enum Act {
    Succeed,
    Fail,
    Hold(Arc<Notify>),
}

#[circuit_breaker(name = "tenant-{id}", registry = registry, failure_threshold = 3, reset_timeout = "1h")]
async fn call(registry: &Registry, id: usize, act: Act) -> Result<(), Broken> {
    match act {
        Act::Succeed => Ok(()),
        Act::Fail => Err(Broken::Down),
        Act::Hold(end) => {
            end.notified().await;
            Ok(())
        }
    }
}

async fn succeed(registry: &Registry, ids: impl IntoIterator<Item = usize>) {
    for id in ids {
        call(registry, id, Act::Succeed).await.unwrap();
    }
}

async fn open(registry: &Registry, id: usize) {
    for _ in 0..3 {
        assert_eq!(call(registry, id, Act::Fail).await, Err(Broken::Down));
    }
    assert_eq!(call(registry, id, Act::Succeed).await, Err(Broken::Open));
}

fn registry_with_limit(max_breakers: usize) -> (Registry, ManualClock) {
    let (clock, time) = Clock::manual();
    (Registry::builder().max_breakers(max_breakers).clock(clock).build().unwrap(), time)
}

/// Lets a second pass, so that unused breakers are evicted, and reports all counts to the store.
async fn settle(registry: &Registry, time: &ManualClock) {
    time.advance(Duration::from_secs(1));
    registry.fleet().await.unwrap();
}

fn names(registry: &Registry) -> Vec<String> {
    registry.breakers().iter().map(|breaker| breaker.name().to_owned()).collect()
}

fn has(registry: &Registry, id: usize) -> bool {
    names(registry).contains(&format!("tenant-{id}"))
}

fn unguarded(events: &mut Events) -> Vec<String> {
    let error = |event| if let Event::Error(error) = event { Some(error.to_string()) } else { None };
    let errors = std::iter::from_fn(|| events.try_recv()).filter_map(error);
    errors.filter(|error| error.contains("calls are not guarded")).collect()
}

#[tokio::test]
async fn least_recently_used_breakers_are_evicted_first() {
    let (registry, time) = registry_with_limit(16);
    succeed(&registry, 0..14).await;
    for _ in 0..3 {
        settle(&registry, &time).await;
    }
    assert_eq!(names(&registry).len(), 14, "an eighth of the limit is free");
    succeed(&registry, [0, 1]).await;
    settle(&registry, &time).await;
    succeed(&registry, [14, 15]).await;
    settle(&registry, &time).await;
    assert_eq!(names(&registry).len(), 12, "a quarter of the limit is free");
    for id in [0, 1, 14, 15] {
        assert!(has(&registry, id), "tenant-{id} was used last: {:?}", names(&registry));
    }
}

#[tokio::test]
async fn more_names_than_the_limit_are_guarded_and_reported_in_turn() {
    let (registry, time) = registry_with_limit(16);
    let mut events = registry.subscribe();
    for first in (0..1000).step_by(4) {
        succeed(&registry, first..first + 4).await;
        settle(&registry, &time).await;
        assert!(names(&registry).len() <= 16);
    }
    assert_eq!(unguarded(&mut events), [""; 0]);
    let fleet = registry.fleet().await.unwrap();
    assert_eq!(fleet.len(), 1000);
    assert!(fleet.iter().all(|breaker| breaker.successes == 1), "{fleet:?}");
}

#[tokio::test]
async fn idle_health_checks_do_not_prevent_eviction() {
    #[circuit_breaker(
        name = "checked-{id}", registry = registry, health_check = async || true, idle_health_check_interval = "1m"
    )]
    async fn checked(registry: &Registry, id: usize) -> Result<(), Broken> {
        let _ = id;
        Ok(())
    }
    let (registry, time) = registry_with_limit(16);
    let mut events = registry.subscribe();
    for first in (0..100).step_by(4) {
        for id in first..first + 4 {
            checked(&registry, id).await.unwrap();
        }
        for _ in 0..3 {
            settle(&registry, &time).await;
        }
        assert!(names(&registry).len() <= 16);
    }
    assert_eq!(unguarded(&mut events), [""; 0]);
}

#[tokio::test]
async fn unreported_counts_prevent_eviction() {
    let (registry, time) = registry_with_limit(16);
    succeed(&registry, 0..14).await;
    settle(&registry, &time).await;
    succeed(&registry, 0..16).await;
    settle(&registry, &time).await;
    let fleet = registry.fleet().await.unwrap();
    let counted: u64 = fleet.iter().map(|breaker| breaker.successes).sum();
    assert_eq!(counted, 14 + 16, "{fleet:?}");
}

#[tokio::test]
async fn called_referenced_overridden_and_pinned_breakers_are_not_evicted() {
    static FIXED: &str = "fixed";
    #[circuit_breaker(name = FIXED, registry = registry)]
    async fn fixed(registry: &Registry) -> Result<(), Broken> {
        Ok(())
    }
    let (registry, time) = registry_with_limit(16);
    fixed(&registry).await.unwrap();
    open(&registry, 1).await;
    succeed(&registry, [2, 3, 4, 5]).await;
    let handle = registry.breaker("tenant-2").unwrap();
    registry.breaker("tenant-3").unwrap().force_open("maintenance").await.unwrap();
    registry.get_or_create("tenant-4", BreakerConfig::default().failure_threshold(3));
    let end = Arc::new(Notify::new());
    let mut running = Box::pin(call(&registry, 6, Act::Hold(end.clone())));
    assert!(poll(&mut running).is_pending());
    for first in (100..300).step_by(4) {
        succeed(&registry, first..first + 4).await;
        settle(&registry, &time).await;
    }
    for id in [1, 2, 3, 4, 6] {
        assert!(has(&registry, id), "tenant-{id}: {:?}", names(&registry));
    }
    assert!(!has(&registry, 5) && !has(&registry, 100));
    assert!(names(&registry).contains(&FIXED.to_owned()));
    assert_eq!(call(&registry, 1, Act::Succeed).await, Err(Broken::Open));
    assert_eq!(call(&registry, 3, Act::Succeed).await, Err(Broken::Open));
    succeed(&registry, [2]).await;
    assert_eq!(handle.snapshot().outcomes.success, 2, "the handle and the calls use one breaker");
    end.notify_one();
    running.await.unwrap();
    assert_eq!(registry.breaker("tenant-6").unwrap().snapshot().successes, 1);
}

fn poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn breaker_idle_for_ten_minutes_is_evicted_below_the_limit() {
    let (registry, time) = registry_with_limit(16);
    open(&registry, 1).await;
    succeed(&registry, [2, 3]).await;
    time.advance(Duration::from_secs(500));
    settle(&registry, &time).await;
    succeed(&registry, [3]).await;
    settle(&registry, &time).await;
    time.advance(Duration::from_secs(110));
    settle(&registry, &time).await;
    assert_eq!(names(&registry), ["tenant-3"]);
    assert_eq!(call(&registry, 1, Act::Succeed).await, Err(Broken::Open), "its state is known all the same");
}

/// A crowd of tenants opens and is never called again: their states use up no places.
async fn open_circuits_leave_room(registry: &Registry, pass: impl AsyncFn()) {
    let mut events = registry.subscribe();
    for id in 0..200 {
        open(registry, id).await;
    }
    registry.fleet().await.unwrap();
    pass().await;
    for first in (200..400).step_by(20) {
        for id in first..first + 20 {
            open(registry, id).await;
        }
        registry.fleet().await.unwrap();
        pass().await;
    }
    assert_eq!(unguarded(&mut events), [""; 0]);
    assert!(names(registry).len() <= 200, "{}", names(registry).len());
    for id in [0, 150, 399] {
        assert_eq!(call(registry, id, Act::Succeed).await, Err(Broken::Open), "tenant-{id}");
    }
    let fleet = registry.fleet().await.unwrap();
    assert!(fleet.len() == 400 && fleet.iter().all(|breaker| breaker.state == State::Open));
    registry.control("tenant-0").reset().await.unwrap();
    assert_eq!(call(registry, 0, Act::Succeed).await, Ok(()));
}

#[tokio::test]
async fn uncalled_open_breakers_are_evicted_for_new_names() {
    let (registry, time) = registry_with_limit(200);
    open_circuits_leave_room(&registry, async || {
        time.advance(Duration::from_secs(11));
        settle(&registry, &time).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uncalled_open_breakers_are_evicted_for_new_names_on_redis() {
    let redis = RedisServer::start();
    let (clock, time) = Clock::manual();
    let patient = on(&redis).response_timeout(Duration::from_secs(2));
    let registry = patient.max_breakers(200).clock(clock).build().unwrap();
    open_circuits_leave_room(&registry, async || {
        time.advance(Duration::from_secs(11));
        for _ in 0..3 {
            registry.fleet().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn called_open_breakers_are_not_evicted() {
    let (registry, time) = registry_with_limit(16);
    for id in 0..16 {
        open(&registry, id).await;
    }
    for _ in 0..20 {
        settle(&registry, &time).await;
        for id in 0..16 {
            assert_eq!(call(&registry, id, Act::Succeed).await, Err(Broken::Open));
        }
    }
    assert_eq!(names(&registry).len(), 16);
    assert_eq!(
        registry.breaker("tenant-1").unwrap().snapshot().outcomes.rejected,
        21,
        "it is the one it was"
    );
}

#[tokio::test]
async fn call_beyond_the_limit_is_unguarded_and_reported_once_a_minute() {
    #[circuit_breaker(
        name = "full-{id}",
        registry = registry,
        failure_threshold = 1,
        call_timeout = "10ms",
        cache_ttl = "1h",
        cache_key = 0,
    )]
    async fn call(registry: &Registry, id: usize, act: Act) -> Result<usize, Broken> {
        match act {
            Act::Succeed => Ok(id),
            Act::Fail => Err(Broken::Down),
            Act::Hold(end) => {
                end.notified().await;
                Ok(id)
            }
        }
    }
    let (registry, time) = registry_with_limit(2);
    let mut events = registry.subscribe();
    for id in [1, 2] {
        assert_eq!(call(&registry, id, Act::Fail).await, Err(Broken::Down));
        assert_eq!(call(&registry, id, Act::Fail).await, Err(Broken::Open));
    }
    // Handles refer to both: neither is evicted, however long nobody calls it.
    let referenced = ["full-1", "full-2"].map(|name| registry.breaker(name).unwrap());
    settle(&registry, &time).await;
    for _ in 0..50 {
        assert_eq!(call(&registry, 3, Act::Fail).await, Err(Broken::Down), "the call is not guarded");
    }
    let reported = unguarded(&mut events);
    assert!(
        matches!(&reported[..], [one] if one.contains("\"full-3\"") && one.contains("max_breakers")),
        "{reported:?}"
    );
    assert_eq!(names(&registry), ["full-1", "full-2"]);

    // Its timeout and its cache still apply.
    let never = Arc::new(Notify::new());
    assert_eq!(call(&registry, 3, Act::Hold(never)).await, Err(Broken::TimedOut));
    assert_eq!(call(&registry, 3, Act::Succeed).await, Ok(3));
    assert_eq!(call(&registry, 4, Act::Fail).await, Err(Broken::Down));
    assert_eq!(call(&registry, 3, Act::Fail).await, Ok(3));
    assert_eq!(unguarded(&mut events), [""; 0]);

    time.advance(Duration::from_secs(60));
    assert_eq!(call(&registry, 4, Act::Fail).await, Err(Broken::Down));
    assert_eq!(unguarded(&mut events).len(), 1);

    // Once there is room, calls are guarded again.
    referenced[0].reset().await.unwrap();
    drop(referenced);
    settle(&registry, &time).await;
    settle(&registry, &time).await;
    assert_eq!(call(&registry, 5, Act::Fail).await, Err(Broken::Down));
    assert_eq!(call(&registry, 5, Act::Fail).await, Err(Broken::Open));
}

#[test]
fn limit_of_zero_breakers_is_an_error() {
    let error = Registry::builder().max_breakers(0).build().unwrap_err();
    assert_eq!((error.is_config(), error.field()), (true, Some("max_breakers")));
}

/// The limit of [`on`].
const FEW: usize = 4;

fn on(redis: &RedisServer) -> RegistryBuilder {
    Registry::builder().redis(redis.url()).max_breakers(FEW)
}

/// Makes calls under other names until that breaker is evicted and a place is free: the last other one may
/// have taken that of the evicted one.
async fn force_eviction(registry: &Registry, id: usize) {
    let mut other = 1000;
    let start = std::time::Instant::now();
    while has(registry, id) {
        assert!(start.elapsed() < PATIENCE, "tenant-{id} is not evicted: {:?}", names(registry));
        other += 1;
        succeed(registry, [other]).await;
        registry.fleet().await.unwrap();
    }
    wait_until(PATIENCE, "a place is free", || names(registry).len() < FEW);
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_breaker_has_the_stores_counts() {
    let redis = RedisServer::start();
    let registry = on(&redis).build().unwrap();
    for _ in 0..2 {
        assert_eq!(call(&registry, 1, Act::Fail).await, Err(Broken::Down));
    }
    force_eviction(&registry, 1).await;
    assert_eq!(call(&registry, 1, Act::Fail).await, Err(Broken::Down));
    let opens = || registry.breaker("tenant-1").unwrap().state() == State::Open;
    wait_until(PATIENCE, "the third consecutive failure trips", opens);
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_breaker_is_open_from_its_first_call() {
    let redis = RedisServer::start();
    let [a, b] = [(); 2].map(|()| on(&redis).build().unwrap());
    succeed(&a, [1]).await;
    force_eviction(&a, 1).await;
    let mut events = a.subscribe();
    open(&b, 1).await;
    let transition = async {
        loop {
            match events.recv().await {
                Some(Event::Transition(change)) if &*change.breaker == "tenant-1" => return,
                Some(_) => {}
                None => panic!("the registry has ended"),
            }
        }
    };
    common::bounded(transition).await;
    // Even at the limit of breakers.
    for id in 10..14 {
        succeed(&a, [id]).await;
    }
    assert_eq!(call(&a, 1, Act::Succeed).await, Err(Broken::Open));
}

#[tokio::test(flavor = "multi_thread")]
async fn breakers_are_not_evicted_during_a_store_outage() {
    let redis = RedisServer::start();
    redis.stop();
    let registry = on(&redis).build().unwrap();
    let mut events = registry.subscribe();
    for id in 0..20 {
        assert_eq!(call(&registry, id, Act::Fail).await, Err(Broken::Down));
    }
    let guarded = names(&registry);
    assert_eq!(guarded.len(), 4);
    assert_eq!(unguarded(&mut events).len(), 1);
    redis.restart();
    let reported = async || {
        let fleet = registry.fleet().await.unwrap_or_default();
        let failed: Vec<_> = fleet.into_iter().filter(|row| row.failures == 1).map(|row| row.name).collect();
        failed == guarded
    };
    let all_reported = async {
        while !reported().await {
            tokio::task::yield_now().await;
        }
    };
    common::bounded(all_reported).await;
    wait_until(PATIENCE, "breakers are evicted", || names(&registry).len() < 4);
    open(&registry, 50).await;
}
