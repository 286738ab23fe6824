use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", crate = nowhere::runtime, cache_ttl = "1m", fallback = |id| Ok(id))]
pub async fn missing(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", crate = std, cache_ttl = "1m", fallback = |id| Ok(id))]
pub async fn another(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

fn main() {}
