//! The attribute among others: other attributes, other macros, items of the same names.
#![allow(clippy::items_after_statements, reason = "functions stand where they are used")]

mod common;

use cb_runtime::circuit_breaker;
use common::{Broken, outcomes};
use tracing::instrument;

#[tokio::test]
async fn upper_of_two_attributes_is_the_inner_breaker() {
    // As with all attributes: the upper one is expanded first, the lower one around what came of it.
    #[circuit_breaker(name = "inner", failure_threshold = 1)]
    #[circuit_breaker(name = "outer")]
    async fn call(n: u8) -> Result<u8, Broken> {
        if n == 0 { Err(Broken::Down) } else { Ok(n) }
    }
    assert_eq!(call(1).await, Ok(1));
    assert_eq!(call(0).await, Err(Broken::Down));
    assert_eq!(call(1).await, Err(Broken::Open));
    assert_eq!((outcomes("outer").failure, outcomes("inner").failure), (2, 1));
}

macro_rules! guarded {
    ($name:ident, $breaker:literal, $arg:ident: $ty:ty => $body:expr) => {
        #[circuit_breaker(name = $breaker, fallback = |argument| Ok(argument))]
        async fn $name($arg: $ty) -> Result<$ty, Broken> {
            $body
        }
    };
}

guarded!(from_a_macro, "macro", x: u8 => if x == 1 { Err(Broken::Down) } else { Ok(x * 2) });

#[tokio::test]
async fn function_from_a_macro() {
    assert_eq!(from_a_macro(4).await, Ok(8));
    assert_eq!(from_a_macro(1).await, Ok(1));
}

#[tokio::test]
async fn instrument_above_and_below() {
    #[instrument(err, ret, fields(sum = a + b))]
    #[circuit_breaker(name = "instrument-above", fallback = |id, _| Ok(id), fallback_on = "open")]
    async fn above(mut id: u8, (a, b): (u8, u8)) -> Result<u8, Broken> {
        id += a + b;
        if id == 0 { Err(Broken::Down) } else { Ok(id) }
    }
    #[circuit_breaker(name = "instrument-below", fallback = |id, _| Ok(id), fallback_on = "open")]
    #[instrument(err, ret)]
    async fn below(mut id: u8, (a, b): (u8, u8)) -> Result<u8, Broken> {
        id += a + b;
        if id == 0 { Err(Broken::Down) } else { Ok(id) }
    }
    for breaker in ["instrument-above", "instrument-below"] {
        let call = async |id| {
            if breaker.ends_with("above") { above(id, (0, 0)).await } else { below(id, (0, 0)).await }
        };
        assert_eq!(call(1).await, Ok(1));
        assert_eq!(call(0).await, Err(Broken::Down));
        assert_eq!((outcomes(breaker).success, outcomes(breaker).failure), (1, 1));
    }
}

#[circuit_breaker(name = "tokio-test-below", fallback = || panic!("the test failed") as Result<(), Broken>)]
#[tokio::test]
async fn tokio_test_below() -> Result<(), Broken> {
    tokio::task::yield_now().await;
    Ok(())
}

#[tokio::test]
#[circuit_breaker(name = "tokio-test-above")]
async fn tokio_test_above() -> Result<(), Broken> {
    let breaker = cb_runtime::Registry::global().breaker("tokio-test-above").ok_or(Broken::NotFound)?;
    assert_eq!(breaker.snapshot().outcomes.success, 0);
    tokio::task::yield_now().await;
    return Ok(());
}

#[test]
fn tokio_main_above_and_below() {
    #[tokio::main(flavor = "current_thread")]
    #[circuit_breaker(name = "tokio-main", call_timeout = "1m", fallback = || 0)]
    async fn above() -> u8 {
        tokio::task::yield_now().await;
        1
    }
    #[circuit_breaker(name = "tokio-main", call_timeout = "1m", fallback = || 0)]
    #[tokio::main(flavor = "current_thread")]
    async fn below() -> u8 {
        tokio::task::yield_now().await;
        2
    }
    assert_eq!((above(), below()), (1, 2));
    assert_eq!(outcomes("tokio-main").success, 2);
}

mod from_macros {
    use super::{Broken, circuit_breaker};

    macro_rules! whole {
        ($(#[$meta:meta])* $vis:vis async fn $name:ident($($arg:ident: $ty:ty),*) -> $output:ty $body:block) => {
            #[circuit_breaker(name = stringify!($name), cache_ttl = "1m")]
            $(#[$meta])*
            $vis async fn $name($($arg: $ty),*) -> $output $body
        };
    }
    macro_rules! item {
        ($item:item) => {
            #[circuit_breaker(name = "item")]
            $item
        };
    }
    macro_rules! parts {
        ($limit:expr, $fallback:path, $name:literal, $span:expr; $function:ident($pattern:pat => $ty:ty) -> $output:ty) => {
            #[circuit_breaker(name = $name, fallback = $fallback, reset_timeout = $span, failure_threshold = $limit)]
            fn $function($pattern: $ty) -> $output {
                Box::pin(async { Err(Broken::Down) })
            }
        };
    }

    whole! {
        /// Documented.
        pub(super) async fn from_fragments(a: u8, b: String) -> Result<usize, Broken> {
            Ok(usize::from(a) + b.len())
        }
    }
    item! {
        pub(super) async fn from_an_item(a: u8) -> Result<u8, Broken> {
            Ok(a)
        }
    }
    fn fallback(_: (u8, u8)) -> u8 {
        7
    }
    parts! {
        3, fallback, "parts", std::time::Duration::from_secs(3);
        parts((_a, _b) => (u8, u8)) -> std::pin::Pin<Box<dyn Future<Output = Result<u8, Broken>> + Send>>
    }

    #[tokio::test]
    async fn function_from_the_fragments_of_a_macro() {
        assert_eq!(from_fragments(1, "ab".into()).await, Ok(3));
        assert_eq!(from_an_item(1).await, Ok(1));
        assert_eq!(parts((1, 2)).await, Ok(7));
    }
}

/// Everything an expansion could stumble over.
mod hostile {
    #![no_implicit_prelude]
    #![allow(dead_code, non_snake_case)]

    mod std {}
    mod core {}
    mod cb_runtime {}
    struct Result;
    struct Option;
    fn Ok() {}
    fn Err() {}
    fn Some() {}
    fn None() {}
    const SITE: u8 = 0;

    #[::cb_runtime::circuit_breaker(
        name = "hostile",
        fallback = |_| ::core::result::Result::Ok(0),
        cache_ttl = 5,
        failure_rate_threshold = 1,
        window = "1m",
        call_timeout = 1.5
    )]
    pub(super) async fn call(x: u8) -> ::core::result::Result<u8, super::Broken> {
        ::core::result::Result::Ok(x + SITE)
    }
}

#[tokio::test]
async fn other_items_of_the_same_names_do_no_harm() {
    assert_eq!(hostile::call(2).await, Ok(2));
}

mod facade {
    pub(crate) mod inner {
        pub(crate) use cb_runtime::*;
    }
}

#[tokio::test]
async fn runtime_by_another_path() {
    #[facade::inner::circuit_breaker(name = "facade", crate = facade::inner, cache_ttl = "1m")]
    async fn call() -> Result<(), Broken> {
        Ok(())
    }
    call().await.unwrap();
    assert_eq!(outcomes("facade").success, 1);
}

#[tokio::test]
async fn attributes_go_back_to_where_they_were() {
    /// Documented.
    #[inline]
    #[must_use = "used"]
    #[circuit_breaker(name = "attributes")]
    async fn call() -> Result<(), Broken> {
        #![allow(unused_variables)]
        let x = 1;
        Ok(())
    }
    call().await.unwrap();
}
