use std::collections::{HashMap, HashSet};

use cb_runtime::{BreakerError, circuit_breaker};

#[circuit_breaker(name = "a", cache_ttl = 300)]
pub async fn map(id: u64, filter: HashMap<String, String>) -> Result<u64, BreakerError> {
    Ok(id + filter.len() as u64)
}

#[circuit_breaker(name = "a", cache_ttl = 300)]
pub async fn set(ids: Option<&std::collections::HashSet<u64>>) -> Result<usize, BreakerError> {
    Ok(ids.map_or(0, HashSet::len))
}

#[circuit_breaker(name = "a", cache_ttl = 300, cache_key = id)]
pub async fn without_it(id: u64, trace: HashMap<String, String>) -> Result<u64, BreakerError> {
    Ok(id + trace.len() as u64)
}

#[circuit_breaker(name = "a")]
pub async fn without_a_cache(filter: HashMap<String, String>) -> Result<usize, BreakerError> {
    Ok(filter.len())
}

fn main() {}
