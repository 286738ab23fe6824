use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", cache_ttl = "1m", cache_key = (tenant, id))]
pub async fn moved(tenant: String, id: u64) -> Result<usize, BreakerError> {
    Ok(tenant.len() + id as usize)
}

#[circuit_breaker(name = "a", cache_ttl = "1m", cache_key = tenant.into_bytes())]
pub async fn consumed(tenant: String) -> Result<usize, BreakerError> {
    Ok(tenant.len())
}

fn main() {}
