use breaker::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", cache_ttl = "1m", fallback = |id| Ok(id))]
pub async fn call(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", failure_threshold = 0)]
pub async fn with_another_error(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

fn main() {}
