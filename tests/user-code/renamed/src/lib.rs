//! A crate that knows no `cb_runtime`: it has renamed its dependency, and knows another crate that exports
//! it.

use breaker::{BreakerError, circuit_breaker};

/// By the name that Cargo.toml gives it.
///
/// # Errors
/// When the circuit is open.
#[circuit_breaker(name = "user: renamed", crate = breaker, cache_ttl = "1m", fallback = |id| Ok(id + 100))]
pub async fn renamed(id: u64) -> Result<u64, BreakerError> {
    std::future::ready(()).await;
    Ok(id)
}

/// By the name under which another crate exports it.
///
/// # Errors
/// When the circuit is open.
#[cb_user_2024::guard::circuit_breaker(name = "user: exported", crate = cb_user_2024::guard)]
pub async fn exported(id: u64) -> Result<u64, BreakerError> {
    std::future::ready(()).await;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use breaker::Registry;

    #[tokio::test]
    async fn a_renamed_runtime_and_an_exported_one_are_the_same() {
        assert_eq!(super::renamed(1).await.unwrap(), 1);
        assert_eq!(super::exported(1).await.unwrap(), 1);
        for name in ["user: renamed", "user: exported"] {
            assert_eq!(Registry::global().breaker(name).unwrap().snapshot().outcomes.success, 1);
        }
    }
}
