//! A Redis that is slow, or has too little of a processor, is not one that is lost.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cb_runtime::{Breaker, BreakerConfig, Event, Events, Registry, State};
use cb_testkit::{Proxy, RedisServer, wait_until};

use common::PATIENCE;

/// The longest one, so that a busy machine is not taken for a lost store.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

struct Instance {
    registry: Registry,
    events: Events,
    breaker: Breaker,
}

impl Instance {
    fn start(url: &str) -> Instance {
        let registry = Registry::builder().redis(url).response_timeout(RESPONSE_TIMEOUT).build();
        let registry = registry.expect("a valid address");
        wait_until(PATIENCE, "the store has answered", || registry.store_status().is_up());
        let config = BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_secs(3600));
        Instance { events: registry.subscribe(), breaker: registry.get_or_create("orders", config), registry }
    }

    fn is_shared(&self, state: State) -> bool {
        let snapshot = self.breaker.snapshot();
        snapshot.state == state && !snapshot.local
    }

    fn assert_never_alone(&mut self) {
        while let Some(event) = self.events.try_recv() {
            let is_alone = matches!(event, Event::StoreLost(_) | Event::LocalTransition(_));
            assert!(!is_alone, "{event:?}");
        }
    }
}

/// One instance trips, all are open; one resets, all are closed.
async fn assert_transitions_reach_all(instances: &[Instance]) {
    instances[0].breaker.call(async || Err::<(), _>("fails")).await.unwrap_err();
    wait_until(PATIENCE, "all are open", || instances.iter().all(|one| one.is_shared(State::Open)));
    instances[0].breaker.reset().await.expect("the store takes the override");
    wait_until(PATIENCE, "all are closed", || instances.iter().all(|one| one.is_shared(State::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_becomes_slower_than_the_response_timeout_is_not_lost() {
    let redis = RedisServer::start();
    let proxies = [Proxy::start(redis.port()), Proxy::start(redis.port())];
    let mut instances = proxies.each_ref().map(|proxy| Instance::start(&proxy.url()));
    assert_transitions_reach_all(&instances).await;
    // At once, so that no instance knows of it before its next request.
    for proxy in &proxies {
        proxy.slow(RESPONSE_TIMEOUT + Duration::from_millis(200));
    }
    assert_transitions_reach_all(&instances).await;
    for proxy in &proxies {
        proxy.slow(Duration::ZERO);
    }
    assert_transitions_reach_all(&instances).await;
    for instance in &mut instances {
        instance.assert_never_alone();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_with_a_tenth_of_its_processor_is_not_lost() {
    const BREAKERS: usize = 20;
    let redis = RedisServer::start();
    let mut instances: Vec<Instance> = (0..10).map(|_| Instance::start(&redis.url())).collect();
    let config = BreakerConfig::default().failure_rate_threshold(0.9).window(Duration::from_secs(60));
    let busy: Vec<Breaker> = instances
        .iter()
        .flat_map(|one| {
            (0..BREAKERS).map(|number| one.registry.get_or_create(&format!("busy-{number}"), config.clone()))
        })
        .collect();
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                for (number, breaker) in busy.iter().enumerate() {
                    let result = if number % 2 == 0 { Ok(()) } else { Err("fails") };
                    let _ = breaker.call_blocking(|| result);
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        });
        scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                redis.freeze();
                std::thread::sleep(Duration::from_millis(18));
                redis.thaw();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let runtime = tokio::runtime::Handle::current();
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tokio::task::block_in_place(|| {
                runtime.block_on(async {
                    for _ in 0..3 {
                        assert_transitions_reach_all(&instances).await;
                    }
                });
            });
        }));
        goes_on.store(false, Ordering::Relaxed);
        held.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_transitions_reach_all(&instances).await;
    for instance in &mut instances {
        instance.assert_never_alone();
    }
}

/// A load of as many breakers takes dozens of requests, and longer than an instance waits for one answer.
#[tokio::test(flavor = "multi_thread")]
async fn instance_joins_a_fleet_with_thousands_of_open_circuits() {
    const BREAKERS: usize = 5000;
    let redis = RedisServer::start();
    let fleet = Registry::builder().redis(redis.url()).build().expect("a valid address");
    let config = BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_secs(3600));
    for number in 0..BREAKERS {
        let breaker = fleet.get_or_create(&format!("tenant-{number}"), config.clone());
        breaker.call(async || Err::<(), _>("fails")).await.unwrap_err();
    }
    let held = || redis.cli(&["ZCARD", "cb1:{default}:held"]);
    wait_until(PATIENCE, "all are open for the fleet", || held() == BREAKERS.to_string());
    let proxy = Proxy::start(redis.port());
    proxy.slow(Duration::from_millis(40));
    let response_timeout = Duration::from_millis(100);
    let new = Registry::builder().redis(proxy.url()).response_timeout(response_timeout).build();
    let new = new.expect("a valid address");
    wait_until(PATIENCE, "the new instance has joined", || new.store_status().is_up());
    for number in 0..BREAKERS {
        let breaker = new.breaker(&format!("tenant-{number}")).expect("it is open");
        assert_eq!(breaker.state(), State::Open);
    }
}
