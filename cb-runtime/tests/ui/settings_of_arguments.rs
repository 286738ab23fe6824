use std::time::Duration;

use cb_runtime::{BreakerConfig, BreakerError, circuit_breaker};

pub struct Client {
    timeout: Duration,
    config: BreakerConfig,
    url: String,
}

impl Client {
    #[circuit_breaker(name = "a", call_timeout = self.timeout)]
    pub async fn timeout(&self) -> Result<usize, BreakerError> {
        Ok(self.url.len())
    }

    #[circuit_breaker(name = "a", config = self.config.clone())]
    pub async fn config(&self) -> Result<usize, BreakerError> {
        Ok(self.url.len())
    }

    #[circuit_breaker(name = "a", health_check = || ping(self.url.clone()))]
    pub async fn health_check(&self) -> Result<usize, BreakerError> {
        Ok(self.url.len())
    }
}

#[circuit_breaker(name = "a", failure_threshold = limit)]
pub async fn limit(limit: u32) -> Result<u32, BreakerError> {
    Ok(limit)
}

#[circuit_breaker(name = "a", failure_threshold = limits::at_least(1, span.max))]
pub async fn computed((_, span): (u8, Span)) -> Result<u32, BreakerError> {
    Ok(span.max)
}

fn main() {}
