use cb_runtime::circuit_breaker;

pub struct Opaque;

#[circuit_breaker(name = "a", fallback = || 0)]
pub async fn with_a_fallback() -> u64 {
    1
}

#[circuit_breaker(name = "a")]
pub async fn alone(id: u64) -> u64 {
    id
}

#[circuit_breaker(name = "a")]
pub async fn without_a_value() {}

#[circuit_breaker(name = "a", cache_ttl = 300)]
pub async fn cached(id: u64) -> Opaque {
    let _ = id;
    Opaque
}

#[circuit_breaker(name = "a", cache_ttl = 300, fallback = |_| 0, fallback_on = "open")]
pub async fn cached_with_a_fallback(id: u64) -> u64 {
    id
}

fn main() {}
