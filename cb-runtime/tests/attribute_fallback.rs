//! Fallbacks of every shape, and when they are asked.
#![allow(
    clippy::items_after_statements,
    clippy::manual_async_fn,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::unused_async,
    reason = "a fallback has the shape that the test is about"
)]

mod common;

use std::cell::RefCell;
use std::future::Future;
use std::sync::Mutex;

use cb_runtime::{BreakerError, CallError, Registry, circuit_breaker};
use common::{Broken, bounded};

type Answer = Result<String, Broken>;

fn plain(id: u64, name: &str) -> Answer {
    Ok(format!("plain {id} {name}"))
}

fn with_reason(id: u64, name: &str, reason: CallError<Broken>) -> Answer {
    Ok(match reason {
        CallError::Rejected(error) => format!("{id} {name} rejected by {}", error.breaker()),
        CallError::Failed(error) => format!("{id} {name} failed: {error:?}"),
        other => format!("{id} {name} {other:?}"),
    })
}

async fn later(id: u64, name: &str) -> Answer {
    tokio::task::yield_now().await;
    Ok(format!("later {id} {name}"))
}

async fn later_with_reason(id: u64, name: &str, reason: CallError<Broken>) -> Answer {
    tokio::task::yield_now().await;
    Ok(format!("later {id} {name} {}", reason.is_rejected()))
}

fn returning_a_future(id: u64, name: &str) -> impl Future<Output = Answer> + use<'_> {
    async move { Ok(format!("future {id} {name}")) }
}

fn generic<T: ToString, N: AsRef<str>>(id: T, name: N) -> Answer {
    Ok(format!("generic {} {}", id.to_string(), name.as_ref()))
}

fn bare(id: u64, _name: &str) -> String {
    format!("bare {id}")
}

async fn bare_later(id: u64, _name: &str) -> String {
    format!("bare later {id}")
}

macro_rules! answers {
    ($($test:ident: $fallback:expr => $failed:literal, $rejected:literal;)*) => {$(
        #[tokio::test]
        async fn $test() {
            #[circuit_breaker(name = stringify!($test), failure_threshold = 1, fallback = $fallback)]
            async fn call(id: u64, name: &str) -> Answer {
                Err(if id == 0 { panic!("the body ran with {name}") } else { Broken::Down })
            }
            assert_eq!(call(1, "a").await.as_deref(), Ok($failed));
            assert_eq!(call(0, "b").await.as_deref(), Ok($rejected));
        }
    )*};
}

answers! {
    a_function: plain => "plain 1 a", "plain 0 b";
    a_function_with_the_reason: with_reason => "1 a failed: Down", "0 b rejected by a_function_with_the_reason";
    an_async_function: later => "later 1 a", "later 0 b";
    an_async_function_with_the_reason: later_with_reason => "later 1 a false", "later 0 b true";
    a_function_returning_a_future: returning_a_future => "future 1 a", "future 0 b";
    a_generic_function: generic => "generic 1 a", "generic 0 b";
    a_generic_function_with_its_types: generic::<u64, &str> => "generic 1 a", "generic 0 b";
    a_function_of_the_value_in_ok: bare => "bare 1", "bare 0";
    an_async_function_of_the_value_in_ok: bare_later => "bare later 1", "bare later 0";
    a_closure: |id, name| Ok(format!("{id} {}", name.to_uppercase())) => "1 A", "0 B";
    a_closure_with_the_reason: |id, _, reason| Ok(format!("{id} {}", reason.breaker_error().is_some()))
        => "1 false", "0 true";
    a_closure_of_the_value_in_ok: |_, name| name.to_owned() => "a", "b";
    a_closure_that_returns_a_future: |id, _| async move { Ok(format!("{id}")) } => "1", "0";
    an_async_closure: async |id, name| Ok(format!("{id} {name}")) => "1 a", "0 b";
    a_closure_with_types: |id: u64, name: &str| -> Answer { Ok(format!("{id} {name}")) } => "1 a", "0 b";
}

#[tokio::test]
async fn open_is_for_rejections_and_clones_nothing() {
    struct NoClone(u64);

    fn fallback(id: NoClone) -> Result<u64, Broken> {
        Ok(id.0 + 100)
    }

    #[circuit_breaker(name = "open-only", failure_threshold = 1, fallback = fallback, fallback_on = "open")]
    async fn call(id: NoClone) -> Result<u64, Broken> {
        if id.0 == 0 { Ok(0) } else { Err(Broken::Down) }
    }
    assert_eq!(call(NoClone(0)).await, Ok(0));
    assert_eq!(call(NoClone(1)).await, Err(Broken::Down));
    assert_eq!(call(NoClone(2)).await, Ok(102));
}

#[tokio::test]
async fn error_is_for_failures() {
    #[circuit_breaker(name = "error-only", failure_threshold = 1, fallback = |_| Ok(1), fallback_on = "error")]
    async fn call(fail: bool) -> Result<u64, Broken> {
        if fail { Err(Broken::Down) } else { Ok(0) }
    }
    assert_eq!(call(false).await, Ok(0));
    assert_eq!(call(true).await, Ok(1));
    assert_eq!(call(true).await, Err(Broken::Open));
}

#[tokio::test(start_paused = true)]
async fn timeout_is_a_failure_for_the_fallback() {
    fn fallback(reason: CallError<Broken>) -> Result<bool, Broken> {
        Ok(reason.is_timeout())
    }

    #[circuit_breaker(name = "timeout", call_timeout = 1, fallback = fallback)]
    async fn any() -> Result<bool, Broken> {
        std::future::pending().await
    }
    assert_eq!(bounded(any()).await, Ok(true));

    #[circuit_breaker(name = "timeout", call_timeout = 1, fallback = fallback, fallback_on = "open")]
    async fn open() -> Result<bool, Broken> {
        std::future::pending().await
    }
    assert_eq!(bounded(open()).await, Err(Broken::TimedOut));
}

#[tokio::test]
async fn ignored_error_is_not_answered_by_the_fallback() {
    #[circuit_breaker(
        name = "ignored",
        is_failure = |r| matches!(r, Err(Broken::Down)),
        fallback = || Ok(())
    )]
    async fn call() -> Result<(), Broken> {
        Err(Broken::NotFound)
    }
    assert_eq!(call().await, Err(Broken::NotFound));
}

#[tokio::test]
async fn with_a_fallback_for_everything_the_error_need_not_know_the_breaker() {
    #[circuit_breaker(name = "unrelated-error", failure_threshold = 1, fallback = |_, reason| {
        let reason: CallError<u8> = reason;
        reason.into_inner().ok_or(0)
    })]
    async fn call(error: u8) -> Result<u8, u8> {
        Err(error)
    }
    assert_eq!(call(9).await, Ok(9));
    assert_eq!(call(9).await, Err(0));
}

#[tokio::test]
async fn value_that_counts_as_a_failure_is_unacceptable() {
    #[circuit_breaker(name = "unacceptable", is_failure = |r| *r == Ok(0), fallback = |_, reason| {
        assert!(matches!(reason, CallError::Unacceptable));
        Ok(1)
    })]
    async fn call(value: u8) -> Result<u8, BreakerErrorIsNotNeeded> {
        Ok(value)
    }
    #[derive(Debug, PartialEq)]
    struct BreakerErrorIsNotNeeded;

    assert_eq!(call(0).await, Ok(1));
    assert_eq!(call(5).await, Ok(5));
}

struct Service {
    log: Mutex<Vec<&'static str>>,
}

impl Service {
    #[circuit_breaker(name = "method", failure_threshold = 1, fallback = Self::fallback)]
    async fn by_reference(&self, id: u32) -> Result<u32, Broken> {
        self.log.lock().unwrap().push("body");
        Err(if id > 0 { Broken::Down } else { Broken::NotFound })
    }

    async fn fallback(&self, id: u32) -> Result<u32, Broken> {
        self.log.lock().unwrap().push("fallback");
        Ok(id)
    }

    #[circuit_breaker(name = "by-value", fallback = |this: Self| Err(this), fallback_on = "open")]
    async fn by_value(self) -> Result<u32, Self> {
        Err(self)
    }

    #[circuit_breaker(name = "exclusive", failure_threshold = 1, fallback = Self::fallback_mut, fallback_on = "open")]
    async fn exclusive(&mut self, more: &'static str) -> Result<(), Broken> {
        self.log.get_mut().unwrap().push(more);
        Err(Broken::Down)
    }

    fn fallback_mut(&mut self, more: &str) -> Result<(), Broken> {
        self.log.get_mut().unwrap().push(if more == "b" { "fallback for b" } else { "?" });
        Ok(())
    }
}

impl From<BreakerError> for Service {
    fn from(_: BreakerError) -> Self {
        Service { log: Mutex::default() }
    }
}

#[tokio::test]
async fn fallback_of_a_method_gets_self_first() {
    let service = Service { log: Mutex::default() };
    assert_eq!(service.by_reference(3).await, Ok(3));
    assert_eq!(service.by_reference(4).await, Ok(4));
    assert_eq!(*service.log.lock().unwrap(), ["body", "fallback", "fallback"]);
}

#[tokio::test]
async fn method_with_self_or_mut_self_may_have_a_fallback_for_rejections() {
    let mut service = Service { log: Mutex::default() };
    assert_eq!(service.exclusive("a").await, Err(Broken::Down));
    assert_eq!(service.exclusive("b").await, Ok(()));
    assert_eq!(*service.log.lock().unwrap(), ["a", "fallback for b"]);
    assert!(service.by_value().await.is_err());
}

#[tokio::test]
async fn arguments_are_cloned_before_the_body_gets_them() {
    thread_local!(static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });

    #[circuit_breaker(name = "cloned", fallback = |(left, right), [a, _]| {
        SEEN.with_borrow_mut(|seen| seen.push(format!("{left} {right} {a}")));
        Ok(())
    })]
    async fn call((mut left, right): (String, String), [_, b]: [u8; 2]) -> Result<(), Broken> {
        left.push_str(&right);
        drop(right);
        SEEN.with_borrow_mut(|seen| seen.push(format!("{left} {b}")));
        Err(Broken::Down)
    }
    assert_eq!(call(("a".into(), "b".into()), [1, 2]).await, Ok(()));
    assert_eq!(SEEN.take(), ["ab 2", "a b 1"]);
}

#[tokio::test]
async fn answers_of_fallbacks_are_counted() {
    #[circuit_breaker(name = "counts-any", failure_threshold = 2, reset_timeout = "1h", fallback = |_| Ok(1))]
    async fn any(fails: bool) -> Result<u64, Broken> {
        if fails { Err(Broken::Down) } else { Ok(0) }
    }
    #[circuit_breaker(
        name = "counts-open", failure_threshold = 2, reset_timeout = "1h", fallback = |_| Ok(1), fallback_on = "open"
    )]
    async fn open(fails: bool) -> Result<u64, Broken> {
        if fails { Err(Broken::Down) } else { Ok(0) }
    }
    #[circuit_breaker(
        name = "counts-error", failure_threshold = 2, reset_timeout = "1h", fallback = |_| Ok(1), fallback_on = "error"
    )]
    async fn error(fails: bool) -> Result<u64, Broken> {
        if fails { Err(Broken::Down) } else { Ok(0) }
    }
    #[circuit_breaker(
        name = "counts-uncached", failure_threshold = 2, reset_timeout = "1h", fallback = |_| Ok(1),
        cache_ttl = "1h", cache_key = fails
    )]
    async fn cached(fails: bool) -> Result<u64, Broken> {
        if fails { Err(Broken::Down) } else { Ok(0) }
    }
    // A success, two failures, which open the circuit, and five rejections. What `cached` knows the answer of
    // is answered by the cache.
    for fails in [false, true, true, true, true, true, false, false] {
        let _ = (any(fails).await, open(fails).await, error(fails).await, cached(fails).await);
    }
    let counted = |name| {
        let outcomes = Registry::global().breaker(name).unwrap().snapshot().outcomes;
        (outcomes.success, outcomes.failure, outcomes.rejected, outcomes.cached, outcomes.fallback)
    };
    assert_eq!(counted("counts-any"), (1, 2, 5, 0, 7));
    assert_eq!(counted("counts-open"), (1, 2, 5, 0, 5));
    assert_eq!(counted("counts-error"), (1, 2, 5, 0, 2));
    assert_eq!(counted("counts-uncached"), (1, 2, 5, 2, 5));
}
