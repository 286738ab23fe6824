use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(failure_threshold = 3)]
pub async fn call() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
