impl Directory {
    #[circuit_breaker(name = "directory", call_timeout = 0.5, is_failure = |r| matches!(r, Err(e) if e.is_server_error()))]
    async fn find(&self, id: u64) -> Result<User, HttpError> {
        self.client.get(id).await
    }
}
