use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", failure_rate_threshold = 0.5, window = "1m", window_calls = 100)]
pub async fn call() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
