#[circuit_breaker(name = "user-service", failure_threshold = 3, reset_timeout = "10s")]
async fn get_user(id: u64) -> Result<User, FetchError> {
    fetch(id).await
}
