//! `cache_ttl`: the last good answer in place of a failed or rejected call.

mod common;

use std::borrow::Cow;
use std::cell::Cell;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cb_runtime::clock::{Clock, ManualClock};
use cb_runtime::{CacheTier, CallError, Event, Registry, State, circuit_breaker};
use common::{Broken, bounded, outcomes, poll_once};
use serde::{Deserialize, Serialize};

thread_local!(static DOWN: Cell<bool> = const { Cell::new(false) });

fn up(up: bool) {
    DOWN.set(!up);
}

/// What the dependency says: an answer, or that it is down.
fn ask<T>(answer: T) -> Result<T, Broken> {
    if DOWN.get() { Err(Broken::Down) } else { Ok(answer) }
}

fn registry() -> (&'static Registry, ManualClock) {
    let (clock, hands) = Clock::manual();
    // For ever, so that attributes can name it: it is a test's.
    (Box::leak(Box::new(Registry::builder().clock(clock).build().unwrap())), hands)
}

#[tokio::test]
async fn success_answers_failures_and_rejections_until_its_ttl() {
    thread_local!(static HERE: Cell<Option<&'static Registry>> = const { Cell::new(None) });
    #[circuit_breaker(
        name = "users", registry = HERE.get().unwrap(), failure_threshold = 2, cache_ttl = "5m", reset_timeout = "1h",
        fallback = |id: u64| Ok(format!("fallback {id}"))
    )]
    async fn get_user(id: u64) -> Result<String, Broken> {
        ask(format!("user {id}"))
    }
    let (registry, hands) = registry();
    HERE.set(Some(registry));
    let mut events = registry.subscribe();

    assert_eq!(get_user(1).await.unwrap(), "user 1");
    up(false);
    assert_eq!(get_user(1).await.unwrap(), "user 1", "failed");
    assert_eq!(get_user(2).await.unwrap(), "fallback 2", "other arguments never share");
    assert_eq!(
        registry.breaker("users").unwrap().state(),
        State::Open,
        "an answer from the cache is no success"
    );
    hands.advance(Duration::from_secs(299));
    assert_eq!(get_user(1).await.unwrap(), "user 1", "rejected, and not renewed by having been read");
    hands.advance(Duration::from_secs(1));
    assert_eq!(get_user(1).await.unwrap(), "fallback 1", "the ttl is over");

    let mut hits = Vec::new();
    while let Some(event) = events.try_recv() {
        match event {
            Event::CacheHit { breaker, tier, age } => {
                assert_eq!((&*breaker, tier), ("users", CacheTier::Local));
                hits.push(age.as_secs());
            }
            Event::Error(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(hits, [0, 299]);
}

#[tokio::test]
async fn result_with_a_static_lifetime_is_cached() {
    thread_local!(static HERE: Cell<Option<&'static Registry>> = const { Cell::new(None) });
    #[circuit_breaker(name = "texts", registry = HERE.get().unwrap(), cache_ttl = "5m")]
    async fn text(id: u64) -> Result<Vec<Cow<'static, str>>, Broken> {
        ask(vec![Cow::Borrowed("borrowed"), Cow::Owned(id.to_string())])
    }
    HERE.set(Some(registry().0));
    up(true);
    assert_eq!(text(7).await.unwrap(), ["borrowed", "7"]);
    up(false);
    assert_eq!(text(7).await.unwrap(), ["borrowed", "7"]);
}

#[tokio::test]
async fn fallback_value_is_never_cached_and_cached_none_is_a_hit() {
    #[circuit_breaker(name = "cache: none", cache_ttl = 300, fallback = |id| Ok(Some(id)))]
    async fn find(id: u64) -> Result<Option<u64>, Broken> {
        ask(None)
    }
    up(false);
    assert_eq!(find(1).await, Ok(Some(1)));
    up(true);
    assert_eq!(find(1).await, Ok(None));
    up(false);
    assert_eq!(find(1).await, Ok(None), "None is an answer");
    assert_eq!(find(2).await, Ok(Some(2)));
}

/// The ways in which a call can end without a result, or only after a while.
#[derive(Clone, Copy, Serialize)]
enum Ending {
    AfterAWhile,
    Never,
    Panic,
}

#[tokio::test(start_paused = true)]
async fn cached_call_records_each_way_in_which_it_can_end() {
    struct Running(&'static AtomicU64);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    static RUNNING: AtomicU64 = AtomicU64::new(0);
    static FAILURES: AtomicU64 = AtomicU64::new(0);

    fn counted() -> u64 {
        outcomes("endings").failure
    }

    #[circuit_breaker(
        name = "endings", failure_threshold = 3, call_timeout = "1s", cache_ttl = 300, cache_key = id,
        fallback = |_, _, reason: CallError<Broken>| {
            // The failure has been recorded, and the body has been dropped before.
            FAILURES.store(counted(), Ordering::Relaxed);
            assert_eq!(RUNNING.load(Ordering::Relaxed), 0);
            Ok(if reason.is_timeout() { "timed out" } else { "rejected" }.to_owned())
        }
    )]
    async fn call(id: u64, ending: Ending) -> Result<String, Broken> {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        let _running = Running(&RUNNING);
        match ending {
            Ending::AfterAWhile => tokio::task::yield_now().await,
            Ending::Never => pending().await,
            Ending::Panic => panic!("at the disco"),
        }
        Ok(format!("result {id}"))
    }

    assert_eq!(call(1, Ending::AfterAWhile).await.unwrap(), "result 1");
    assert!(poll_once(call(1, Ending::Never)).is_pending());
    let seen = outcomes("endings");
    assert_eq!((seen.success, seen.failure, seen.cancelled), (1, 0, 1));

    assert_eq!(bounded(call(1, Ending::Never)).await.unwrap(), "result 1", "cached, after the timeout");
    assert_eq!(bounded(call(2, Ending::Never)).await.unwrap(), "timed out");
    assert_eq!((FAILURES.load(Ordering::Relaxed), counted()), (2, 2));

    assert!(tokio::spawn(call(1, Ending::Panic)).await.unwrap_err().is_panic());
    assert_eq!(counted(), 3);
    assert_eq!(call(1, Ending::AfterAWhile).await.unwrap(), "result 1", "cached, of a rejected call");
    assert_eq!(call(2, Ending::AfterAWhile).await.unwrap(), "rejected");
    assert_eq!(RUNNING.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn functions_of_one_breaker_do_not_share() {
    mod one {
        use super::*;
        #[circuit_breaker(name = "cache: shared", cache_ttl = 300)]
        pub(super) async fn get(id: u64) -> Result<String, Broken> {
            ask(format!("one {id}"))
        }
    }
    mod other {
        use super::*;
        #[circuit_breaker(name = "cache: shared", cache_ttl = 300)]
        pub(super) async fn get(id: u64) -> Result<String, Broken> {
            ask(format!("other {id}"))
        }
    }
    up(true);
    assert_eq!(one::get(1).await.unwrap(), "one 1");
    up(false);
    assert_eq!(other::get(1).await, Err(Broken::Down));
    up(true);
    assert_eq!(other::get(1).await.unwrap(), "other 1");
    up(false);
    assert_eq!(one::get(1).await.unwrap(), "one 1");
}

struct Client {
    tenant: &'static str,
}

impl Client {
    #[circuit_breaker(name = "cache: tenants", cache_ttl = 300, cache_key = (self.tenant, id))]
    async fn get(&self, id: u64) -> Result<String, Broken> {
        ask(format!("{} {id}", self.tenant))
    }
}

#[tokio::test]
async fn receivers_share_no_further_than_the_cache_key_says() {
    let (a, b) = (Client { tenant: "a" }, Client { tenant: "b" });
    up(true);
    assert_eq!(a.get(1).await.unwrap(), "a 1");
    up(false);
    assert_eq!(b.get(1).await, Err(Broken::Down));
    assert_eq!(a.get(1).await.unwrap(), "a 1");
}

#[tokio::test]
async fn key_expression_is_evaluated_at_every_call() {
    static VERSION: AtomicU64 = AtomicU64::new(1);
    #[circuit_breaker(name = "cache: version", cache_ttl = 300, cache_key = VERSION.load(Ordering::Relaxed))]
    async fn get() -> Result<u64, Broken> {
        ask(7)
    }
    up(true);
    assert_eq!(get().await, Ok(7));
    up(false);
    assert_eq!(get().await, Ok(7));
    VERSION.store(2, Ordering::Relaxed);
    assert_eq!(get().await, Err(Broken::Down));
}

/// Written as a text that it cannot be read from.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "lowercase", deserialize = "UPPERCASE"))]
enum Crooked {
    Value,
}

/// Cannot always be serialized.
struct Touchy;

impl Serialize for Touchy {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

fn cache_errors(events: &mut cb_runtime::Events) -> Vec<String> {
    let mut errors = Vec::new();
    while let Some(event) = events.try_recv() {
        if let Event::Error(error) = event
            && error.is_cache()
        {
            errors.push(error.to_string());
        }
    }
    errors
}

#[tokio::test]
async fn unreadable_result_is_reported_at_the_first_success() {
    thread_local!(static HERE: Cell<Option<&'static Registry>> = const { Cell::new(None) });
    #[circuit_breaker(name = "crooked", registry = HERE.get().unwrap(), cache_ttl = 300, fallback = || Err(Broken::NotFound))]
    async fn get() -> Result<Crooked, Broken> {
        ask(Crooked::Value)
    }
    let (registry, _) = registry();
    HERE.set(Some(registry));
    let mut events = registry.subscribe();
    up(true);
    assert_eq!(get().await, Ok(Crooked::Value));
    assert_eq!(get().await, Ok(Crooked::Value));
    let errors = cache_errors(&mut events);
    assert!(errors.len() == 1 && errors[0].contains("unknown variant `value`"), "{errors:?}");
    up(false);
    assert_eq!(get().await, Err(Broken::NotFound));
    assert_eq!(cache_errors(&mut events), [""; 0]);
}

#[tokio::test]
async fn unserializable_arguments_disable_the_cache_and_are_reported_once() {
    thread_local!(static HERE: Cell<Option<&'static Registry>> = const { Cell::new(None) });
    #[circuit_breaker(name = "touchy", registry = HERE.get().unwrap(), cache_ttl = 300)]
    async fn get(_with: Touchy) -> Result<u64, Broken> {
        ask(7)
    }
    let (registry, _) = registry();
    HERE.set(Some(registry));
    let mut events = registry.subscribe();
    up(true);
    assert_eq!(get(Touchy).await, Ok(7));
    up(false);
    assert_eq!(get(Touchy).await, Err(Broken::Down));
    let errors = cache_errors(&mut events);
    assert!(errors.len() == 1 && errors[0].contains("not today") && errors[0].contains("get"), "{errors:?}");
}

#[test]
fn cache_works_without_tokio() {
    static DEPENDENCY: AtomicBool = AtomicBool::new(true);
    #[circuit_breaker(name = "cache: no tokio", cache_ttl = 300)]
    async fn get() -> Result<u64, Broken> {
        if DEPENDENCY.load(Ordering::Relaxed) { Ok(7) } else { Err(Broken::Down) }
    }
    assert_eq!(common::poll_once(get()), std::task::Poll::Ready(Ok(7)));
    DEPENDENCY.store(false, Ordering::Relaxed);
    assert_eq!(common::poll_once(get()), std::task::Poll::Ready(Ok(7)));
}
