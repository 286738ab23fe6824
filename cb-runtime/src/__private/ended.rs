//! How a guarded call ended, and what the function returns then.

use super::CallError;
use super::form::{Form, Refuse};
use crate::call::Ran;
use crate::error::BreakerError;

/// How a guarded call ended, and what it returned if it did. Its outcome has been recorded.
pub enum Ended<R> {
    /// Returned a success.
    Success(R),
    /// Returned what says nothing about the dependency.
    Ignored(R),
    /// Returned a failure.
    Failed(R),
    /// Was not made.
    Rejected(BreakerError),
    /// Took too long and was dropped.
    TimedOut(BreakerError),
}

impl<R> Ran<'_, R> {
    /// Records the outcome: an error is a failure, anything else a success.
    #[inline]
    pub fn judge<F: Form<R>>(self, _form: F) -> Ended<R> {
        match self {
            Ran::Returned(permit, value) if F::is_error(&value) => {
                permit.failure();
                Ended::Failed(value)
            }
            Ran::Returned(permit, value) => {
                permit.success();
                Ended::Success(value)
            }
            Ran::Rejected(error) => Ended::Rejected(error),
            Ran::TimedOut(error) => Ended::TimedOut(error),
        }
    }

    /// Records the outcome: what the predicate accepts is a failure; an error that it does not accept says
    /// nothing; anything else is a success.
    #[inline]
    pub fn judge_by<F: Form<R>>(self, _form: F, is_failure: impl FnOnce(&R) -> bool) -> Ended<R> {
        match self {
            Ran::Returned(mut permit, value) => {
                // The predicate is the user's code as much as the body is: a panic in it counts as one.
                permit.running(true);
                let failure = is_failure(&value);
                permit.running(false);
                if failure {
                    permit.failure();
                    Ended::Failed(value)
                } else if F::is_error(&value) {
                    permit.ignored();
                    Ended::Ignored(value)
                } else {
                    permit.success();
                    Ended::Success(value)
                }
            }
            Ran::Rejected(error) => Ended::Rejected(error),
            Ran::TimedOut(error) => Ended::TimedOut(error),
        }
    }
}

/// What the function returns if it has no fallback for this end.
#[inline]
pub fn settle<R, F: Form<R>>(_form: F, ended: Ended<R>) -> R
where
    F::Itself: Refuse<R>,
{
    match ended {
        Ended::Success(value) | Ended::Ignored(value) | Ended::Failed(value) => value,
        Ended::Rejected(error) | Ended::TimedOut(error) => F::Itself::refuse(error),
    }
}

/// What the function returns, or else what its fallback needs.
pub type Settled<R, F, Args> = Result<R, (Args, CallError<<F as Form<R>>::Error>)>;

/// `fallback_on = "any"`
#[inline]
pub fn settle_any<R, F: Form<R>, Args>(_form: F, ended: Ended<R>, spare: Args) -> Settled<R, F, Args> {
    match ended {
        Ended::Success(value) | Ended::Ignored(value) => Ok(value),
        Ended::Failed(value) => Err((spare, F::reason(value))),
        Ended::Rejected(error) => Err((spare, CallError::Rejected(error))),
        Ended::TimedOut(error) => Err((spare, CallError::TimedOut(error))),
    }
}

/// `fallback_on = "error"`
#[inline]
pub fn settle_error<R, F: Form<R>, Args>(_form: F, ended: Ended<R>, spare: Args) -> Settled<R, F, Args>
where
    F::Itself: Refuse<R>,
{
    match ended {
        Ended::Success(value) | Ended::Ignored(value) => Ok(value),
        Ended::Failed(value) => Err((spare, F::reason(value))),
        Ended::Rejected(error) => Ok(F::Itself::refuse(error)),
        Ended::TimedOut(error) => Err((spare, CallError::TimedOut(error))),
    }
}

/// `fallback_on = "open"`: the arguments are still there only if the body did not get them.
#[inline]
pub fn settle_open<R, F: Form<R>, Args>(_form: F, ended: Ended<R>, kept: Option<Args>) -> Settled<R, F, Args>
where
    F::Itself: Refuse<R>,
{
    match (ended, kept) {
        (Ended::Success(value) | Ended::Ignored(value) | Ended::Failed(value), _) => Ok(value),
        (Ended::Rejected(error), Some(args)) => Err((args, CallError::Rejected(error))),
        (Ended::Rejected(error) | Ended::TimedOut(error), _) => Ok(F::Itself::refuse(error)),
    }
}
