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
        __circuit_breaker::key_of(breaker, function, &key)
    };
    let output = __circuit_breaker::Output::<Result<User, FetchError>>::new();
    let kind = __circuit_breaker::CanFail::return_kind(output);
    let codec = __circuit_breaker::codec(output, kind);
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
        let (output, body) = __circuit_breaker::with_output(async move {
            if false {
                return __circuit_breaker::never::<Result<User, FetchError>>();
            }
            let _ = &id;
            match () {
                () => fetch(id).await,
            }
        });
        let kind = __circuit_breaker::CanFail::return_kind(output);
        match __circuit_breaker::run(breaker, &mut permit, body, kind).await {
            __circuit_breaker::Result::Ok(value) => {
                __circuit_breaker::has_ended(permit);
                let verdict = __circuit_breaker::verdict(kind, &value);
                __circuit_breaker::cache_success(
                    breaker,
                    function,
                    &key,
                    codec,
                    kind,
                    verdict,
                    &value,
                );
                if __circuit_breaker::is_returned(verdict) {
                    return __circuit_breaker::ManuallyDrop::into_inner(value);
                }
                __circuit_breaker::Ended::Failed(
                    __circuit_breaker::ManuallyDrop::into_inner(value),
                )
            }
            __circuit_breaker::Result::Err(deadline) => {
                __circuit_breaker::time_out(output, permit, deadline)
            }
        }
    };
    let (output, ended) = __circuit_breaker::Output::with_ended(ended);
    let kind = __circuit_breaker::CanFail::return_kind(output);
    let ended = 'cached: {
        let hold = {
            #[allow(unused_imports)]
            use __circuit_breaker::{IsNotSend as _, IsSend as _};
            (&output).circuit_breaker_hold()
        };
        let later = match __circuit_breaker::cached(
            breaker,
            function,
            key,
            codec,
            (kind, hold),
            ended,
        ) {
            __circuit_breaker::CachedReply::Value(value) => return value,
            __circuit_breaker::CachedReply::Nothing(ended) => break 'cached ended,
            __circuit_breaker::CachedReply::InStore(later) => later,
        };
        match later.await {
            __circuit_breaker::Result::Ok(value) => return value,
            __circuit_breaker::Result::Err(ended) => ended,
        }
    };
    return __circuit_breaker::into_return(
        kind,
        ended,
        __circuit_breaker::unnameable(),
        __circuit_breaker::FromBreakerError::from_breaker_error,
    );
}
