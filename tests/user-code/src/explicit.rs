//! A crate that returns explicitly, everywhere.
#![warn(clippy::implicit_return)]
#![allow(clippy::needless_return, reason = "the lint above wants them")]

use std::pin::Pin;

#[allow(redundant_imports, reason = "in the prelude since 2024 only")]
use std::future::Future;

use cb_runtime::circuit_breaker;

use crate::{ask, Failure, User};

/// Nothing but a name.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: explicit")]
pub async fn plain(id: u64) -> Result<User, Failure> {
    return ask(id).await;
}

/// With a fallback and a cache.
///
/// # Errors
/// None.
#[circuit_breaker(
    name = "user: explicit {id}",
    cache_ttl = "1m",
    cache_key = id,
    is_failure = |result| return result.is_err(),
    reset_timeout = std::time::Duration::from_secs(3),
    fallback = |id| return User { id, name: String::new() }
)]
pub async fn fallback(id: u64) -> Result<User, Failure> {
    let user = ask(id).await?;
    if user.name.is_empty() {
        return Err(Failure::NotFound);
    }
    return Ok(user);
}

/// With a fallback for rejections, by its path.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: explicit open", fallback = double, fallback_on = "open")]
pub async fn open(id: u64) -> Result<u64, Failure> {
    return Ok(ask(id).await?.id);
}

const fn double(id: u64) -> u64 {
    return id * 2;
}

/// In a box.
#[must_use]
#[circuit_breaker(name = "user: explicit box")]
pub fn boxed(id: u64) -> Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send>> {
    return Box::pin(async move { return Ok(ask(id).await?.id) });
}

/// In a box, detached.
#[must_use]
#[circuit_breaker(name = "user: explicit detached")]
pub fn detached(id: &u64) -> Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send>> {
    let id = *id;
    return Box::pin(async move { return Ok(ask(id).await?.id) });
}
