use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a")]
pub async fn tail() -> Result<u64, MyError> {
    Ok("one")
}

#[circuit_breaker(name = "a")]
pub async fn question_mark(text: &str) -> Result<u64, MyError> {
    Ok(text.parse::<u64>()?)
}

#[circuit_breaker(name = "a")]
pub async fn early() -> Result<u64, MyError> {
    return 1;
}

fn main() {}
