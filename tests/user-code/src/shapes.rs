//! Arguments and results of all shapes.

use std::fmt::Display;
#[allow(redundant_imports, reason = "in the prelude since 2024 only")]
use std::future::Future;
use std::pin::Pin;

use cb_runtime::circuit_breaker;

use crate::{ask, Failure, User};

const NAME: &str = "user: constant";

/// A pair.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// One.
    pub left: u64,
    /// The other.
    pub right: u64,
}

/// Patterns, with a key and a fallback.
///
/// # Errors
/// None.
#[circuit_breaker(
    name = NAME,
    cache_ttl = "1m",
    cache_key = (sum, id, left, more),
    fallback = |_, _, pair, _, _, _| Ok(pair.right)
)]
pub async fn patterns(
    mut sum: u64,
    (id, _): (u64, u64),
    Pair { left, .. }: Pair,
    &more: &u64,
    [first, second]: [u64; 2],
    _unused: u8,
) -> Result<u64, Failure> {
    sum += ask(id).await?.id;
    Ok(sum + left + more + first + second)
}

/// No result at all.
#[circuit_breaker(name = "user: unit", call_timeout = "1s", fallback = |_| ())]
pub async fn unit(id: u64) {
    if let Ok(user) = ask(id).await {
        drop(user);
    }
}

/// Perhaps a result.
#[circuit_breaker(name = "user: option", is_failure = Option::is_none, fallback = |_| None)]
pub async fn option(id: u64) -> Option<User> {
    ask(id).await.ok()
}

/// Never.
#[circuit_breaker(name = "user: never", call_timeout = "1s", fallback = give_up)]
pub async fn never(id: u64) -> ! {
    loop {
        let _answer = ask(id).await;
        std::future::pending::<()>().await;
    }
}

fn give_up(_id: u64) -> ! {
    std::process::exit(1)
}

/// Opaque.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = concat!("user", ": opaque"))]
pub async fn opaque(text: impl Display + Send + Sync) -> Result<impl Display, Failure> {
    let user = ask(1).await?;
    Ok(format!("{text} {}", user.name))
}

/// Generic, with lifetimes.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: generic", fallback = |all| all.first().ok_or(Failure::NotFound))]
pub async fn first<T, const N: usize>(all: &[T; N]) -> Result<&T, Failure>
where
    T: Display + Sync,
{
    let user = ask(N as u64).await?;
    all.last().filter(|_| user.id > 1).ok_or(Failure::Down)
}

/// In a box.
#[must_use]
#[circuit_breaker(name = "user: boxed", fallback = |_| Ok(0))]
pub fn boxed(id: u64) -> Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send>> {
    Box::pin(async move { Ok(ask(id).await?.id) })
}

/// In no box.
///
/// # Errors
/// As the dependency does.
#[allow(clippy::manual_async_fn, reason = "to show that it can be written so")]
#[circuit_breaker(name = "user: future")]
pub fn future(id: u64) -> impl Future<Output = Result<u64, Failure>> + Send {
    async move { Ok(ask(id).await?.id) }
}

/// On one line, as rustfmt does not leave it.
///
/// # Errors
/// As the dependency does.
#[rustfmt::skip]
#[circuit_breaker(name = "user: one line", fallback = |id| Ok(User { id, name: String::new() }))]
pub async fn one_line(id: u64) -> Result<User, Failure> { ask(id).await }

macro_rules! guarded {
    ($(#[$meta:meta])* $vis:vis async fn $name:ident($($arg:ident: $ty:ty),*) -> $output:ty $body:block) => {
        $(#[$meta])*
        #[circuit_breaker(name = stringify!($name), cache_ttl = "1m")]
        $vis async fn $name($($arg: $ty),*) -> $output $body
    };
}

guarded! {
    /// From a macro.
    ///
    /// # Errors
    /// As the dependency does.
    pub async fn from_a_macro(id: u64) -> Result<User, Failure> { ask(id).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shapes_do_what_they_say() {
        let pair = Pair { left: 1, right: 2 };
        assert_eq!(patterns(1, (1, 0), pair, &1, [1, 1], 0).await, Ok(6));
        assert_eq!(patterns(1, (0, 0), pair, &1, [1, 1], 0).await, Ok(2));
        unit(1).await;
        assert!(option(0).await.is_none());
        assert_eq!(format!("{}", opaque(1).await.unwrap()), "1 user 1");
        assert_eq!(first(&[5, 6]).await, Ok(&6));
        assert_eq!(boxed(0).await, Ok(0));
        assert_eq!(future(2).await, Ok(2));
        assert_eq!(one_line(0).await.unwrap().name, "");
        assert_eq!(from_a_macro(3).await.unwrap().id, 3);
    }
}
