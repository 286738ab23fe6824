use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", reset_timeout = "5 parsecs")]
pub async fn text() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", reset_timeout = -5)]
pub async fn negative() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", reset_timeout = 0)]
pub async fn zero() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_rate_threshold = 0.5, window = "1ms")]
pub async fn too_short() -> Result<(), MyError> {
    Ok(())
}

const SECONDS: u64 = 5;

#[circuit_breaker(name = "a", reset_timeout = SECONDS)]
pub async fn of_another_type() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
