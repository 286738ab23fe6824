use cb_runtime::{BreakerError, circuit_breaker};

pub struct Client {
    name: String,
    shard: (u8, u8),
}

#[circuit_breaker(name = tenant)]
pub async fn argument(tenant: &str) -> Result<usize, BreakerError> {
    Ok(tenant.len())
}

#[circuit_breaker(name = format!("tenant-{}", tenant))]
pub async fn formatted(tenant: &str) -> Result<usize, BreakerError> {
    Ok(tenant.len())
}

#[circuit_breaker(name = format!("tenant-{tenant}-{:?}", id))]
pub async fn formatted_oddly(tenant: &str, id: u64) -> Result<usize, BreakerError> {
    Ok(tenant.len() + id as usize)
}

#[circuit_breaker(name = format!("constant"))]
pub async fn formatted_constant() -> Result<(), BreakerError> {
    Ok(())
}

impl Client {
    #[circuit_breaker(name = &self.name)]
    pub async fn field(&self) -> Result<usize, BreakerError> {
        Ok(self.name.len())
    }

    #[circuit_breaker(name = self.name.clone())]
    pub async fn cloned(&self) -> Result<usize, BreakerError> {
        Ok(self.name.len())
    }

    #[circuit_breaker(name = &format!("{}/{}", self.name, self.shard.0))]
    pub async fn formatted(&self) -> Result<usize, BreakerError> {
        Ok(self.name.len())
    }

    #[circuit_breaker(name = name_of(&self.name))]
    pub async fn computed(&self) -> Result<usize, BreakerError> {
        Ok(self.name.len())
    }
}

fn main() {}
