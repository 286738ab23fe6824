#[circuit_breaker(name = "user-service", fallback = guest)]
async fn get_user(id: u64, tenant: &str) -> Result<User, FetchError> {
    fetch(id, tenant).await
}
