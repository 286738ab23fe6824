//! The return value of an annotated function whose call has not succeeded. `reject` converts a rejection to
//! the argument of [`ReturnKind::reject`].

use super::fallback::IntoReason;
use super::return_kind::{Ended, ReturnKind};
use crate::breaker::permit::Rejection;
use crate::call::{CallError, Verdict};
use crate::error::BreakerError;

/// Whether the function returns a result unchanged although it has a fallback.
#[inline]
pub fn is_returned(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Success | Verdict::Ignored)
}

/// The return value of a function without a fallback.
#[inline]
pub fn into_return<R, K: ReturnKind<R>, U>(
    _kind: K,
    ended: Ended<'_, R>,
    unnameable: U,
    reject: impl FnOnce(BreakerError, U) -> K::Rejected,
) -> R {
    let error = match ended {
        Ended::Failed(value) => return value,
        Ended::Rejected(rejection) => rejection.into_error(),
        Ended::TimedOut(error) => error,
    };
    K::reject(reject(error, unnameable))
}

/// Why the fallback is called. It becomes a [`CallError`] only for a fallback that takes the reason.
pub enum Reason<'a, E> {
    /// The call was not made.
    Rejected(Rejection<'a>),
    /// The call was made and failed.
    Ended(CallError<E>),
}

impl<E> IntoReason for Reason<'_, E> {
    type Reason = CallError<E>;

    #[inline]
    fn into_reason(self) -> CallError<E> {
        match self {
            Reason::Rejected(rejection) => CallError::Rejected(rejection.into_error()),
            Reason::Ended(reason) => reason,
        }
    }

    #[inline]
    fn discard(self) {
        match self {
            // Two words.
            Reason::Rejected(_) => {}
            Reason::Ended(reason) => drop(reason),
        }
    }
}

/// The return value, or the fallback's arguments.
type ReturnOr<'a, R, K, Args> = Result<R, (Args, Reason<'a, <K as ReturnKind<R>>::Error>)>;

/// `fallback_on = "any"`
#[inline]
pub fn into_return_or_any<R, K: ReturnKind<R>, Args>(
    _kind: K,
    ended: Ended<'_, R>,
    args: Args,
) -> ReturnOr<'_, R, K, Args> {
    let reason = match ended {
        Ended::Failed(value) => Reason::Ended(K::reason(value)),
        Ended::Rejected(rejection) => Reason::Rejected(rejection),
        Ended::TimedOut(error) => Reason::Ended(CallError::TimedOut(error)),
    };
    Err((args, reason))
}

/// `fallback_on = "error"`
#[inline]
pub fn into_return_or_error<R, K: ReturnKind<R>, Args, U>(
    kind: K,
    ended: Ended<'_, R>,
    args: Args,
    unnameable: U,
    reject: impl FnOnce(BreakerError, U) -> K::Rejected,
) -> ReturnOr<'_, R, K, Args> {
    match ended {
        ended @ Ended::Rejected(_) => Ok(into_return(kind, ended, unnameable, reject)),
        ended => into_return_or_any(kind, ended, args),
    }
}

/// `fallback_on = "open"`: only a rejected call still has its arguments, because the body takes them.
#[inline]
pub fn into_return_or_open<R, K: ReturnKind<R>, Args, U>(
    kind: K,
    ended: Ended<'_, R>,
    args: Option<Args>,
    unnameable: U,
    reject: impl FnOnce(BreakerError, U) -> K::Rejected,
) -> ReturnOr<'_, R, K, Args> {
    match (ended, args) {
        (Ended::Rejected(rejection), Some(args)) => Err((args, Reason::Rejected(rejection))),
        (ended, _) => Ok(into_return(kind, ended, unnameable, reject)),
    }
}
