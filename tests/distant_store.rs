//! A Redis in another region: round trips of almost half a second.

mod common;

use std::time::Duration;

use cb_runtime::{BreakerConfig, Event, Registry, State};
use cb_testkit::{Proxy, RedisServer, wait_until};

use common::PATIENCE;

const ROUND_TRIP: Duration = Duration::from_millis(450);
/// Three round trips, as documented, and half a second for a busy machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1900);

fn instance(url: &str) -> Registry {
    let registry = Registry::builder().redis(url).response_timeout(RESPONSE_TIMEOUT).build();
    let registry = registry.expect("a valid address");
    wait_until(PATIENCE, "the store has answered", || registry.store_status().is_up());
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_shares_over_long_round_trips_with_a_longer_response_timeout() {
    let redis = RedisServer::start();
    let proxies = [Proxy::start(redis.port()), Proxy::start(redis.port())];
    for proxy in &proxies {
        proxy.slow(ROUND_TRIP);
    }
    let registries = proxies.each_ref().map(|proxy| instance(&proxy.url()));
    let mut events = registries.each_ref().map(Registry::subscribe);
    let config = BreakerConfig::default().failure_threshold(2).success_threshold(1);
    let config = config.reset_timeout(Duration::from_secs(2));
    let [here, there] =
        registries.each_ref().map(|registry| registry.get_or_create("orders", config.clone()));
    for _ in 0..2 {
        here.call(async || Err::<(), _>("fails")).await.unwrap_err();
    }
    let is_shared = |state| {
        move |breaker: &cb_runtime::Breaker| {
            let snapshot = breaker.snapshot();
            snapshot.state == state && !snapshot.local
        }
    };
    for breaker in [&here, &there] {
        wait_until(PATIENCE, "the opening is shared", || is_shared(State::Open)(breaker));
    }
    let start = std::time::Instant::now();
    while there.call(async || Ok::<_, ()>(())).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the other instance is granted a probe");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for breaker in [&here, &there] {
        wait_until(PATIENCE, "the recovery is shared", || is_shared(State::Closed)(breaker));
    }
    assert_eq!(here.snapshot().epoch, there.snapshot().epoch);
    for events in &mut events {
        while let Some(event) = events.try_recv() {
            assert!(!matches!(event, Event::StoreLost(_) | Event::LocalTransition(_)), "{event:?}");
        }
    }
}
