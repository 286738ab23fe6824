#[circuit_breaker(nam = "user-service", failure_threshold = 0, fallback)]
async fn get_user(id: u64) -> Result<User, FetchError> {
    fetch(id).await
}
