//! The attribute among others.

use cb_runtime::circuit_breaker;

use crate::{ask, Failure, User};

/// Attributes of all kinds.
///
/// # Errors
/// As the dependency does.
#[inline]
#[must_use = "nobody asks for nothing"]
#[circuit_breaker(name = "user: attributes")]
#[allow(clippy::missing_inline_in_public_items)]
pub async fn attributes(id: u64) -> Result<User, Failure> {
    #![allow(clippy::let_and_return)]
    let user = ask(id).await;
    user
}

/// No longer in use.
///
/// # Errors
/// As the dependency does.
#[deprecated(note = "ask `attributes`")]
#[circuit_breaker(name = "user: deprecated")]
pub async fn old(id: u64) -> Result<User, Failure> {
    ask(id).await
}

/// Two breakers.
///
/// # Errors
/// As the dependency does.
#[circuit_breaker(name = "user: inner")]
#[circuit_breaker(name = "user: outer")]
pub async fn twice(id: u64) -> Result<User, Failure> {
    ask(id).await
}
