//! Settings that the compiler could not check: the invalid one is reported and left out, all others are in
//! force.

mod common;

use cb_runtime::{BreakerConfig, Event, Registry, circuit_breaker};
use common::Broken;

/// More calls than the window ever holds.
const TOO_MANY: u32 = 200;

#[circuit_breaker(
    name = "orders",
    registry = registry,
    failure_rate_threshold = 0.5,
    window_calls = 100,
    minimum_calls = TOO_MANY,
    half_open_max_calls = 7,
    call_timeout = "10ms",
)]
async fn call(registry: &Registry) -> Result<(), Broken> {
    std::future::pending().await
}

#[circuit_breaker(
    name = "tenant-{id}",
    registry = registry,
    failure_rate_threshold = 0.5,
    window_calls = 100,
    minimum_calls = TOO_MANY,
    half_open_max_calls = 7,
    call_timeout = "10ms",
)]
async fn keyed(registry: &Registry, id: u32) -> Result<(), Broken> {
    std::future::pending().await
}

#[tokio::test]
async fn invalid_argument_leaves_the_attributes_others_in_force() {
    let registry = Registry::builder().build().unwrap();
    let mut events = registry.subscribe();
    assert_eq!(call(&registry).await, Err(Broken::TimedOut));
    assert_eq!(keyed(&registry, 1).await, Err(Broken::TimedOut));
    for name in ["orders", "tenant-1"] {
        let settings = registry.breaker(name).unwrap().snapshot().settings;
        let value = |name| &*settings.iter().find(|setting| setting.name == name).unwrap().value;
        assert_eq!((value("window_calls"), value("half_open_max_calls")), ("100", "7"), "{name}");
        assert_eq!((value("minimum_calls"), value("failure_rate_threshold")), ("10", "0.5"), "{name}");
    }
    let mut reported = Vec::new();
    while let Some(event) = events.try_recv() {
        if let Event::Error(error) = event {
            assert_eq!(error.field(), Some("minimum_calls"), "{error}");
            reported.push(error.to_string());
        }
    }
    assert!(reported.len() >= 2 && reported[0].contains("window_calls = 100"), "{reported:?}");
}

#[tokio::test]
async fn invalid_argument_is_reported_once_in_each_registry() {
    for _ in 0..2 {
        let registry = Registry::builder().build().unwrap();
        let mut events = registry.subscribe();
        for _ in 0..3 {
            assert_eq!(call(&registry).await, Err(Broken::TimedOut));
        }
        let events = std::iter::from_fn(|| events.try_recv());
        assert_eq!(events.filter(|event| matches!(event, Event::Error(_))).count(), 1);
    }
}

#[test]
fn more_minimum_calls_than_the_window_holds_are_refused() {
    let config = BreakerConfig::default().failure_rate_threshold(0.5).window_calls(100).minimum_calls(200);
    assert_eq!(config.validate().unwrap_err().field(), Some("minimum_calls"));
    let registry = Registry::builder().build().unwrap();
    assert_eq!(registry.try_get_or_create("a", config).unwrap_err().field(), Some("minimum_calls"));
    let json = r#"{"window_calls": 100, "minimum_calls": 200}"#;
    let error = serde_json::from_str::<BreakerConfig>(json).unwrap_err().to_string();
    assert!(error.starts_with("minimum_calls: "), "{error}");
}

#[test]
fn error_of_a_value_of_another_type_names_the_field() {
    for (json, expected) in [
        (r#"{"failure_threshold": -1}"#, "failure_threshold: invalid value: integer `-1`"),
        (r#"{"failure_rate_threshold": "half"}"#, "failure_rate_threshold: invalid type: string"),
        (r#"{"window": "soon"}"#, "window: \"soon\" is not a span of time"),
        (r#"{"backoff": {"factr": 2}}"#, "backoff.factr: unknown field `factr`"),
        (r#"{"failure_treshold": 3}"#, "failure_treshold: unknown field `failure_treshold`"),
    ] {
        let error = serde_json::from_str::<BreakerConfig>(json).unwrap_err().to_string();
        assert!(error.starts_with(expected) && error.contains("at line 1"), "{json}: {error}");
    }
}
