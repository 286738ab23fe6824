use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", fallback)]
pub async fn bare() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", call_timeout =)]
pub async fn nothing_after_the_sign() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
