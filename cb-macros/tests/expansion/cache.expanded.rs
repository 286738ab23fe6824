async fn get_user(id: u64) -> Result<User, FetchError> {
    use ::cb_runtime::__private as __circuit_breaker;
    let breaker = {
        static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
            "user-service",
        );
        let settings: __circuit_breaker::MakeSettings = || {
            __circuit_breaker::settings()
                .cache_ttl(__circuit_breaker::Duration::new(300u64, 0u32))
        };
        __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
    };
    let key = {
        let mut key = __circuit_breaker::key(&|| {}, "");
        {
            __circuit_breaker::key_part(&mut key, &id);
        }
        key.finish()
    };
    let ended = {
        let body = __circuit_breaker::pin!(async move {
            if false {
                return __circuit_breaker::never::<Result<User, FetchError>>();
            }
            let _ = &id;
            match () {
                () => fetch(id).await,
            }
        });
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
    let codec = __circuit_breaker::codec(output, kind);
    let ended = __circuit_breaker::cached(breaker, key, codec, kind, ended).await;
    return __circuit_breaker::into_return(kind, ended);
}
