async fn get_user(id: u64) -> Result<User, FetchError> {
    use ::cb_runtime::attribute as __circuit_breaker;
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
        let kind = {
            #[allow(unused_imports)]
            use __circuit_breaker::OtherOutput as _;
            output.circuit_breaker_return_kind()
        };
        __circuit_breaker::CanFail::can_fail(output);
        match __circuit_breaker::run(breaker, &mut permit, body, kind).await {
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
}
