impl Directory {
    #[allow(clippy::implicit_return)]
    fn find(&self, id: u64) -> BoxFuture<'static, Result<User, HttpError>> {
        use ::cb_runtime::__private as __circuit_breaker;
        let breaker = {
            static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
                "directory",
            );
            let settings: __circuit_breaker::MakeSettings = || __circuit_breaker::settings();
            __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
        };
        let body = (move || -> BoxFuture<'static, Result<User, HttpError>> {
            {
                let client = self.client.clone();
                Box::pin(async move { client.get(id).await })
            }
        })();
        __circuit_breaker::Box::pin(async move {
            let ended = {
                let body = __circuit_breaker::pin!(body);
                let judge = {
                    let output = __circuit_breaker::Output::of(&body);
                    let kind = {
                        #[allow(unused_imports)]
                        use __circuit_breaker::OtherOutput as _;
                        output.circuit_breaker_return_kind()
                    };
                    __circuit_breaker::can_fail(output, kind);
                    __circuit_breaker::by_type(kind)
                };
                __circuit_breaker::run(breaker, body, judge).await
            };
            let output = __circuit_breaker::Output::of_ended(&ended);
            let kind = {
                #[allow(unused_imports)]
                use __circuit_breaker::OtherOutput as _;
                output.circuit_breaker_return_kind()
            };
            return __circuit_breaker::into_return(kind, ended);
        })
    }
}
