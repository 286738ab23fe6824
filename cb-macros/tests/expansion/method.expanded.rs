impl Directory {
    async fn find(&self, id: u64) -> Result<User, HttpError> {
        use ::cb_runtime::__private as __circuit_breaker;
        let breaker = {
            static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
                "directory",
            );
            let settings: __circuit_breaker::MakeSettings = || {
                __circuit_breaker::settings()
                    .call_timeout(__circuit_breaker::Duration::new(0u64, 500000000u32))
            };
            __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
        };
        let ended = {
            let body = __circuit_breaker::pin!(async move {
                if false {
                    return __circuit_breaker::never::<Result<User, HttpError>>();
                }
                let _ = &id;
                let _ = &self;
                match () {
                    () => self.client.get(id).await,
                }
            });
            let judge = {
                let output = __circuit_breaker::Output::of(&body);
                let kind = {
                    #[allow(unused_imports)]
                    use __circuit_breaker::OtherOutput as _;
                    output.circuit_breaker_return_kind()
                };
                __circuit_breaker::by_predicate(
                    output,
                    kind,
                    |r| matches!(r, Err(e) if e.is_server_error()),
                )
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
    }
}
