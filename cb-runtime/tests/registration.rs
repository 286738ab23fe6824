//! Which registration decides a breaker's settings.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cb_runtime::{BreakerConfig, CacheLimits, Registry, RegistryConfig, State};
use cb_testkit::wait_until;

async fn fail(registry: &Registry, times: u32) {
    let breaker = registry.breaker("b").unwrap();
    for _ in 0..times {
        let _ = breaker.call(async || Err::<(), _>("no")).await;
    }
}

#[tokio::test]
async fn first_registration_with_settings_decides() {
    let registry = Registry::builder().build().unwrap();
    registry.get_or_create("b", BreakerConfig::default());
    registry.get_or_create("b", BreakerConfig::default().failure_threshold(2));
    fail(&registry, 2).await;
    assert_eq!(registry.breaker("b").unwrap().state(), State::Open);
}

#[tokio::test]
async fn conflicting_registration_is_reported_once_and_ignored() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let log = reported.clone();
    let on_error = move |error: &cb_runtime::Error| log.lock().unwrap().push(error.to_string());
    let registry = Registry::builder().on_error(on_error).build().unwrap();
    registry.get_or_create("b", BreakerConfig::default().failure_threshold(2));
    registry.get_or_create("b", BreakerConfig::default().failure_threshold(2));
    let other = BreakerConfig::default().failure_threshold(7).reset_timeout(Duration::from_secs(5));
    registry.get_or_create("b", other);
    registry.get_or_create("b", BreakerConfig::default().failure_threshold(8));
    fail(&registry, 2).await;
    assert_eq!(registry.breaker("b").unwrap().state(), State::Open);
    wait_until(Duration::from_secs(60), "the report", || !reported.lock().unwrap().is_empty());
    let reported = reported.lock().unwrap();
    assert_eq!(reported.len(), 1, "{reported:?}");
    // The line and the column of both places are left out.
    let parts: Vec<_> = reported[0].split("registration.rs:").collect();
    let [again, first, rest] = parts[..] else { panic!("{reported:?}") };
    assert!(again.starts_with("breaker \"b\": registered again with other settings at "), "{again}");
    assert!(first.contains("; the first ones, from "), "{first}");
    let differences = "stay in force: failure_threshold is 2 and not 7, reset_timeout is 30s and not 5s";
    assert!(rest.ends_with(differences), "{rest}");
}

#[tokio::test]
async fn configure_takes_precedence_over_registration() {
    let registry = Registry::builder().configure("b", |config| config.failure_threshold(1)).build().unwrap();
    registry.get_or_create("b", BreakerConfig::default().failure_threshold(50));
    fail(&registry, 1).await;
    assert_eq!(registry.breaker("b").unwrap().state(), State::Open);
}

#[test]
fn invalid_setting_is_an_error_that_names_the_field() {
    let wrong = BreakerConfig::default().failure_rate_threshold(40.0);
    let error = Registry::builder().defaults(wrong.clone()).build().unwrap_err();
    assert_eq!((error.is_config(), error.field()), (true, Some("failure_rate_threshold")));
    assert!(error.to_string().contains("for 40 % say 0.4"), "{error}");
    let error = Registry::builder().configure("b", |_| wrong.clone()).build().unwrap_err();
    assert_eq!(error.field(), Some("failure_rate_threshold"));
    let registry = Registry::builder().build().unwrap();
    assert_eq!(registry.try_get_or_create("b", wrong).unwrap_err().field(), Some("failure_rate_threshold"));
    for (config, field) in [
        (BreakerConfig::default().failure_threshold(0), "failure_threshold"),
        (BreakerConfig::default().failure_rate_threshold(f64::NAN), "failure_rate_threshold"),
        (BreakerConfig::default().reset_timeout(Duration::ZERO), "reset_timeout"),
        (BreakerConfig::default().success_threshold(0), "success_threshold"),
        (BreakerConfig::default().half_open_max_calls(0), "half_open_max_calls"),
        (BreakerConfig::default().minimum_calls(0), "minimum_calls"),
        (BreakerConfig::default().window(Duration::MAX), "window"),
        (BreakerConfig::default().call_timeout(Duration::ZERO), "call_timeout"),
        (BreakerConfig::default().cache_ttl(Duration::ZERO), "cache_ttl"),
    ] {
        assert_eq!(config.validate().unwrap_err().field(), Some(field));
    }
}

#[test]
fn reload_of_what_cannot_change_names_it() {
    let registry = Registry::builder().node(" rack-7 ").build().unwrap();
    let reload = |change: fn(&mut RegistryConfig)| {
        let mut config = RegistryConfig::default();
        change(&mut config);
        registry.reload(config).map_err(|error| error.field())
    };
    assert_eq!(reload(|config| config.node = Some(" rack-7 ".into())), Ok(()));
    assert_eq!(reload(|config| config.node = Some("rack-8".into())), Err(Some("node")));
    let no_cache =
        |config: &mut RegistryConfig| config.cache_limits = Some(CacheLimits::default().entries(0));
    assert_eq!(reload(no_cache), Err(Some("cache_limits")));
    let hasty = |config: &mut RegistryConfig| config.response_timeout = Some(Duration::from_micros(1));
    assert_eq!(reload(hasty), Err(Some("response_timeout")));
}
