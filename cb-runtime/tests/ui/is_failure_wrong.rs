use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", is_failure = |error: &MyError| true)]
pub async fn looks_at_the_error_only() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", is_failure = "5xx")]
pub async fn not_a_function() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
