use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", window = "1m", window_calls = 10)]
pub async fn two_windows() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", window = "1m", minimum_calls = 10)]
pub async fn no_rule() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", fallback_on = "timeout")]
pub async fn no_fallback() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", cache_key = id, cache_version = 2)]
pub async fn no_ttl(id: u64) -> Result<u64, MyError> {
    Ok(id)
}

fn main() {}
