use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", window = "1m")]
pub async fn window() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", minimum_calls = 5)]
pub async fn minimum() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
