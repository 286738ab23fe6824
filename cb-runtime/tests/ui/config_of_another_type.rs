use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", config = 7)]
pub async fn config() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", registry = 7)]
pub async fn registry() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = 7)]
pub async fn name() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
