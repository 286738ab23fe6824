use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

pub struct User;

#[circuit_breaker(name = "a", cache_ttl = 300)]
pub async fn call(id: u64) -> Result<User, MyError> {
    let _ = id;
    Ok(User)
}

fn main() {}
