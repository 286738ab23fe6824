//! Arguments of all shapes and names, of the function and of the attribute.
#![allow(
    clippy::items_after_statements,
    clippy::many_single_char_names,
    clippy::non_minimal_cfg,
    clippy::too_many_arguments,
    clippy::unnested_or_patterns,
    reason = "the code under test is as odd as users' code can be"
)]

mod common;

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::{BreakerError, Registry, circuit_breaker};
use common::{Broken, outcomes};

#[derive(Clone)]
struct Pair {
    left: String,
    right: u8,
}

struct Tuple(u8);

#[tokio::test]
async fn patterns_in_the_place_of_arguments() {
    #[circuit_breaker(name = "patterns", fallback = |_, _, pair, _, _, _, _| Ok(pair.left))]
    async fn with_fallback(
        mut a: u8,
        _: u8,
        Pair { left, .. }: Pair,
        &b: &u8,
        [c, d]: [u8; 2],
        (e, (ref f, _)): (u8, (String, u8)),
        (g @ 1..=u8::MAX | g @ 0): u8,
    ) -> Result<String, Broken> {
        a += b + c + d + e + g;
        if a == 0 { Err(Broken::Down) } else { Ok(format!("{left} {f} {a}")) }
    }
    let pair = || Pair { left: "l".into(), right: 0 };
    assert_eq!(pair().right, 0);
    let answer = with_fallback(1, 0, pair(), &2, [3, 4], (5, ("f".into(), 0)), 6).await;
    assert_eq!(answer.as_deref(), Ok("l f 21"));
    let answer = with_fallback(0, 0, pair(), &0, [0, 0], (0, ("f".into(), 0)), 0).await;
    assert_eq!(answer.as_deref(), Ok("l"));

    #[circuit_breaker(name = "patterns")]
    async fn without(Tuple(a): Tuple, mut b: Vec<u8>, _: &str) -> Result<Vec<u8>, Broken> {
        b.push(a);
        Ok(b)
    }
    assert_eq!(without(Tuple(1), vec![], "").await, Ok(vec![1]));
}

#[tokio::test]
async fn arguments_may_have_any_name() {
    #[circuit_breaker(name = "names", fallback = |_, _, _, _, _, _, _, _, _, _, _, _| Ok(0))]
    async fn call(
        key: u8,
        result: u8,
        cache: u8,
        name: u8,
        body: u8,
        ended: u8,
        breaker: u8,
        output: u8,
        r#type: u8,
        form: u8,
        spare: u8,
        args: u8,
    ) -> Result<u8, Broken> {
        Ok(key + result + cache + name + body + ended + breaker + output + r#type + form + spare + args)
    }
    assert_eq!(call(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1).await, Ok(12));
}

#[tokio::test]
async fn conditionally_compiled_argument() {
    #[circuit_breaker(name = "cfg")]
    async fn call(#[cfg(any())] gone: u8, #[cfg(all())] here: u8) -> Result<u8, Broken> {
        #[cfg(any())]
        return gone;
        Ok(here)
    }
    assert_eq!(call(4).await, Ok(4));
}

#[tokio::test]
async fn patterns_with_a_key_and_a_fallback() {
    #[circuit_breaker(
        name = "patterns-key",
        cache_ttl = "1m",
        cache_key = (count, first, left.len(), more, fourth),
        fallback = |count, _, pair, other, _, _| Ok(count + pair.0 + other.right)
    )]
    async fn call(
        mut count: u8,
        _: u8,
        (first, second): (u8, u8),
        Pair { ref left, .. }: Pair,
        &more: &u8,
        [third, fourth]: [u8; 2],
    ) -> Result<u8, Broken> {
        count += first + second + more + third;
        if fourth == 0 { Err(Broken::Down) } else { Ok(count + u8::try_from(left.len()).unwrap_or(0)) }
    }
    let pair = || Pair { left: "l".into(), right: 100 };
    assert_eq!(call(1, 0, (2, 3), pair(), &4, [5, 6]).await, Ok(16));
    assert_eq!(call(1, 0, (2, 3), pair(), &4, [5, 0]).await, Ok(103), "another key: the fallback");
}

#[tokio::test]
async fn names_that_an_expansion_could_have_taken() {
    #[circuit_breaker(
        name = "names-too",
        cache_ttl = "1m",
        cache_key = (e, r#fn),
        fallback = |e, fut, _, _, _, _, _, r#fn, _, _| Ok(e + fut + r#fn + 100)
    )]
    async fn r#match(
        e: u8,
        fut: u8,
        this: u8,
        value: u8,
        reason: u8,
        settings: u8,
        permit: u8,
        r#fn: u8,
        judge: u8,
        codec: u8,
    ) -> Result<u8, Broken> {
        if e == 0 {
            Err(Broken::Down)
        } else {
            Ok(e + fut + this + value + reason + settings + permit + r#fn + judge + codec)
        }
    }
    assert_eq!(r#match(1, 1, 1, 1, 1, 1, 1, 1, 1, 1).await, Ok(10));
    assert_eq!(r#match(0, 1, 1, 1, 1, 1, 1, 1, 1, 1).await, Ok(102));
}

/// How long a circuit that this opens says it will be open.
macro_rules! opened_for {
    ($span:expr) => {{
        #[circuit_breaker(name = "spans", registry = registry, failure_threshold = 1, reset_timeout = $span)]
        async fn call(registry: &Registry) -> anyhow::Result<()> {
            anyhow::bail!("down")
        }
        // A clock that stands, so that nothing of the span is over.
        let registry = Registry::builder().clock(Clock::manual().0).build().unwrap();
        assert!(!call(&registry).await.unwrap_err().is::<BreakerError>());
        call(&registry).await.unwrap_err().downcast::<BreakerError>().unwrap().retry_after().unwrap()
    }};
}

#[tokio::test]
async fn durations_as_seconds_as_a_text_as_a_duration_and_as_a_constant() {
    const PAUSE: Duration = Duration::from_millis(1500);

    assert_eq!(opened_for!(300), Duration::from_secs(300));
    assert_eq!(opened_for!(0.5), Duration::from_millis(500));
    assert_eq!(opened_for!("5m"), Duration::from_secs(300));
    assert_eq!(opened_for!("1m 30s"), Duration::from_secs(90));
    assert_eq!(opened_for!(Duration::from_millis(250)), Duration::from_millis(250));
    assert_eq!(opened_for!(PAUSE), PAUSE);
    assert_eq!(opened_for!(PAUSE * 2), Duration::from_secs(3));
}

#[tokio::test]
async fn name_may_be_a_constant() {
    const NAME: &str = "constant";

    #[circuit_breaker(name = NAME)]
    async fn constant() -> Result<(), Broken> {
        Ok(())
    }
    #[circuit_breaker(name = SITE)]
    async fn with_a_name_of_ours() -> Result<(), Broken> {
        Ok(())
    }
    const SITE: &str = "site";
    with_a_name_of_ours().await.unwrap();

    #[circuit_breaker(name = concat!("con", "cat"))]
    async fn concatenated() -> Result<(), Broken> {
        Ok(())
    }
    constant().await.unwrap();
    concatenated().await.unwrap();
    assert_eq!((outcomes("constant").success, outcomes("concat").success), (1, 1));
}

thread_local!(static DROPPED: Cell<[char; 8]> = const { Cell::new([' '; 8]) });

#[derive(Clone)]
struct Noisy(char);

impl Drop for Noisy {
    fn drop(&mut self) {
        let mut dropped = DROPPED.get();
        dropped.rotate_left(1);
        dropped[7] = self.0;
        DROPPED.set(dropped);
    }
}

/// What was dropped while the future ran, in order.
async fn dropped_by<T>(future: impl Future<Output = T>) -> String {
    DROPPED.set([' '; 8]);
    future.await;
    DROPPED.get().iter().collect::<String>().trim().to_owned()
}

macro_rules! drop_order {
    ($($(#[$attribute:meta])* $name:ident)*) => {$(
        $(#[$attribute])*
        async fn $name(a: Noisy, _: Noisy, c: Noisy, _d: Noisy, (e, _f): (Noisy, Noisy)) -> Result<(), Broken> {
            let inside = c;
            tokio::task::yield_now().await;
            let _ = (&a, &inside, &e);
            Ok(())
        }
    )*};
}

drop_order! {
    bare_drops
    #[circuit_breaker(name = "drops")]
    guarded_drops
    #[circuit_breaker(name = "drops", fallback = |_, _, _, _, _| Ok(()), fallback_on = "open")]
    guarded_drops_with_fallback
}

#[tokio::test]
async fn arguments_are_dropped_in_the_same_order_as_without_the_attribute() {
    let n = |name| Noisy(name);
    let bare = dropped_by(bare_drops(n('a'), n('b'), n('c'), n('d'), (n('e'), n('f')))).await;
    assert_eq!(bare, "cfedba");
    let guarded = dropped_by(guarded_drops(n('a'), n('b'), n('c'), n('d'), (n('e'), n('f')))).await;
    assert_eq!(guarded, bare);
    let guarded =
        dropped_by(guarded_drops_with_fallback(n('a'), n('b'), n('c'), n('d'), (n('e'), n('f')))).await;
    assert_eq!(guarded, bare);
}
