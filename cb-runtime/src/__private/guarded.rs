//! The call of a function without a cache and a predicate: one future of the runtime makes all of it. So the
//! compiler checks its states here, once, and not again in each annotated function.

use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::return_kind::{Ended, Output, ReturnKind};
use crate::breaker::permit::{CallPermit, GateAdmission, Rejection};
use crate::breaker::stopwatch::Stopwatch;
use crate::breakers::SiteBreaker;
use crate::call::{Awaited, suspend, wait};
use crate::error::BreakerError;

pin_project! {
    /// The future of [`call`].
    ///
    /// The main cost of a guarded call is to pass its result through memory: a load that overlaps a recent
    /// store has to wait for it. Three things avoid that. The body is held by value. The result is classified
    /// here, while it may still be in registers. It is returned as a `ManuallyDrop`, because the compiler
    /// would keep a copy of a value that it may have to drop in a panic.
    #[must_use = "futures do nothing unless polled"]
    pub struct Guarded<'a, F, K> {
        kind: K,
        breaker: &'a SiteBreaker,
        watch: Stopwatch,
        // Before the permit, so that it is dropped before the outcome is recorded.
        #[pin]
        body: F,
        // Void until the call is admitted, and after its end.
        permit: CallPermit<'a>,
        awaited: Option<Arc<Awaited<'a>>>,
    }
}

/// Why there is no result.
pub enum Stopped<'a> {
    /// The call was not made.
    Rejected(Rejection<'a>),
    /// The call took too long and has been dropped.
    TimedOut(CallPermit<'a>, Arc<Awaited<'a>>),
}

/// Whether the call must not be made.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see `admit`"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn is_rejected(admission: GateAdmission<'_>) -> bool {
    admission.is_rejected()
}

/// The rejection of a rejected call.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see `admit`"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn rejection(admission: GateAdmission<'_>) -> Rejection<'_> {
    admission.rejection()
}

/// The end of a rejected call.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see `admit`"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn rejected(admission: GateAdmission<'_>) -> Stopped<'_> {
    Stopped::Rejected(admission.rejection())
}

/// The guarded call. It waits for the permit if the answer requires that.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "a call would copy the body"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn call<'a, F: Future, K: ReturnKind<F::Output>>(
    breaker: &'a SiteBreaker,
    admission: GateAdmission<'a>,
    body: F,
    kind: K,
) -> Guarded<'a, F, K> {
    let permit = admission.permit_or_void();
    let watch = permit.stopwatch();
    Guarded { kind, breaker, watch, body, permit, awaited: None }
}

/// What the annotated function returns without a result.
#[cfg_attr(not(debug_assertions), inline)]
pub fn stopped<R, K: ReturnKind<R>, U>(
    _output: Output<R>,
    _kind: K,
    stopped: Stopped<'_>,
    unnameable: U,
    reject: impl FnOnce(BreakerError, U) -> K::Rejected,
) -> R {
    K::reject(reject(stopped.into_error(), unnameable))
}

/// The end of a call without a result, in a function with a fallback.
#[cfg_attr(not(debug_assertions), inline)]
pub fn ended<R>(_output: Output<R>, stopped: Stopped<'_>) -> Ended<'_, R> {
    stopped.into_ended()
}

/// Whether the result is an error by its type.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see `call`"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn is_error<R, K: ReturnKind<R>>(_kind: K, value: &R) -> bool {
    K::is_error(value)
}

impl<'a> Stopped<'a> {
    /// Records the failure of a call that has timed out, and whose body has been dropped.
    fn into_ended<R>(self) -> Ended<'a, R> {
        match self {
            Stopped::Rejected(rejection) => Ended::Rejected(rejection),
            Stopped::TimedOut(permit, awaited) => Ended::TimedOut(awaited.timed_out(permit)),
        }
    }
}

impl Stopped<'_> {
    #[inline]
    fn into_error(self) -> BreakerError {
        match self {
            Stopped::Rejected(rejection) => rejection.into_error(),
            Stopped::TimedOut(permit, awaited) => awaited.timed_out(permit),
        }
    }
}

impl<'a, F: Future, K: ReturnKind<F::Output>> Future for Guarded<'a, F, K> {
    type Output = Result<ManuallyDrop<F::Output>, Stopped<'a>>;

    #[cfg_attr(
        not(debug_assertions),
        expect(clippy::inline_always, reason = "a call would pass the value through memory")
    )]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.permit.is_void()
            && let Some(rejection) = ready!(admit(this.permit, this.watch, this.awaited, cx))
        {
            return Poll::Ready(Err(Stopped::Rejected(rejection)));
        }
        // With a closure, two more functions would be compiled for each annotated one.
        let panicking = this.permit.note_panic();
        match this.body.poll(cx) {
            Poll::Ready(value) => {
                let value = ManuallyDrop::new(value);
                mem::forget(panicking);
                this.permit.end_in_place(*this.watch, K::is_error(&value));
                Poll::Ready(Ok(value))
            }
            Poll::Pending => {
                mem::forget(panicking);
                match suspend(this.permit, *this.breaker.call_timeout(), this.watch, this.awaited, cx) {
                    Poll::Ready(deadline) => {
                        Poll::Ready(Err(Stopped::TimedOut(this.permit.take(), deadline)))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

/// Waits for the permit. Ready with the rejection, if the call is rejected.
#[cold]
#[inline(never)]
pub(super) fn admit<'a>(
    permit: &mut CallPermit<'a>,
    watch: &mut Stopwatch,
    awaited: &mut Option<Arc<Awaited<'a>>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Rejection<'a>>> {
    let admission = || Arc::new(Awaited::Permit(wait(GateAdmission::unanswered(permit.core()))));
    let Some(Awaited::Permit(admission)) = Arc::get_mut(awaited.get_or_insert_with(admission)) else {
        unreachable!("a call with a deadline has a permit")
    };
    let admission = ready!(Pin::new(admission).poll(cx));
    *awaited = None;
    Poll::Ready(match admission.admitted() {
        Ok(admitted) => {
            *watch = admitted.stopwatch();
            *permit = admitted;
            None
        }
        Err(rejection) => Some(rejection),
    })
}
