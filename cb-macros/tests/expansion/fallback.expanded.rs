async fn get_user(id: u64, tenant: &str) -> Result<User, FetchError> {
    use ::cb_runtime::attribute as __circuit_breaker;
    let breaker = {
        static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
            "user-service",
        );
        let settings: __circuit_breaker::MakeSettings = __circuit_breaker::settings;
        __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
    };
    let (output, args, reason) = {
        let output = __circuit_breaker::Output::<Result<User, FetchError>>::new();
        let kind = __circuit_breaker::CanFail::return_kind(output);
        let admission = __circuit_breaker::admit_with_fallback(breaker);
        let (ended, args) = if __circuit_breaker::is_rejected(admission) {
            let args = (id, tenant);
            (
                __circuit_breaker::Ended::Rejected(
                    __circuit_breaker::rejection(admission),
                ),
                args,
            )
        } else {
            let args = (
                __circuit_breaker::CloneArg::clone_arg(&id),
                __circuit_breaker::CloneArg::clone_arg(&tenant),
            );
            match __circuit_breaker::call(
                    breaker,
                    admission,
                    async move {
                        if false {
                            return __circuit_breaker::never::<
                                Result<User, FetchError>,
                            >();
                        }
                        let _ = &tenant;
                        let _ = &id;
                        match () {
                            () => fetch(id, tenant).await,
                        }
                    },
                    kind,
                )
                .await
            {
                __circuit_breaker::Result::Ok(value) => {
                    if !__circuit_breaker::is_error(kind, &value) {
                        return __circuit_breaker::ManuallyDrop::into_inner(value);
                    }
                    __circuit_breaker::answered_by_fallback(breaker);
                    (
                        __circuit_breaker::Ended::Failed(
                            __circuit_breaker::ManuallyDrop::into_inner(value),
                        ),
                        args,
                    )
                }
                __circuit_breaker::Result::Err(stopped) => {
                    __circuit_breaker::answered_by_fallback(breaker);
                    (__circuit_breaker::ended(output, stopped), args)
                }
            }
        };
        match __circuit_breaker::into_return_or_any(kind, ended, args) {
            __circuit_breaker::Result::Ok(value) => return value,
            __circuit_breaker::Result::Err((args, reason)) => (output, args, reason),
        }
    };
    let later = {
        let reply = __circuit_breaker::Callable::call(args, reason, guest);
        let shape = {
            #[allow(unused_imports)]
            use __circuit_breaker::{
                IsMismatch as _, IsOkValue as _, IsOkValueLater as _, IsWhole as _,
                IsWholeLater as _,
            };
            (&&&&&__circuit_breaker::Reply::of(&reply, output))
                .circuit_breaker_reply_shape()
        };
        match __circuit_breaker::FallbackReply::answer(reply, output, shape) {
            __circuit_breaker::Result::Ok(value) => return value,
            __circuit_breaker::Result::Err(later) => later,
        }
    };
    return later.await;
}
