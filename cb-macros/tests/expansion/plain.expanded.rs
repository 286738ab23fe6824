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
    let output = __circuit_breaker::Output::<Result<User, FetchError>>::new();
    let kind = __circuit_breaker::CanFail::return_kind(output);
    let admission = __circuit_breaker::admit(breaker);
    let stopped = if __circuit_breaker::is_rejected(admission) {
        __circuit_breaker::rejected(admission)
    } else {
        match __circuit_breaker::call(
                breaker,
                admission,
                async move {
                    if false {
                        return __circuit_breaker::never::<Result<User, FetchError>>();
                    }
                    let _ = &id;
                    match () {
                        () => fetch(id).await,
                    }
                },
                kind,
            )
            .await
        {
            __circuit_breaker::Result::Ok(value) => {
                return __circuit_breaker::ManuallyDrop::into_inner(value);
            }
            __circuit_breaker::Result::Err(stopped) => stopped,
        }
    };
    return __circuit_breaker::stopped(
        output,
        kind,
        stopped,
        __circuit_breaker::unnameable(),
        __circuit_breaker::FromBreakerError::from_breaker_error,
    );
}
