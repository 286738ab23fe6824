use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

#[circuit_breaker(name = "tenant-{tenant}")]
pub async fn two(tenant_id: u64, (region, _): (&str, u8)) -> Result<(), MyError> {
    let _ = (tenant_id, region);
    Ok(())
}

#[circuit_breaker(name = "tenant-{id}")]
pub async fn one(tenant_id: u64) -> Result<(), MyError> {
    let _ = tenant_id;
    Ok(())
}

#[circuit_breaker(name = "tenant-{id}")]
pub async fn none() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "{}-{0}")]
pub async fn by_number(tenant_id: u64) -> Result<(), MyError> {
    let _ = tenant_id;
    Ok(())
}

fn main() {}
