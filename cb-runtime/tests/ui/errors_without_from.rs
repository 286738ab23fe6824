use cb_runtime::circuit_breaker;

#[circuit_breaker(name = "a")]
pub async fn text() -> Result<u64, String> {
    Ok(1)
}

#[circuit_breaker(name = "a")]
pub async fn borrowed() -> Result<u64, &'static str> {
    Ok(1)
}

#[circuit_breaker(name = "a", fallback = || Ok(2), fallback_on = "error")]
pub async fn foreign() -> Result<u64, std::num::ParseIntError> {
    Ok(1)
}

#[circuit_breaker(name = "a")]
pub async fn generic<E: std::error::Error>() -> Result<u64, E> {
    Ok(1)
}

fn main() {}
