//! Users' code, as it is written with the attribute, under every lint that such code may be under: rustc's, and
//! clippy's all, pedantic and nursery. What is clean without the attribute is clean with it, in every edition: three
//! packages share this file, and the gate's `cargo clippy -- -D warnings` reads them all.
#![forbid(unsafe_code)]

/// What guards this crate, for its own users.
pub use cb_runtime as guard;

pub mod explicit;
pub mod futures;
pub mod inference;
pub mod macro_interop;
pub mod methods;
pub mod sendable;
pub mod shapes;

use std::error::Error;
use std::fmt;

use cb_runtime::{circuit_breaker, BreakerError, CallError};
use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The other side is down.
    Down,
    /// There is no such thing, which is nobody's fault.
    NotFound,
    /// The breaker's word.
    Guarded(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Error for Failure {}

impl From<BreakerError> for Failure {
    fn from(error: BreakerError) -> Self {
        Self::Guarded(error.to_string())
    }
}

/// Somebody.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct User {
    /// Who it is.
    pub id: u64,
    /// What it is called.
    pub name: String,
}

pub(crate) async fn ask(id: u64) -> Result<User, Failure> {
    std::future::ready(()).await;
    if id == 0 {
        Err(Failure::Down)
    } else {
        Ok(User { id, name: format!("user {id}") })
    }
}

fn guest(id: u64) -> Result<User, Failure> {
    if id > 1000 {
        Err(Failure::NotFound)
    } else {
        Ok(User { id, name: "guest".to_owned() })
    }
}

async fn late_guest(id: u64, reason: CallError<Failure>) -> Result<User, Failure> {
    if reason.is_timeout() {
        Err(Failure::NotFound)
    } else {
        ask(id).await
    }
}

/// Nothing but a name.
///
/// # Errors
/// As `ask` does.
#[circuit_breaker(name = "user: plain")]
pub async fn plain(id: u64) -> Result<User, Failure> {
    ask(id).await
}

/// Everything at once.
///
/// # Errors
/// As the fallback does.
#[circuit_breaker(
    name = "user: full",
    fallback = guest,
    cache_ttl = "5m",
    cache_key = id,
    cache_version = 2,
    failure_threshold = 3,
    failure_rate_threshold = 0.5,
    window = "30s",
    minimum_calls = 20,
    reset_timeout = "10s",
    half_open_max_calls = 2,
    success_threshold = 2,
    call_timeout = 1.5,
    is_failure = |result| matches!(result, Err(Failure::Down))
)]
pub async fn full(id: u64) -> Result<User, Failure> {
    let user = ask(id).await?;
    if user.name.is_empty() {
        return Err(Failure::NotFound);
    }
    Ok(user)
}

/// A fallback that takes the reason, later.
///
/// # Errors
/// As the fallback does.
#[circuit_breaker(name = "user: reason", fallback = late_guest)]
pub async fn with_reason(id: u64) -> Result<User, Failure> {
    ask(id).await
}

/// A closure, and all arguments as the key.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: closure", fallback = |id, name| Ok(User { id, name: name.to_owned() }), cache_ttl = 300)]
pub async fn closure(id: u64, name: &str) -> Result<User, Failure> {
    let mut user = ask(id).await?;
    user.name.push_str(name);
    Ok(user)
}

/// A closure that does nothing much.
///
/// # Errors
/// None.
#[circuit_breaker(name = "user: value", fallback = |_| User { id: 0, name: String::new() }, fallback_on = "error")]
pub async fn value_of_ok(id: u64) -> Result<User, Failure> {
    ask(id).await
}

/// Takes what cannot be cloned.
///
/// # Errors
/// As `ask` does.
#[circuit_breaker(name = "user: open", fallback = spool, fallback_on = "open")]
pub async fn upload(upload: Upload) -> Result<usize, Failure> {
    let _user = ask(upload.bytes.len() as u64).await?;
    Ok(upload.bytes.len())
}

/// Cannot be cloned.
#[derive(Debug)]
pub struct Upload {
    /// What is to be sent.
    pub bytes: Vec<u8>,
}

#[allow(clippy::unnecessary_wraps, reason = "a fallback returns what the function returns")]
fn spool(upload: Upload) -> Result<usize, Failure> {
    drop(upload.bytes);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_code_does_what_it_says() {
        assert_eq!(plain(1).await.unwrap().id, 1);
        assert_eq!(plain(0).await, Err(Failure::Down));
        assert_eq!(full(0).await.unwrap().name, "guest");
        assert_eq!(with_reason(0).await, Err(Failure::Down));
        assert_eq!(closure(0, "x").await.unwrap().name, "x");
        assert_eq!(value_of_ok(0).await.unwrap().id, 0);
        assert_eq!(upload(Upload { bytes: vec![1] }).await, Ok(1));
    }
}
