//! What a guarded call counts as.
#![allow(
    clippy::items_after_statements,
    clippy::trivially_copy_pass_by_ref,
    reason = "functions stand where they are used; predicates take what they are given"
)]

mod common;

use std::cell::Cell;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cb_runtime::{BreakerConfig, BreakerError, Registry, circuit_breaker};
use common::{Broken, bounded, outcomes, poll_once};

#[tokio::test]
async fn ok_is_a_success_and_err_a_failure() {
    #[circuit_breaker(name = "ok-and-err")]
    async fn call(fail: bool) -> Result<u32, Broken> {
        if fail { Err(Broken::Down) } else { Ok(7) }
    }
    assert_eq!(call(false).await, Ok(7));
    assert_eq!(call(true).await, Err(Broken::Down));
    let counted = outcomes("ok-and-err");
    assert_eq!((counted.success, counted.failure), (1, 1));
}

#[tokio::test]
async fn user_type_named_result_is_a_plain_value() {
    mod own {
        #[derive(Debug, PartialEq)]
        pub(super) enum Result {
            Err(u8),
        }
    }
    use own::Result;

    #[circuit_breaker(name = "own-result", call_timeout = "1m")]
    async fn call() -> std::result::Result<Result, Broken> {
        Ok(Result::Err(7))
    }
    // Nothing in it can fail by its type: the predicate says what does.
    #[circuit_breaker(name = "own-result", is_failure = |_| false, fallback = |_reason| Result::Err(0))]
    async fn bare() -> Result {
        Result::Err(7)
    }
    assert_eq!(call().await, Ok(Result::Err(7)));
    assert_eq!(bare().await, Result::Err(7));
    let counted = outcomes("own-result");
    assert_eq!((counted.success, counted.failure, counted.ignored), (2, 0, 0));
}

#[tokio::test]
async fn alias_of_result_is_seen_through() {
    type Answer = Result<u32, Broken>;

    #[circuit_breaker(name = "alias", failure_threshold = 2)]
    async fn call() -> Answer {
        Err(Broken::Down)
    }
    assert_eq!(call().await, Err(Broken::Down));
    assert_eq!(call().await, Err(Broken::Down));
    assert_eq!(call().await, Err(Broken::Open));
}

#[tokio::test]
async fn without_a_fallback_an_open_circuit_answers_with_the_breakers_error() {
    #[circuit_breaker(name = "no-fallback", failure_threshold = 1, reset_timeout = "1h")]
    async fn call() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("down".into())
    }
    assert_eq!(call().await.unwrap_err().to_string(), "down");
    let error = *call().await.unwrap_err().downcast::<BreakerError>().unwrap();
    assert!(error.is_open());
    assert_eq!(error.breaker(), "no-fallback");
    let left = error.retry_after().unwrap();
    assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3500), "{left:?}");
}

#[tokio::test]
async fn error_that_is_failure_rejects_is_ignored() {
    #[circuit_breaker(name = "ignored", failure_threshold = 1, is_failure = |r| matches!(r, Err(Broken::Down)))]
    async fn call(error: Broken) -> Result<(), Broken> {
        Err(error)
    }
    assert_eq!(call(Broken::NotFound).await, Err(Broken::NotFound));
    assert_eq!(outcomes("ignored").ignored, 1);
    assert_eq!(call(Broken::Down).await, Err(Broken::Down));
    assert_eq!(call(Broken::NotFound).await, Err(Broken::Open));
}

#[tokio::test]
async fn ok_that_is_failure_accepts_is_a_failure() {
    fn is_server_error(status: &Result<u16, Broken>) -> bool {
        matches!(status, Ok(500..))
    }

    #[circuit_breaker(name = "bad-ok", failure_threshold = 1, is_failure = is_server_error)]
    async fn call(status: u16) -> Result<u16, Broken> {
        Ok(status)
    }
    assert_eq!(call(200).await, Ok(200));
    assert_eq!(call(503).await, Ok(503));
    assert_eq!(call(200).await, Err(Broken::Open));
}

#[tokio::test]
async fn value_other_than_a_result_is_a_success_unless_is_failure_accepts_it() {
    #[circuit_breaker(
        name = "value",
        failure_threshold = 1,
        is_failure = |value: &Option<u8>| value.is_none(),
        fallback = |_| Some(0)
    )]
    async fn call(value: Option<u8>) -> Option<u8> {
        value
    }
    assert_eq!(call(Some(3)).await, Some(3));
    assert_eq!(call(None).await, Some(0));
    assert_eq!(call(Some(3)).await, Some(0));
    assert_eq!(outcomes("value").success, 1);
}

#[tokio::test]
async fn panic_counts_as_a_failure_and_is_still_a_panic() {
    #[circuit_breaker(name = "panic", failure_threshold = 2)]
    async fn call(at_once: bool) -> Result<(), Broken> {
        if !at_once {
            tokio::task::yield_now().await;
        }
        panic!("at the disco")
    }
    for at_once in [false, true] {
        let panic = tokio::spawn(call(at_once)).await.unwrap_err().into_panic();
        assert_eq!(*panic.downcast::<&str>().unwrap(), "at the disco");
    }
    assert_eq!(call(true).await, Err(Broken::Open));
}

#[tokio::test]
async fn predicate_that_panics_counts_as_a_failure() {
    #[circuit_breaker(name = "panicking-predicate", is_failure = |_| panic!("predicate"))]
    async fn call() -> Result<(), Broken> {
        Ok(())
    }
    assert!(tokio::spawn(call()).await.unwrap_err().is_panic());
    assert_eq!(outcomes("panicking-predicate").failure, 1);
}

#[tokio::test]
async fn dropped_call_is_cancelled_and_counts_for_nothing() {
    #[circuit_breaker(name = "cancelled", failure_threshold = 1)]
    async fn call() -> Result<(), Broken> {
        pending().await
    }
    assert!(poll_once(call()).is_pending());
    let counted = outcomes("cancelled");
    assert_eq!((counted.success, counted.failure, counted.cancelled), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn call_that_takes_too_long_is_dropped_and_counts_as_a_failure() {
    struct Dropped<'a>(&'a Cell<bool>);
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    #[circuit_breaker(name = "slow", call_timeout = "250ms", failure_threshold = 1)]
    async fn call(dropped: &Cell<bool>) -> Result<(), Broken> {
        let _dropped = Dropped(dropped);
        pending().await
    }
    let dropped = Cell::new(false);
    let begin = tokio::time::Instant::now();
    assert_eq!(bounded(call(&dropped)).await, Err(Broken::TimedOut));
    assert!(begin.elapsed().as_millis().abs_diff(250) <= 1, "{:?}", begin.elapsed());
    assert!(dropped.get());
    assert_eq!(call(&dropped).await, Err(Broken::Open));
}

#[tokio::test]
async fn call_that_always_has_something_to_do_times_out() {
    #[circuit_breaker(name = "busy", call_timeout = "10ms")]
    async fn call() -> Result<(), Broken> {
        // Uses up the budget of its task each time that it is polled.
        let _ = tokio::io::copy(&mut tokio::io::repeat(0), &mut tokio::io::sink()).await;
        Ok(())
    }
    assert_eq!(bounded(call()).await, Err(Broken::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn call_that_ends_in_time_is_not_touched_by_its_timeout() {
    #[circuit_breaker(name = "in-time", call_timeout = 1)]
    async fn call() -> Result<u8, Broken> {
        tokio::time::sleep(Duration::from_millis(999)).await;
        Ok(1)
    }
    assert_eq!(call().await, Ok(1));
    assert_eq!(outcomes("in-time").success, 1);
}

#[tokio::test]
async fn two_functions_of_one_name_share_a_breaker() {
    #[circuit_breaker(name = "shared", failure_threshold = 1)]
    async fn one() -> Result<(), Broken> {
        Err(Broken::Down)
    }
    #[circuit_breaker(name = "shared", failure_threshold = 1)]
    async fn other() -> Result<(), Broken> {
        Ok(())
    }
    assert_eq!(one().await, Err(Broken::Down));
    assert_eq!(other().await, Err(Broken::Open));
}

#[tokio::test]
async fn config_is_the_base_of_the_other_arguments() {
    const LIMIT: u32 = 2;

    fn base() -> BreakerConfig {
        BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_secs(60))
    }

    #[circuit_breaker(name = "based", config = base(), failure_threshold = LIMIT)]
    async fn call() -> Result<(), Broken> {
        Err(Broken::Down)
    }
    assert_eq!(call().await, Err(Broken::Down));
    assert_eq!(call().await, Err(Broken::Down));
    assert_eq!(call().await, Err(Broken::Open));
}

#[tokio::test]
async fn registry_expression_is_evaluated_at_every_call() {
    struct Client {
        registry: Registry,
    }
    impl Client {
        #[circuit_breaker(name = "own", registry = self.registry, failure_threshold = 1)]
        async fn call(&self) -> Result<(), Broken> {
            Err(Broken::Down)
        }
    }
    let [a, b] = [(); 2].map(|()| Client { registry: Registry::builder().build().unwrap() });
    for client in [&a, &b] {
        assert_eq!(client.call().await, Err(Broken::Down));
        assert_eq!(client.call().await, Err(Broken::Open));
    }
    assert!(Registry::global().breaker("own").is_none());

    #[circuit_breaker(name = "own", registry = registry)]
    async fn with_argument(registry: Arc<Registry>) -> Result<(), Broken> {
        Ok(())
    }
    let own = Arc::new(Registry::builder().build().unwrap());
    assert_eq!(with_argument(own.clone()).await, Ok(()));
    assert_eq!(own.breaker("own").unwrap().snapshot().outcomes.success, 1);
}
