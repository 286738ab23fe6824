use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a")]
pub async fn call() -> Result<(), BreakerError> {
    Ok(())
}

fn main() {}
