use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", failure_threshold = 0)]
pub async fn zero() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_threshold = -3)]
pub async fn negative() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_threshold = 2.5)]
pub async fn fraction() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_threshold = "5")]
pub async fn text() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", failure_threshold = 10_000_000_000)]
pub async fn too_many() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
