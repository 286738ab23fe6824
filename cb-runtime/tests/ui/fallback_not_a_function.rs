use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

fn fallback(_id: u64) -> Result<u64, MyError> {
    Ok(0)
}

#[circuit_breaker(name = "a", fallback = fallback(1))]
pub async fn called(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

#[circuit_breaker(name = "a", fallback = "fallback")]
pub async fn quoted(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

fn main() {}
