use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

fn fallback(_id: String) -> Result<u64, MyError> {
    Ok(0)
}

#[circuit_breaker(name = "a", fallback = fallback)]
pub async fn function(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

#[circuit_breaker(name = "a", fallback = |id: String| Ok(id.len() as u64))]
pub async fn closure(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

fn main() {}
