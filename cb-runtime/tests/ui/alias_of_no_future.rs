use cb_runtime::{BreakerError, circuit_breaker};

pub type Answer = std::result::Result<u64, BreakerError>;

#[circuit_breaker(name = "a")]
pub fn alias() -> Answer {
    Ok(1)
}

#[circuit_breaker(name = "a")]
pub fn unit(id: u64) {
    let _ = id;
}

fn main() {}
