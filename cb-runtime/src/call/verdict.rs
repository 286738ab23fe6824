//! The classification of a call's result.

use std::time::Duration;

use crate::breaker::counters::Outcome;
use crate::breaker::permit::CallPermit;

/// The classification of a returned value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The dependency works.
    Success,
    /// The dependency has failed.
    Failure,
    /// The value does not concern the dependency.
    Ignored,
    /// The dependency has failed, and the circuit opens for this duration.
    Opening(Duration),
}

/// Classifies returned values.
pub trait Judge<R> {
    /// Whether it runs user code, whose panic counts as a failure of the call.
    const MAY_PANIC: bool = true;

    #[doc(hidden)]
    fn judge(self, value: &R) -> Verdict;
}

/// `Ok` is a success, `Err` a failure.
#[derive(Clone, Copy)]
pub(super) struct ResultItself;

impl<T, E> Judge<Result<T, E>> for ResultItself {
    const MAY_PANIC: bool = false;

    fn judge(self, result: &Result<T, E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}

/// Classifies the result of a call and records its outcome.
#[expect(clippy::inline_always, reason = "a call would pass the value through memory")]
#[inline(always)]
pub(crate) fn end<R, J: Judge<R>>(mut permit: CallPermit<'_>, judge: J, value: &R) -> Verdict {
    // A predicate is user code, like the body, so its panic counts as a failure of the call.
    let verdict = if J::MAY_PANIC { permit.guard(|| judge.judge(value)) } else { judge.judge(value) };
    match verdict {
        Verdict::Opening(span) => permit.end_opening(span),
        verdict => permit.end(outcome(verdict)),
    }
    verdict
}

#[inline]
fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Success => Outcome::Success,
        Verdict::Ignored => Outcome::Ignored,
        Verdict::Failure | Verdict::Opening(_) => Outcome::Failure,
    }
}
