use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", cache_ttl = 300)]
pub async fn borrowed(text: &str) -> Result<&str, MyError> {
    Ok(text)
}

#[circuit_breaker(name = "a", cache_ttl = 300)]
pub async fn opaque() -> Result<impl Clone, MyError> {
    Ok(1)
}

fn main() {}
