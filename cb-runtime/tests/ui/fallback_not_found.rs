use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", fallback = get_fallback)]
pub async fn call(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

fn main() {}
