#[circuit_breaker(name = "uploads", fallback = spool, fallback_on = "open")]
async fn send(upload: Upload) -> Result<(), SendError> {
    upload.send().await
}
