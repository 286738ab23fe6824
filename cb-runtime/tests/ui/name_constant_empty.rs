use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

const NAME: &str = "";

#[circuit_breaker(name = NAME)]
pub async fn call() -> Result<(), MyError> {
    Ok(())
}

fn main() {}
