use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

pub struct Token(pub u64);

fn fallback(_id: u64, token: Token) -> Result<u64, MyError> {
    Ok(token.0)
}

#[circuit_breaker(name = "a", fallback = fallback)]
pub async fn call(id: u64, token: Token) -> Result<u64, MyError> {
    Ok(id + token.0)
}

fn main() {}
