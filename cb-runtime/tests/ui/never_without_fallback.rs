use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "a", call_timeout = 1)]
pub async fn call() -> ! {
    std::future::pending().await
}

fn main() {}
