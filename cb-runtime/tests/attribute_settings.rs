//! Attributes that give one name different settings.

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
