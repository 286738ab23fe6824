impl Directory {
    async fn find(&self, id: u64) -> Result<User, HttpError> {
        use ::cb_runtime::attribute as __circuit_breaker;
        let breaker = {
            static __CIRCUIT_BREAKER_SITE: __circuit_breaker::Site = __circuit_breaker::Site::new(
                "directory",
            );
            let settings: __circuit_breaker::MakeSettings = || {
                __circuit_breaker::settings()
                    .call_timeout(__circuit_breaker::Duration::new(0u64, 500000000u32))
            };
            __circuit_breaker::Site::global(&__CIRCUIT_BREAKER_SITE, settings)
        };
        let ended = 'call: {
            let admission = __circuit_breaker::admit(breaker);
            let admission = if __circuit_breaker::must_wait(admission) {
                __circuit_breaker::wait(admission).await
            } else {
                admission
            };
            let mut permit = match __circuit_breaker::admitted(admission) {
                __circuit_breaker::Result::Ok(permit) => permit,
                __circuit_breaker::Result::Err(rejection) => {
                    break 'call __circuit_breaker::Ended::Rejected(rejection);
                }
            };
            let (output, body) = __circuit_breaker::with_output(async move {
                if false {
                    return __circuit_breaker::never::<Result<User, HttpError>>();
                }
                let _ = &id;
                let _ = &self;
                match () {
                    () => self.client.get(id).await,
                }
            });
            let kind = {
                #[allow(unused_imports)]
                use __circuit_breaker::OtherOutput as _;
                output.circuit_breaker_return_kind()
            };
            let judge = __circuit_breaker::by_predicate(
                output,
                kind,
                |r| matches!(r, Err(e) if e.is_server_error()),
            );
            match __circuit_breaker::run_to_judge(breaker, &mut permit, body).await {
                __circuit_breaker::Result::Ok(value) => {
                    let value = __circuit_breaker::ManuallyDrop::into_inner(value);
                    let verdict = __circuit_breaker::end(permit, judge, &value);
                    return value;
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
}
