impl Directory {
    #[circuit_breaker(name = "directory")]
    fn find(&self, id: u64) -> BoxFuture<'static, Result<User, HttpError>> {
        let client = self.client.clone();
        Box::pin(async move { client.get(id).await })
    }
}
