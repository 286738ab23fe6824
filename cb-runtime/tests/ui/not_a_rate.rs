use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", failure_rate_threshold = 50)]
pub async fn percent() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_rate_threshold = 0.0)]
pub async fn zero() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_rate_threshold = -0.5)]
pub async fn negative() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
