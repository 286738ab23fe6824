use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", fallback = |id|)]
pub async fn closure(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", fallback = Self::)]
pub async fn path(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", failure_threshold = 3 +)]
pub async fn sum(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", is_failure = |result| matches!(result, Err(_)) &&, failure_threshold = 3)]
pub async fn in_the_middle(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

#[circuit_breaker(name = "a", failure_threshold = (3 +))]
pub async fn inside(id: u64) -> Result<u64, BreakerError> {
    Ok(id)
}

fn main() {}
