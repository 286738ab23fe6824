use cb_runtime::circuit_breaker;

#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

pub struct Tenant {
    id: u64,
}

#[circuit_breaker(name = "tenant-{tenant}")]
pub async fn no_display(tenant: &Tenant) -> Result<(), MyError> {
    let _ = tenant.id;
    Ok(())
}

#[circuit_breaker(name = "tenant-{tenant.name}")]
pub async fn no_field(tenant: &Tenant) -> Result<(), MyError> {
    let _ = tenant.id;
    Ok(())
}

fn main() {}
