#![deny(unused)]

use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a")]
pub async fn argument(id: u64, _on_purpose: u64) -> Result<(), BreakerError> {
    Ok(())
}

#[circuit_breaker(name = "a", fallback = |_| Ok(()), fallback_on = "open")]
pub async fn mutable_argument(mut id: u64) -> Result<(), BreakerError> {
    drop(id);
    Ok(())
}

#[circuit_breaker(name = "a")]
pub async fn inside() -> Result<(), BreakerError> {
    let local = 1;
    argument(1, 2).await;
    Ok(())
}

#[circuit_breaker(name = "a")]
async fn never_called() -> Result<(), BreakerError> {
    Ok(())
}

pub async fn caller() {
    inside();
}

fn main() {}
