async fn send(upload: Upload) -> Result<(), SendError> {
    use ::cb_runtime::attribute as __circuit_breaker;
    let breaker = {
        static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
            "uploads",
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
                        let args = (upload,);
                        (
                            __circuit_breaker::Ended::Rejected(rejection),
                            __circuit_breaker::Option::Some(args),
                        )
                    };
                }
            };
            let (output, body) = __circuit_breaker::with_output(async move {
                if false {
                    return __circuit_breaker::never::<Result<(), SendError>>();
                }
                let _ = &upload;
                match () {
                    () => upload.send().await,
                }
            });
            let kind = __circuit_breaker::CanFail::return_kind(output);
            match __circuit_breaker::run(breaker, &mut permit, body, kind).await {
                __circuit_breaker::Result::Ok(value) => {
                    __circuit_breaker::has_ended(permit);
                    return __circuit_breaker::ManuallyDrop::into_inner(value);
                }
                __circuit_breaker::Result::Err(deadline) => {
                    (
                        __circuit_breaker::time_out(output, permit, deadline),
                        __circuit_breaker::Option::None,
                    )
                }
            }
        };
        let output = __circuit_breaker::Output::of_ended(&ended);
        let kind = __circuit_breaker::CanFail::return_kind(output);
        match __circuit_breaker::into_return_or_open(
            kind,
            ended,
            args,
            __circuit_breaker::unnameable(),
            __circuit_breaker::FromBreakerError::from_breaker_error,
        ) {
            __circuit_breaker::Result::Ok(value) => return value,
            __circuit_breaker::Result::Err((args, reason)) => (output, args, reason),
        }
    };
    let later = {
        let reply = __circuit_breaker::Callable::call(args, reason, spool);
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
