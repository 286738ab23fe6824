async fn get_user(id: u64) -> Result<User, FetchError> {
    use ::cb_runtime::__private as __circuit_breaker;
    let breaker = {
        static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
            "user-service",
        );
        let settings: __circuit_breaker::MakeSettings = || {
            __circuit_breaker::settings()
                .failure_threshold(3)
                .reset_timeout(__circuit_breaker::Duration::new(10u64, 0u32))
        };
        __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
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
    return __circuit_breaker::into_return(kind, ended);
}
