#[circuit_breaker(name = "user-service", cache_ttl = "5m")]
async fn get_user(id: u64) -> Result<User, FetchError> {
    fetch(id).await
}
