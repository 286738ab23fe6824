impl Directory {
    async fn find(&self, id: u64) -> Result<User, HttpError> {
        let breaker = {
            static __CIRCUIT_BREAKER_SITE: ::cb_runtime::__private::Site = ::cb_runtime::__private::Site::new(
                "directory",
            );
            let settings: fn() -> ::cb_runtime::__private::BreakerConfig = || {
                ::cb_runtime::__private::settings()
                    .call_timeout(
                        ::cb_runtime::__private::Duration::new(0u64, 500000000u32),
                    )
            };
            __CIRCUIT_BREAKER_SITE.global(settings)
        };
        let ended = {
            let body = ::cb_runtime::__private::pin!(async move {
                if false {
                    return ::cb_runtime::__private::never::<Result<User, HttpError>>();
                }
                let _ = &id;
                let _ = &self;
                match () {
                    () => self.client.get(id).await,
                }
            });
            let judge = {
                let output = ::cb_runtime::__private::Output::of(&body);
                let form = {
                    #[allow(unused_imports)]
                    use ::cb_runtime::__private::OtherOutput as _;
                    output.form()
                };
                ::cb_runtime::__private::by_predicate(
                    output,
                    form,
                    |r| matches!(r, Err(e) if e.is_server_error()),
                )
            };
            breaker.run(body, judge).await
        };
        let output = ::cb_runtime::__private::Output::of_ended(&ended);
        let form = {
            #[allow(unused_imports)]
            use ::cb_runtime::__private::OtherOutput as _;
            output.form()
        };
        ::cb_runtime::__private::settle(form, ended)
    }
}
