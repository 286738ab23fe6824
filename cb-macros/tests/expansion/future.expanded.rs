impl Directory {
    #[allow(clippy::implicit_return)]
    fn find(&self, id: u64) -> BoxFuture<'static, Result<User, HttpError>> {
        use ::cb_runtime::attribute as __circuit_breaker;
        let breaker = {
            static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
                "directory",
            );
            let settings: __circuit_breaker::MakeSettings = || __circuit_breaker::settings();
            __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
        };
        let body = {
            let __circuit_breaker_body = move || -> BoxFuture<
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
                let kind = {
                    #[allow(unused_imports)]
                    use __circuit_breaker::OtherOutput as _;
                    output.circuit_breaker_return_kind()
                };
                let ended = 'call: {
                    let asked = __circuit_breaker::ask(breaker);
                    let asked = if __circuit_breaker::must_wait(asked) {
                        __circuit_breaker::wait(asked).await
                    } else {
                        asked
                    };
                    let mut permit = match __circuit_breaker::admitted(asked) {
                        __circuit_breaker::Result::Ok(permit) => permit,
                        __circuit_breaker::Result::Err(rejection) => {
                            break 'call __circuit_breaker::Ended::Rejected(rejection);
                        }
                    };
                    __circuit_breaker::CanFail::can_fail(output);
                    match __circuit_breaker::run(breaker, &mut permit, body, kind).await
                    {
                        __circuit_breaker::Result::Ok(value) => {
                            __circuit_breaker::has_ended(permit);
                            return __circuit_breaker::ManuallyDrop::into_inner(value);
                        }
                        __circuit_breaker::Result::Err(deadline) => {
                            __circuit_breaker::time_out(output, permit, deadline)
                        }
                    }
                };
                let output = __circuit_breaker::Output::of_ended(&ended);
                let kind = {
                    #[allow(unused_imports)]
                    use __circuit_breaker::OtherOutput as _;
                    output.circuit_breaker_return_kind()
                };
                return __circuit_breaker::into_return(
                    kind,
                    ended,
                    __circuit_breaker::unnameable(),
                    __circuit_breaker::FromBreakerError::from_breaker_error,
                );
            }),
        )
    }
}
