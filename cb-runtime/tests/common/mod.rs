//! Shared by the tests of the attribute.
#![allow(dead_code, reason = "each test binary uses a part of this module")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cb_runtime::{BreakerError, Outcomes, Registry};

/// The error of the functions under test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Broken {
    Down,
    NotFound,
    Open,
    TimedOut,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Broken {}

impl From<BreakerError> for Broken {
    fn from(error: BreakerError) -> Self {
        if error.is_timeout() { Broken::TimedOut } else { Broken::Open }
    }
}

/// The outcomes of a breaker in the global registry.
pub(crate) fn outcomes(breaker: &str) -> Outcomes {
    Registry::global().breaker(breaker).expect("the breaker exists after its first call").snapshot().outcomes
}

/// Polls a future once and drops it.
pub(crate) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for a future, at most a minute on the test's clock.
pub(crate) async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(std::time::Duration::from_secs(60), future).await.expect("it ends within a minute")
}
