use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", timeout = "5s")]
pub async fn timeout() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", fallbackMethod = "other")]
pub async fn fallback_method() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", wait_duration_in_open_state = "30s")]
pub async fn wait_duration_in_open_state() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", sleepWindow = 5000)]
pub async fn sleep_window() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", max_requests = 3)]
pub async fn max_requests() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", error_threshold_percentage = 50)]
pub async fn error_threshold_percentage() -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", retries = 3)]
pub async fn retries() -> Result<(), BreakerError> {
    Ok(())
}

fn main() {}
