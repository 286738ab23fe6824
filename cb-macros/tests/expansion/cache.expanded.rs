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
            __circuit_breaker::KeyPart::add_to(&id, &mut key);
        }
        __circuit_breaker::key_of(breaker, function, &mut key)
    };
    let output = __circuit_breaker::Output::<Result<User, FetchError>>::new();
    let kind = __circuit_breaker::CanFail::return_kind(output);
    let codec = {
        #[allow(unused_imports)]
        use __circuit_breaker::{IsNotSend as _, IsSend as _};
        let hold = (&output).circuit_breaker_hold();
        __circuit_breaker::codec(output, kind, hold, function)
    };
    let admission = __circuit_breaker::admit(breaker);
    let body = __circuit_breaker::Option::Some(async move {
        if false {
            return __circuit_breaker::never::<Result<User, FetchError>>();
        }
        let _ = &id;
        match () {
            () => fetch(id).await,
        }
    });
    let ended = match __circuit_breaker::call_cached(
            breaker,
            admission,
            body,
            kind,
            key,
            codec,
        )
        .await
    {
        __circuit_breaker::Result::Ok(value) => {
            return __circuit_breaker::ManuallyDrop::into_inner(value);
        }
        __circuit_breaker::Result::Err(ended) => ended,
    };
    return __circuit_breaker::into_return(
        kind,
        ended,
        __circuit_breaker::unnameable(),
        __circuit_breaker::FromBreakerError::from_breaker_error,
    );
}
