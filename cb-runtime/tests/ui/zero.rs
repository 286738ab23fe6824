use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", failure_threshold = 0)]
pub async fn count() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_rate_threshold = 0)]
pub async fn rate() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", call_timeout = "0s")]
pub async fn span() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
