async fn get_user(id: u64) -> Result<User, FetchError> {
    use ::cb_runtime::attribute as __circuit_breaker;
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
    let function = {
        static __CIRCUIT_BREAKER_CACHE: __circuit_breaker::CacheSite = __circuit_breaker::CacheSite::new(
            __circuit_breaker::module_path!(),
            __circuit_breaker::option_env!("CARGO_PKG_VERSION"),
            __circuit_breaker::option_env!("CARGO_BIN_NAME"),
        );
        __circuit_breaker::cached_function(&__CIRCUIT_BREAKER_CACHE, || {})
    };
    let key = {
        let mut key = __circuit_breaker::key(breaker, "");
        {
            __circuit_breaker::key_part(&mut key, &id);
        }
        __circuit_breaker::key_of(breaker, function, &key)
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
            __circuit_breaker::CanFail::can_fail(output);
            __circuit_breaker::by_type(kind)
        };
        __circuit_breaker::run(breaker, body, judge).await
    };
    let (output, ended) = __circuit_breaker::Output::with_ended(ended);
    let kind = {
        #[allow(unused_imports)]
        use __circuit_breaker::OtherOutput as _;
        output.circuit_breaker_return_kind()
    };
    let ended = 'cached: {
        let keep = {
            #[allow(unused_imports)]
            use __circuit_breaker::{IsNotSend as _, IsSend as _};
            (&output).circuit_breaker_keep()
        };
        let codec = __circuit_breaker::codec(output, kind);
        let later = match __circuit_breaker::cached(
            breaker,
            function,
            key,
            codec,
            (kind, keep),
            ended,
        ) {
            __circuit_breaker::Result::Ok(ended) => break 'cached ended,
            __circuit_breaker::Result::Err(later) => later,
        };
        later.await
    };
    return __circuit_breaker::into_return(ended, __circuit_breaker::Reject::reject);
}
