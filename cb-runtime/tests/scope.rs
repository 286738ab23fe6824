//! Tests of annotated functions with a registry of their own.

mod common;

use std::time::Duration;

use cb_runtime::testing::{registry, scope};
use cb_runtime::{Registry, State, circuit_breaker};
use common::Broken;

#[circuit_breaker(name = "scoped", failure_threshold = 1, reset_timeout = "1h")]
async fn call(fails: bool) -> Result<u32, Broken> {
    if fails { Err(Broken::Down) } else { Ok(1) }
}

#[circuit_breaker(name = "scoped-{id}", failure_threshold = 1)]
async fn keyed(id: u32, fails: bool) -> Result<u32, Broken> {
    if fails { Err(Broken::Down) } else { Ok(id) }
}

#[tokio::test]
async fn every_scope_has_breakers_of_its_own() {
    let (one, time) = registry();
    let (other, _) = registry();
    scope(one.clone(), async {
        call(true).await.unwrap_err();
        assert_eq!(call(false).await, Err(Broken::Open));
        keyed(7, true).await.unwrap_err();
        assert_eq!(keyed(7, false).await, Err(Broken::Open));
    })
    .await;
    assert_eq!(call(false).await, Ok(1), "the global registry has heard of nothing");
    assert_eq!(keyed(7, false).await, Ok(7));
    scope(other.clone(), async {
        assert_eq!(call(false).await, Ok(1));
        // A scope in a scope.
        assert_eq!(scope(one.clone(), call(false)).await, Err(Broken::Open));
        assert_eq!(call(false).await, Ok(1));
    })
    .await;
    assert_eq!(one.breaker("scoped").unwrap().state(), State::Open);
    assert_eq!(other.breaker("scoped").unwrap().snapshot().outcomes.success, 2);
    time.advance(Duration::from_secs(3600));
    assert_eq!(scope(one, call(false)).await, Ok(1));
}

#[tokio::test]
async fn function_first_called_in_a_scope_uses_the_global_registry_outside() {
    #[circuit_breaker(name = "first-in-scope", failure_threshold = 1)]
    async fn first() -> Result<(), Broken> {
        Ok(())
    }
    scope(registry().0, first()).await.unwrap();
    first().await.unwrap();
    assert_eq!(Registry::global().breaker("first-in-scope").unwrap().snapshot().outcomes.success, 1);
}
