async fn get_user(id: u64) -> Result<User, FetchError> {
    let breaker = {
        static __CIRCUIT_BREAKER_SITE: ::cb_runtime::__private::Site = ::cb_runtime::__private::Site::new(
            "user-service",
        );
        let settings: fn() -> ::cb_runtime::__private::BreakerConfig = || {
            ::cb_runtime::__private::settings()
                .cache_ttl(::cb_runtime::__private::Duration::new(300u64, 0u32))
        };
        { __CIRCUIT_BREAKER_SITE.global(settings) }
    };
    let function = {
        static __CIRCUIT_BREAKER_CACHE: ::cb_runtime::__private::CacheSite = ::cb_runtime::__private::CacheSite::new(
            ::cb_runtime::__private::module_path!(),
            ::cb_runtime::__private::option_env!("CARGO_PKG_VERSION"),
            ::cb_runtime::__private::option_env!("CARGO_BIN_NAME"),
        );
        ::cb_runtime::__private::cached_function(&__CIRCUIT_BREAKER_CACHE, || {})
    };
    let key = {
        let mut key = ::cb_runtime::__private::key(&breaker, "");
        {
            ::cb_runtime::__private::key_part(&mut key, &id);
        }
        ::cb_runtime::__private::key_of(&breaker, function, &key)
    };
    let ended = {
        let body = ::cb_runtime::__private::pin!(async move {
            if false {
                return ::cb_runtime::__private::never::<Result<User, FetchError>>();
            }
            let _ = &id;
            match () {
                () => fetch(id).await,
            }
        });
        let judge = {
            let output = ::cb_runtime::__private::Output::of(&body);
            let form = {
                #[allow(unused_imports)]
                use ::cb_runtime::__private::OtherOutput as _;
                output.form()
            };
            ::cb_runtime::__private::can_fail(output, form);
            ::cb_runtime::__private::by_type(form)
        };
        breaker.run(body, judge).await
    };
    let output = ::cb_runtime::__private::Output::of_ended(&ended);
    let form = {
        #[allow(unused_imports)]
        use ::cb_runtime::__private::OtherOutput as _;
        output.form()
    };
    let codec = ::cb_runtime::__private::codec(output, form);
    let ended = ::cb_runtime::__private::cached(
            &breaker,
            function,
            key,
            codec,
            form,
            ended,
        )
        .await;
    ::cb_runtime::__private::settle(form, ended)
}
