use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", failure_treshold = 3)]
pub async fn typo() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", ttl = 3)]
pub async fn part() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a", colour = "red")]
pub async fn nothing_like_it() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
