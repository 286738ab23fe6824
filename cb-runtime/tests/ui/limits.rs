use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", failure_rate_threshold = 0.5, window_calls = 50_000)]
pub async fn window_too_large() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_rate_threshold = 0.5, window_calls = 100, minimum_calls = 200)]
pub async fn minimum_above_window() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", min_failing_instances = 33)]
pub async fn too_many_instances() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_threshold = 2_000_000)]
pub async fn threshold_too_large() -> Result<(), BreakerError> {
    Ok(())
}

fn main() {}
