use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

pub struct Client;

impl Client {
    #[circuit_breaker(name = "a", cache_ttl = 300)]
    pub async fn call(&self, id: u64) -> Result<u64, MyError> {
        Ok(id)
    }
}

fn main() {}
