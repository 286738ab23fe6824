use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

pub struct Id(pub u64);

#[circuit_breaker(name = "a", cache_ttl = 300)]
pub async fn argument(id: Id) -> Result<u64, MyError> {
    Ok(id.0)
}

#[circuit_breaker(name = "a", cache_ttl = 300, cache_key = id)]
pub async fn key(id: Id) -> Result<u64, MyError> {
    Ok(id.0)
}

fn main() {}
