use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

fn fallback(_id: u64) -> Option<u64> {
    None
}

#[circuit_breaker(name = "a", fallback = fallback)]
pub async fn function(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

async fn later(_id: u64) -> Result<String, MyError> {
    Ok(String::new())
}

#[circuit_breaker(name = "a", fallback = later)]
pub async fn async_function(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

#[circuit_breaker(name = "a", fallback = |_| "none")]
pub async fn closure(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

fn main() {}
