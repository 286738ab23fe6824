use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(nam = "a", failure_threshold = 0, window = "1m")]
pub async fn call() -> Result<(), MyError> {
    Ok(())
}

pub async fn caller() -> Result<(), MyError> {
    call().await
}

fn main() {}
