use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

pub struct Client(String);

impl Client {
    #[circuit_breaker(name = "a")]
    pub async fn moved(&self, name: String) -> Result<String, MyError> {
        drop(name);
        Ok(name)
    }

    #[circuit_breaker(name = "a", fallback = |_, name| Ok(name))]
    pub async fn borrowed<'a>(&'a self, name: &str) -> Result<&'a str, MyError> {
        Ok(&self.0)
    }
}

fn main() {}
