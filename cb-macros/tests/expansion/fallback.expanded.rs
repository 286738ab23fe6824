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
        let (ended, args) = 'call: {
            let asked = __circuit_breaker::ask_with_fallback(breaker);
            let asked = if __circuit_breaker::must_wait(asked) {
                __circuit_breaker::waited_with_fallback(
                    __circuit_breaker::wait(asked).await,
                )
            } else {
                asked
            };
            let mut permit = match __circuit_breaker::admitted(asked) {
                __circuit_breaker::Result::Ok(permit) => permit,
                __circuit_breaker::Result::Err(rejection) => {
                    break 'call {
                        let args = (id, tenant);
                        (__circuit_breaker::Ended::Rejected(rejection), args)
                    };
                }
            };
            let args = (
                __circuit_breaker::CloneArg::clone_arg(&id),
                __circuit_breaker::CloneArg::clone_arg(&tenant),
            );
            let (output, body) = __circuit_breaker::with_output(async move {
                if false {
                    return __circuit_breaker::never::<Result<User, FetchError>>();
                }
                let _ = &tenant;
                let _ = &id;
                match () {
                    () => fetch(id, tenant).await,
                }
            });
            let kind = __circuit_breaker::CanFail::return_kind(output);
            match __circuit_breaker::run(breaker, &mut permit, body, kind).await {
                __circuit_breaker::Result::Ok(value) => {
                    __circuit_breaker::has_ended(permit);
                    let verdict = __circuit_breaker::verdict(kind, &value);
                    if __circuit_breaker::is_returned(verdict) {
                        return __circuit_breaker::ManuallyDrop::into_inner(value);
                    }
                    {
                        __circuit_breaker::answered_by_fallback(breaker);
                        (
                            __circuit_breaker::Ended::Failed(
                                __circuit_breaker::ManuallyDrop::into_inner(value),
                            ),
                            args,
                        )
                    }
                }
                __circuit_breaker::Result::Err(deadline) => {
                    __circuit_breaker::answered_by_fallback(breaker);
                    (__circuit_breaker::time_out(output, permit, deadline), args)
                }
            }
        };
        let output = __circuit_breaker::Output::of_ended(&ended);
        let kind = __circuit_breaker::CanFail::return_kind(output);
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
