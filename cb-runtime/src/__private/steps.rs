//! The steps that an expansion makes one by one: the admission of every call, and all of a call whose result
//! is classified later, by a predicate.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::return_kind::{Ended, Output};
use crate::breaker::permit::{CallPermit, GateAdmission, Rejection};
use crate::breakers::SiteBreaker;
use crate::call::{self, Admit, Awaited, Judge, Run, Verdict};

// Functions, because a method of the same name in a user's trait could be called instead of a method.

/// Requests a permit for a call.
#[cfg_attr(
    not(debug_assertions),
    expect(clippy::inline_always, reason = "a call would pass the answer through memory")
)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn admit(breaker: &SiteBreaker) -> GateAdmission<'_> {
    breaker.core().admit_at_gate()
}

/// Requests a permit for a call of a function with a fallback, which answers a rejected call.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see above"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn admit_with_fallback(breaker: &SiteBreaker) -> GateAdmission<'_> {
    breaker.core().admit_at_gate_with_fallback()
}

/// Counts the fallback's answer if a call is rejected after it had to wait.
#[cold]
pub fn waited_with_fallback(admission: GateAdmission<'_>) -> GateAdmission<'_> {
    if admission.is_rejected() {
        admission.core().answered_by_fallback();
    }
    admission
}

/// Counts a fallback's answer.
#[inline]
pub fn answered_by_fallback(breaker: &SiteBreaker) {
    breaker.core().answered_by_fallback();
}

/// Whether the answer needs a [`wait`].
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see above"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn must_wait(admission: GateAdmission<'_>) -> bool {
    admission.must_wait()
}

/// Waits for the permit.
pub fn wait(admission: GateAdmission<'_>) -> Admit<'_> {
    call::wait(admission)
}

/// The permit, or the rejection.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see above"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn admitted(admission: GateAdmission<'_>) -> Result<CallPermit<'_>, Rejection<'_>> {
    admission.admitted()
}

/// Makes the permitted call. Its result is classified afterwards, by [`end`].
#[expect(clippy::inline_always, reason = "a call would copy the body")]
#[inline(always)]
pub fn run_to_judge<'a, 'p, F: Future>(
    breaker: &'p SiteBreaker,
    permit: &'p mut CallPermit<'a>,
    body: F,
) -> Run<'a, 'p, F> {
    call::run(permit, breaker.call_timeout(), body)
}

/// Classifies a result and records the outcome.
#[expect(clippy::inline_always, reason = "a call would pass the value through memory")]
#[inline(always)]
pub fn end<R>(permit: CallPermit<'_>, judge: impl Judge<R>, value: &R) -> Verdict {
    call::end(permit, judge, value)
}

/// [`end`] for a function that never returns.
pub fn end_never<R>(permit: CallPermit<'_>, judge: impl Judge<R>, value: ManuallyDrop<R>) -> R {
    call::end(permit, judge, &*value);
    ManuallyDrop::into_inner(value)
}

/// Records the failure of a call that has timed out.
#[cold]
pub fn time_out<'a, R>(
    _output: Output<R>,
    permit: CallPermit<'_>,
    deadline: Arc<Awaited<'_>>,
) -> Ended<'a, R> {
    Ended::TimedOut(deadline.timed_out(permit))
}
