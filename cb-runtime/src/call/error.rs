//! The error of a guarded call.

use std::error::Error;
use std::fmt;

use crate::error::BreakerError;

/// Why a guarded call has not succeeded: the error of [`Breaker::call`](crate::Breaker::call), and the reason
/// that a fallback may take as its last argument.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The call was not made: the circuit is open, or half-open with all its probes under way.
    Rejected(BreakerError),
    /// The call took longer than its `call_timeout` and was dropped.
    TimedOut(BreakerError),
    /// The call returned this error.
    Failed(E),
    /// The call returned a value without an error in it which `is_failure` counts as a failure.
    Unacceptable,
}

impl<E> CallError<E> {
    /// The breaker's error, if it rejected or cancelled the call.
    pub fn breaker_error(&self) -> Option<&BreakerError> {
        match self {
            CallError::Rejected(error) | CallError::TimedOut(error) => Some(error),
            CallError::Failed(_) | CallError::Unacceptable => None,
        }
    }

    /// The error that the call returned, if it was made and returned one.
    pub fn inner(&self) -> Option<&E> {
        match self {
            CallError::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The error that the call returned, if it was made and returned one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            CallError::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The call was not made.
    pub fn is_rejected(&self) -> bool {
        matches!(self, CallError::Rejected(_))
    }

    /// The call was made, took too long, and was dropped.
    pub fn is_timeout(&self) -> bool {
        matches!(self, CallError::TimedOut(_))
    }
}

impl<E> From<BreakerError> for CallError<E> {
    fn from(error: BreakerError) -> Self {
        if error.is_timeout() { CallError::TimedOut(error) } else { CallError::Rejected(error) }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Rejected(error) | CallError::TimedOut(error) => error.fmt(f),
            CallError::Failed(error) => error.fmt(f),
            CallError::Unacceptable => f.write_str("the call returned a value that counts as a failure"),
        }
    }
}

impl<E: Error> Error for CallError<E> {
    // `Display` shows the inner error, so the source is that error's source.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CallError::Rejected(error) | CallError::TimedOut(error) => error.source(),
            CallError::Failed(error) => error.source(),
            CallError::Unacceptable => None,
        }
    }
}
