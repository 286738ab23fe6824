//! Settings that cannot be checked while compiling: an invalid one is left out, the others stay in force.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cb_runtime::{Registry, circuit_breaker};
use cb_testkit::wait_until;
use common::Broken;

type Reports = Arc<Mutex<Vec<String>>>;

fn registry() -> (Registry, Reports) {
    let reports = Reports::default();
    let log = reports.clone();
    let registry = Registry::builder().on_error(move |error| log.lock().unwrap().push(error.to_string()));
    (registry.build().unwrap(), reports)
}

async fn hang() -> Result<(), Broken> {
    std::future::pending().await
}

const MORE_THAN_THE_WINDOW: u32 = 200;

#[circuit_breaker(
    name = "contradictory",
    registry = registry,
    failure_threshold = 1,
    failure_rate_threshold = 0.5,
    window_calls = 100,
    minimum_calls = MORE_THAN_THE_WINDOW,
    call_timeout = "1s"
)]
async fn contradictory(registry: &Registry) -> Result<(), Broken> {
    hang().await
}

#[circuit_breaker(
    name = "contradictory-{id}",
    registry = registry,
    failure_threshold = 1,
    failure_rate_threshold = 0.5,
    window_calls = 100,
    minimum_calls = MORE_THAN_THE_WINDOW,
    call_timeout = "1s"
)]
async fn contradictory_keyed(registry: &Registry, id: u8) -> Result<(), Broken> {
    hang().await
}

#[tokio::test(start_paused = true)]
async fn an_invalid_setting_leaves_the_others_of_the_attribute_in_force() {
    let (registry, reports) = registry();
    assert_eq!(contradictory(&registry).await, Err(Broken::TimedOut));
    assert_eq!(contradictory(&registry).await, Err(Broken::Open));
    wait_until(Duration::from_secs(60), "the report", || !reports.lock().unwrap().is_empty());
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].starts_with("minimum_calls: "), "{reports:?}");
}

#[tokio::test(start_paused = true)]
async fn an_invalid_setting_leaves_the_others_in_force_under_a_name_of_arguments() {
    let (registry, reports) = registry();
    assert_eq!(contradictory_keyed(&registry, 1).await, Err(Broken::TimedOut));
    assert_eq!(contradictory_keyed(&registry, 1).await, Err(Broken::Open));
    assert_eq!(contradictory_keyed(&registry, 2).await, Err(Broken::TimedOut));
    wait_until(Duration::from_secs(60), "the report", || !reports.lock().unwrap().is_empty());
    assert_eq!(reports.lock().unwrap().len(), 1, "{reports:?}");
}

#[circuit_breaker(name = "shared", registry = registry, failure_threshold = 2)]
async fn first(registry: &Registry) -> Result<(), Broken> {
    Ok(())
}

#[circuit_breaker(name = "shared", registry = registry, failure_threshold = 7)]
async fn second(registry: &Registry) -> Result<(), Broken> {
    Ok(())
}

#[tokio::test]
async fn two_attributes_that_differ_are_reported_with_both_places() {
    let (registry, reports) = registry();
    first(&registry).await.unwrap();
    second(&registry).await.unwrap();
    wait_until(Duration::from_secs(60), "the report", || !reports.lock().unwrap().is_empty());
    let reports = reports.lock().unwrap();
    assert_eq!(reports[0].matches("attribute_settings.rs:").count(), 2, "{reports:?}");
    assert!(reports[0].ends_with("stay in force: failure_threshold is 2 and not 7"), "{reports:?}");
}
