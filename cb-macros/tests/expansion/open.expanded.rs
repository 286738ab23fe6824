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
        let output = __circuit_breaker::Output::<Result<(), SendError>>::new();
        let kind = __circuit_breaker::CanFail::return_kind(output);
        let admission = __circuit_breaker::admit_with_fallback(breaker);
        let admission = if __circuit_breaker::must_wait(admission) {
            __circuit_breaker::waited_with_fallback(
                __circuit_breaker::wait(admission).await,
            )
        } else {
            admission
        };
        let (ended, args) = if __circuit_breaker::is_rejected(admission) {
            let args = (upload,);
            (
                __circuit_breaker::Ended::Rejected(
                    __circuit_breaker::rejection(admission),
                ),
                __circuit_breaker::Option::Some(args),
            )
        } else {
            match __circuit_breaker::call(
                    breaker,
                    admission,
                    async move {
                        if false {
                            return __circuit_breaker::never::<Result<(), SendError>>();
                        }
                        let _ = &upload;
                        match () {
                            () => upload.send().await,
                        }
                    },
                    kind,
                )
                .await
            {
                __circuit_breaker::Result::Ok(value) => {
                    return __circuit_breaker::ManuallyDrop::into_inner(value);
                }
                __circuit_breaker::Result::Err(stopped) => {
                    (
                        __circuit_breaker::ended(output, stopped),
                        __circuit_breaker::Option::None,
                    )
                }
            }
        };
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
