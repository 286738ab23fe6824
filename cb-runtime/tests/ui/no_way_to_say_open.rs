use cb_runtime::circuit_breaker;

pub struct Unrelated;

#[circuit_breaker(name = "a")]
pub async fn error() -> Result<u64, Unrelated> {
    Ok(1)
}

#[circuit_breaker(name = "a", is_failure = Option::is_none)]
pub async fn value() -> Option<u64> {
    Some(1)
}

fn main() {}
