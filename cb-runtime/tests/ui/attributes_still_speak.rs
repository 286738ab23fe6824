//! The attributes and the documentation of guarded functions still speak.
#![deny(deprecated, missing_docs, unused_must_use)]

use cb_runtime::circuit_breaker;

/// Documented.
#[derive(Debug)]
pub struct MyError;

impl From<cb_runtime::BreakerError> for MyError {
    fn from(_: cb_runtime::BreakerError) -> Self {
        MyError
    }
}

/// Documented, unlike the next one.
#[circuit_breaker(name = "a")]
#[must_use = "an unsent letter"]
pub async fn send() -> Result<(), MyError> {
    Ok(())
}

#[circuit_breaker(name = "a")]
#[deprecated(note = "ask `send`")]
pub async fn undocumented() -> Result<(), MyError> {
    Ok(())
}

/// Uses them.
pub async fn caller() -> Result<(), MyError> {
    send();
    undocumented().await
}

fn main() {}
