//! The future of a guarded function is the plain one's and a small constant: what a breaker needs to know
//! about one call, and never a second copy of what the body holds.

mod common;

use std::mem::size_of_val;

use cb_runtime::circuit_breaker;
use common::Broken;

/// A permit, a stopwatch, a pointer to the breaker, what the call waits for, and the state.
const SMALL: usize = 80;
/// A pointer to the breaker, one to the functions that read and write a result, a key, and the state.
const CACHED: usize = 120;

macro_rules! sizes {
    ($test:ident($($arg:ident: $ty:ty = $value:expr),*) $plain:ident $guarded:ident
        $(#[$more:meta])* + $constant:expr) =>
    {
        $(#[$more])*
        async fn $guarded($($arg: $ty),*) -> Result<u64, Broken> {
            sizes!(@body $($arg)*)
        }

        async fn $plain($($arg: $ty),*) -> Result<u64, Broken> {
            sizes!(@body $($arg)*)
        }

        #[test]
        fn $test() {
            let plain = size_of_val(&$plain($($value),*));
            let guarded = size_of_val(&$guarded($($value),*));
            println!("{}: {plain} plain, {guarded} guarded", stringify!($test));
            assert!(guarded <= plain + $constant, "{guarded} > {plain} + {}", $constant);
        }
    };
    (@body $($arg:ident)*) => {{
        let mut state = [0u8; 2048];
        tokio::task::yield_now().await;
        state[0] = 1;
        $(std::hint::black_box(&$arg);)*
        Ok(u64::from(state[0]))
    }};
}

sizes! {
    what_the_body_holds_is_held_once(id: u64 = 1) plain_body guarded_body
    #[circuit_breaker(name = "size")]
    + SMALL
}

sizes! {
    large_arguments_are_held_as_often_as_without(a: [u8; 4096] = [0; 4096], b: String = String::new())
    plain_args guarded_args
    #[circuit_breaker(name = "size")]
    + SMALL
}

sizes! {
    a_timeout_costs_a_pointer(id: u64 = 1) plain_timeout guarded_timeout
    #[circuit_breaker(name = "size", call_timeout = "1s")]
    + SMALL
}

sizes! {
    a_fallback_costs_its_copy_of_the_arguments(id: [u8; 64] = [0; 64]) plain_fallback guarded_fallback
    #[circuit_breaker(name = "size", fallback = |_| Ok(1))]
    + SMALL + 2 * 64
}

sizes! {
    a_fallback_for_rejections_costs_the_arguments(id: [u8; 64] = [0; 64]) plain_open guarded_open
    #[circuit_breaker(name = "size", fallback = |_| Ok(1), fallback_on = "open")]
    + SMALL + 2 * 64
}

sizes! {
    a_cache_costs_its_key(id: u64 = 1) plain_cache guarded_cache
    #[circuit_breaker(name = "size", cache_ttl = "1m")]
    + CACHED + 8
}

sizes! {
    a_cache_and_a_fallback_cost_the_key_and_a_copy_of_the_arguments(id: u64 = 1) plain_both guarded_both
    #[circuit_breaker(name = "size", cache_ttl = "1m", fallback = |_| Ok(1))]
    + CACHED + 2 * 8
}
