use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "tenant-{id")]
pub async fn open(id: u64) -> Result<(), MyError> {
    let _ = id;
    Ok(())
}

#[circuit_breaker(name = "tenant-id}")]
pub async fn closed(id: u64) -> Result<(), MyError> {
    let _ = id;
    Ok(())
}

#[circuit_breaker(name = "tenant-{id + 1}")]
pub async fn expression(id: u64) -> Result<(), MyError> {
    let _ = id;
    Ok(())
}

#[circuit_breaker(name = "tenant-{id:width$}")]
pub async fn width(id: u64, width: usize) -> Result<(), MyError> {
    let _ = (id, width);
    Ok(())
}

fn main() {}
