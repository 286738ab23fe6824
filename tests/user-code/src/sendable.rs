//! Futures that a runtime with several threads can take, although what their functions return cannot be sent.

use std::error::Error;

#[allow(redundant_imports, reason = "in the prelude since 2024 only")]
use std::future::Future;

use cb_runtime::circuit_breaker;

use crate::{ask, User};

async fn ask_later(id: u64) -> Result<User, Box<dyn Error>> {
    let user = ask(id).await;
    Ok(user?)
}

fn nobody(id: u64) -> Result<User, Box<dyn Error>> {
    if id > 1000 {
        return Err("too large".into());
    }
    Ok(User { id, name: String::new() })
}

async fn nobody_later(id: u64) -> Result<User, Box<dyn Error>> {
    std::future::ready(()).await;
    nobody(id)
}

async fn nobody_itself(id: u64) -> User {
    std::future::ready(()).await;
    User { id, name: String::new() }
}

/// A fallback that is not async.
///
/// # Errors
/// As the fallback does.
#[circuit_breaker(name = "user: sendable", fallback = nobody)]
pub async fn sync_fallback(id: u64) -> Result<User, Box<dyn Error>> {
    let user = ask(id).await?;
    Ok(user)
}

/// An async one.
///
/// # Errors
/// As the fallback does.
#[circuit_breaker(name = "user: sendable later", fallback = nobody_later)]
pub async fn async_fallback(id: u64) -> Result<User, Box<dyn Error>> {
    ask_later(id).await
}

/// An async one that returns the value.
///
/// # Errors
/// As the fallback does.
#[circuit_breaker(name = "user: sendable value", fallback = nobody_itself, fallback_on = "open")]
pub async fn value_fallback(id: u64) -> Result<User, Box<dyn Error>> {
    Ok(ask(id).await?)
}

/// A closure.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: sendable closure", fallback = |id, reason| {
    drop(reason);
    Ok(User { id, name: String::new() })
})]
pub async fn closure_fallback(id: u64) -> Result<User, Box<dyn Error>> {
    Ok(ask(id).await?)
}

/// A cache.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: sendable cache", cache_ttl = "1m", open_for = |_| None, fallback = async |id| nobody_itself(id).await)]
pub async fn cached(id: u64) -> Result<User, Box<dyn Error + Send + Sync>> {
    Ok(ask(id).await?)
}

/// A future that can be sent.
pub const fn assert_send<F: Future + Send>(future: F) -> F {
    future
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn futures_can_be_sent() {
        assert_eq!(assert_send(sync_fallback(0)).await.unwrap().id, 0);
        assert_eq!(assert_send(async_fallback(0)).await.unwrap().id, 0);
        assert!(assert_send(value_fallback(0)).await.is_err());
        assert_eq!(assert_send(closure_fallback(0)).await.unwrap().id, 0);
        assert_eq!(assert_send(cached(0)).await.unwrap().id, 0);
    }
}
