//! What a guarded call counts as, and what the function returns then.

use std::marker::PhantomData;
use std::time::Duration;

use super::form::{Form, Output, Refuse};
use super::{CallError, Ended};
use crate::call::{Judge, Verdict};

/// The verdict where the attribute has no `is_failure`: an error is a failure, anything else a success.
pub struct ByType<F>(PhantomData<F>);

impl<R, F: Form<R>> Judge<R> for ByType<F> {
    const MAY_PANIC: bool = false;

    #[inline]
    fn judge(self, value: &R) -> Verdict {
        if F::is_error(value) { Verdict::Failure } else { Verdict::Success }
    }
}

/// The verdict by type.
#[inline]
pub fn by_type<F>(_form: F) -> ByType<F> {
    ByType(PhantomData)
}

/// The verdict where it has one: what the predicate accepts is a failure; an error that it does not accept
/// says nothing; anything else is a success.
pub struct ByPredicate<R, F, P> {
    predicate: P,
    // With a bound on P instead, the compiler would report one mistake in it twice, as the bound would be a part
    // of the type of what is awaited.
    ask: fn(P, &R) -> bool,
    form: PhantomData<F>,
}

impl<R, F: Form<R>, P> Judge<R> for ByPredicate<R, F, P> {
    #[inline]
    fn judge(self, value: &R) -> Verdict {
        match ((self.ask)(self.predicate, value), F::is_error(value)) {
            (true, _) => Verdict::Failure,
            (false, true) => Verdict::Ignored,
            (false, false) => Verdict::Success,
        }
    }
}

/// The verdict by a predicate.
#[inline]
pub fn by_predicate<R, F: Form<R>, P: FnOnce(&R) -> bool>(
    _output: Output<R>,
    _form: F,
    predicate: P,
) -> ByPredicate<R, F, P> {
    ByPredicate { predicate, ask: |predicate, value| predicate(value), form: PhantomData }
}

/// The verdict where it has `open_for`: what that gives a time for is a failure which opens the circuit for so long.
pub struct Opening<R, J, P> {
    judge: J,
    open_for: P,
    // As in `ByPredicate`.
    ask: fn(P, &R) -> Option<Duration>,
}

impl<R, J: Judge<R>, P> Judge<R> for Opening<R, J, P> {
    #[inline]
    fn judge(self, value: &R) -> Verdict {
        match (self.ask)(self.open_for, value) {
            Some(span) => Verdict::Opening(span),
            None => self.judge.judge(value),
        }
    }
}

/// The verdict, with `open_for` before it.
#[inline]
pub fn opening<R, J: Judge<R>, P: FnOnce(&R) -> Option<Duration>>(
    _output: Output<R>,
    judge: J,
    open_for: P,
) -> Opening<R, J, P> {
    Opening { judge, open_for, ask: |open_for, value| open_for(value) }
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
