//! What an annotated function returns once its call has ended.

use super::return_kind::{Reject, ReturnKind};
use super::{CallError, Ended};

/// The return value of a function without a fallback.
#[inline]
pub fn into_return<R, K: ReturnKind<R>>(_kind: K, ended: Ended<R>) -> R
where
    K::This: Reject<R>,
{
    match ended {
        Ended::Success(value) | Ended::Ignored(value) | Ended::Failed(value) => value,
        Ended::Rejected(error) | Ended::TimedOut(error) => K::This::reject(error),
    }
}

/// The return value, or what the fallback is called with.
pub type ReturnOr<R, K, Args> = Result<R, (Args, CallError<<K as ReturnKind<R>>::Error>)>;

/// `fallback_on = "any"`
#[inline]
pub fn into_return_or_any<R, K: ReturnKind<R>, Args>(
    _kind: K,
    ended: Ended<R>,
    args: Args,
) -> ReturnOr<R, K, Args> {
    match ended {
        Ended::Success(value) | Ended::Ignored(value) => Ok(value),
        Ended::Failed(value) => Err((args, K::reason(value))),
        Ended::Rejected(error) => Err((args, CallError::Rejected(error))),
        Ended::TimedOut(error) => Err((args, CallError::TimedOut(error))),
    }
}

/// `fallback_on = "error"`
#[inline]
pub fn into_return_or_error<R, K: ReturnKind<R>, Args>(
    _kind: K,
    ended: Ended<R>,
    args: Args,
) -> ReturnOr<R, K, Args>
where
    K::This: Reject<R>,
{
    match ended {
        Ended::Success(value) | Ended::Ignored(value) => Ok(value),
        Ended::Failed(value) => Err((args, K::reason(value))),
        Ended::Rejected(error) => Ok(K::This::reject(error)),
        Ended::TimedOut(error) => Err((args, CallError::TimedOut(error))),
    }
}

/// `fallback_on = "open"`: the arguments are still there only if the body did not get them.
#[inline]
pub fn into_return_or_open<R, K: ReturnKind<R>, Args>(
    _kind: K,
    ended: Ended<R>,
    args: Option<Args>,
) -> ReturnOr<R, K, Args>
where
    K::This: Reject<R>,
{
    match (ended, args) {
        (Ended::Success(value) | Ended::Ignored(value) | Ended::Failed(value), _) => Ok(value),
        (Ended::Rejected(error), Some(args)) => Err((args, CallError::Rejected(error))),
        (Ended::Rejected(error) | Ended::TimedOut(error), _) => Ok(K::This::reject(error)),
    }
}
