async fn get_user(id: u64, tenant: &str) -> Result<User, FetchError> {
    let breaker = {
        static __CIRCUIT_BREAKER_SITE: ::cb_runtime::__private::Site = ::cb_runtime::__private::Site::new(
            "user-service",
        );
        let settings: fn() -> ::cb_runtime::__private::BreakerConfig = || ::cb_runtime::__private::settings();
        __CIRCUIT_BREAKER_SITE.global(settings)
    };
    let spare = (
        ::cb_runtime::__private::spare(&id),
        ::cb_runtime::__private::spare(&tenant),
    );
    let ended = {
        let body = ::cb_runtime::__private::pin!(async move {
            if false {
                return ::cb_runtime::__private::never::<Result<User, FetchError>>();
            }
            let _ = &tenant;
            let _ = &id;
            match () {
                () => fetch(id, tenant).await,
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
        breaker.run(body, judge).await
    };
    let output = ::cb_runtime::__private::Output::of_ended(&ended);
    let form = {
        #[allow(unused_imports)]
        use ::cb_runtime::__private::OtherOutput as _;
        output.form()
    };
    match ::cb_runtime::__private::settle_any(form, ended, spare) {
        ::cb_runtime::__private::Result::Ok(value) => value,
        ::cb_runtime::__private::Result::Err((args, reason)) => {
            let reply = ::cb_runtime::__private::call(args, reason, guest);
            ::cb_runtime::__private::reply(output, reply).await
        }
    }
}
