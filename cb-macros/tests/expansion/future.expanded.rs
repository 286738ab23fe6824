impl Directory {
    #[allow(clippy::implicit_return)]
    fn find(&self, id: u64) -> BoxFuture<'static, Result<User, HttpError>> {
        use ::cb_runtime::attribute as __circuit_breaker;
        let breaker = {
            static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
                "directory",
            );
            let settings: __circuit_breaker::MakeSettings = __circuit_breaker::settings;
            __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
        };
        let body = {
            #[allow(unused_mut)]
            let mut __circuit_breaker_body = move || -> BoxFuture<
                'static,
                Result<User, HttpError>,
            > {
                {
                    let client = self.client.clone();
                    Box::pin(async move { client.get(id).await })
                }
            };
            <BoxFuture<
                'static,
                Result<User, HttpError>,
            > as __circuit_breaker::BoxedFuture>::into_pinned(__circuit_breaker_body())
        };
        <BoxFuture<
            'static,
            Result<User, HttpError>,
        > as __circuit_breaker::BoxedFuture>::of_pinned(
            __circuit_breaker::boxed(async move {
                let (output, body) = __circuit_breaker::with_output(body);
                let kind = __circuit_breaker::CanFail::return_kind(output);
                let admission = __circuit_breaker::admit(breaker);
                let stopped = if __circuit_breaker::is_rejected(admission) {
                    __circuit_breaker::rejected(admission)
                } else {
                    match __circuit_breaker::call(breaker, admission, body, kind).await {
                        __circuit_breaker::Result::Ok(value) => {
                            return __circuit_breaker::ManuallyDrop::into_inner(value);
                        }
                        __circuit_breaker::Result::Err(stopped) => stopped,
                    }
                };
                return __circuit_breaker::stopped(
                    output,
                    kind,
                    stopped,
                    __circuit_breaker::unnameable(),
                    __circuit_breaker::FromBreakerError::from_breaker_error,
                );
            }),
        )
    }
}
