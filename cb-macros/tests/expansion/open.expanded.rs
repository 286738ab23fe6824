async fn send(upload: Upload) -> Result<(), SendError> {
    let breaker = {
        static __CIRCUIT_BREAKER_SITE: ::cb_runtime::__private::Site = ::cb_runtime::__private::Site::new(
            "uploads",
        );
        let settings: fn() -> ::cb_runtime::__private::BreakerConfig = || ::cb_runtime::__private::settings();
        __CIRCUIT_BREAKER_SITE.global(settings)
    };
    let (ended, spare) = match breaker.admitted().await {
        ::cb_runtime::__private::Result::Ok(permit) => {
            let body = ::cb_runtime::__private::pin!(async move {
                if false {
                    return ::cb_runtime::__private::never::<Result<(), SendError>>();
                }
                let _ = &upload;
                match () {
                    () => upload.send().await,
                }
            });
            let judge = {
                let output = ::cb_runtime::__private::Output::of(&body);
                let form = {
                    #[allow(unused_imports)]
                    use ::cb_runtime::__private::OtherOutput as _;
                    output.form()
                };
                ::cb_runtime::__private::can_fail(output, form);
                ::cb_runtime::__private::by_type(form)
            };
            (
                breaker.permitted(permit, body, judge).await,
                ::cb_runtime::__private::Option::None,
            )
        }
        ::cb_runtime::__private::Result::Err(error) => {
            let spare = (upload,);
            (
                ::cb_runtime::__private::Ended::Rejected(error),
                ::cb_runtime::__private::Option::Some(spare),
            )
        }
    };
    let output = ::cb_runtime::__private::Output::of_ended(&ended);
    let form = {
        #[allow(unused_imports)]
        use ::cb_runtime::__private::OtherOutput as _;
        output.form()
    };
    match ::cb_runtime::__private::settle_open(form, ended, spare) {
        ::cb_runtime::__private::Result::Ok(value) => value,
        ::cb_runtime::__private::Result::Err((args, reason)) => {
            let reply = ::cb_runtime::__private::call(args, reason, spool);
            ::cb_runtime::__private::reply(output, reply).await
        }
    }
}
