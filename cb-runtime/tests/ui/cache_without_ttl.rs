use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", cache_key = id)]
pub async fn key(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

#[circuit_breaker(name = "a", cache_version = 2)]
pub async fn version(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

fn main() {}
