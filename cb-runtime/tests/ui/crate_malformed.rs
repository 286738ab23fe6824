use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", crate = "cb_runtime")]
pub async fn quoted() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", crate = 7)]
pub async fn number() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
