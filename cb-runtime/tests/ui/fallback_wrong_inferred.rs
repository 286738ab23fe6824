use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", fallback = |_| 0.5)]
pub async fn number(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", fallback = |_| "none".into())]
pub async fn into(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", fallback = |_| async { None::<u64> })]
pub async fn later(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

fn main() {}
