//! Settings that depend on the types which a generic function is called with. Such a function has one static for all of them.

mod common;

use std::time::Duration;

use cb_runtime::{BreakerConfig, Registry, circuit_breaker};
use common::Broken;

trait Limits {
    const TIMEOUT: Duration;

    fn config() -> BreakerConfig {
        BreakerConfig::default().call_timeout(Self::TIMEOUT)
    }
}

struct Quick;
struct Patient;
struct Idle;

impl Limits for Quick {
    const TIMEOUT: Duration = Duration::from_secs(1);
}

impl Limits for Patient {
    const TIMEOUT: Duration = Duration::from_secs(3600);
}

impl Limits for Idle {
    const TIMEOUT: Duration = Duration::from_secs(2);
}

async fn work() -> Result<(), Broken> {
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

#[circuit_breaker(name = "generic-function", call_timeout = T::TIMEOUT)]
async fn function<T: Limits>() -> Result<(), Broken> {
    work().await
}

#[circuit_breaker(name = "generic-keyed-{id}", call_timeout = T::TIMEOUT)]
async fn keyed<T: Limits>(id: u8) -> Result<(), Broken> {
    work().await
}

#[circuit_breaker(name = "generic-registry", call_timeout = T::TIMEOUT, registry = registry)]
async fn in_registry<T: Limits>(registry: &Registry) -> Result<(), Broken> {
    work().await
}

#[circuit_breaker(name = "generic-constant", call_timeout = Duration::from_secs(SECONDS))]
async fn constant<const SECONDS: u64>() -> Result<(), Broken> {
    work().await
}

struct Client<T>(T);

impl<T: Limits> Client<T> {
    fn config() -> BreakerConfig {
        T::config()
    }

    #[circuit_breaker(name = "generic-method", config = Self::config())]
    async fn method(&self) -> Result<(), Broken> {
        let Self(_) = self;
        work().await
    }
}

trait Remote: Limits {
    #[circuit_breaker(name = "generic-trait", config = Self::config())]
    async fn ask(&self) -> Result<(), Broken> {
        work().await
    }
}

impl Remote for Quick {}
impl Remote for Patient {}

// Twice, and in both orders: neither the first type nor the latest one decides for the others.

#[tokio::test(start_paused = true)]
async fn each_type_of_a_generic_function_has_its_own_settings() {
    for _ in 0..2 {
        assert_eq!(function::<Quick>().await, Err(Broken::TimedOut));
        assert_eq!(function::<Patient>().await, Ok(()));
        assert_eq!(function::<Idle>().await, Err(Broken::TimedOut));
    }
}

#[tokio::test(start_paused = true)]
async fn each_type_has_its_own_settings_under_a_name_of_arguments() {
    for id in 0..2 {
        assert_eq!(keyed::<Patient>(id).await, Ok(()));
        assert_eq!(keyed::<Quick>(id).await, Err(Broken::TimedOut));
    }
}

#[tokio::test(start_paused = true)]
async fn each_type_has_its_own_settings_in_every_registry() {
    for _ in 0..2 {
        let registry = Registry::builder().build().unwrap();
        for _ in 0..2 {
            assert_eq!(in_registry::<Patient>(&registry).await, Ok(()));
            assert_eq!(in_registry::<Quick>(&registry).await, Err(Broken::TimedOut));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_constant_has_its_own_settings() {
    for _ in 0..2 {
        assert_eq!(constant::<61>().await, Ok(()));
        assert_eq!(constant::<59>().await, Err(Broken::TimedOut));
    }
}

#[tokio::test(start_paused = true)]
async fn each_type_of_a_generic_impl_has_its_own_settings() {
    for _ in 0..2 {
        assert_eq!(Client(Patient).method().await, Ok(()));
        assert_eq!(Client(Quick).method().await, Err(Broken::TimedOut));
    }
}

#[tokio::test(start_paused = true)]
async fn each_implementation_of_a_trait_has_its_own_settings() {
    for _ in 0..2 {
        assert_eq!(Quick.ask().await, Err(Broken::TimedOut));
        assert_eq!(Patient.ask().await, Ok(()));
    }
}
