//! The call of a function without a cache and a predicate: one future of the runtime makes all of it. So the
//! compiler checks its states here, once, and not again in each annotated function.

use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::return_kind::{Ended, Output, ReturnKind};
use crate::breaker::permit::{Asked, CallPermit, Rejection};
use crate::breaker::stopwatch::Stopwatch;
use crate::breakers::SiteBreaker;
use crate::call::{Admit, CallDeadline, suspend, wait};
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
        awaits: Awaits<'a>,
    }
}

/// What a suspended call waits for besides its body.
pub(super) enum Awaits<'a> {
    Nothing,
    Permit(Admit<'a>),
    Deadline(Arc<CallDeadline>),
}

/// Why there is no result.
pub enum Stopped<'a> {
    /// The call was not made.
    Rejected(Rejection<'a>),
    /// The call took too long and has been dropped.
    TimedOut(CallPermit<'a>, Arc<CallDeadline>),
}

/// Whether the call must not be made.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see `ask`"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn is_rejected(asked: Asked<'_>) -> bool {
    asked.is_rejected()
}

/// The rejection of a rejected call.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see `ask`"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn rejection(asked: Asked<'_>) -> Rejection<'_> {
    asked.rejection()
}

/// The end of a rejected call.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "see `ask`"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn rejected(asked: Asked<'_>) -> Stopped<'_> {
    Stopped::Rejected(asked.rejection())
}

/// The guarded call. It waits for the permit if the answer requires that.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "a call would copy the body"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn call<'a, F: Future, K: ReturnKind<F::Output>>(
    breaker: &'a SiteBreaker,
    asked: Asked<'a>,
    body: F,
    kind: K,
) -> Guarded<'a, F, K> {
    let permit = asked.permit_or_void();
    let watch = permit.stopwatch();
    Guarded { kind, breaker, watch, body, permit, awaits: Awaits::Nothing }
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
pub fn ended<'a, R>(_output: Output<R>, stopped: Stopped<'a>) -> Ended<'a, R> {
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
    pub(super) fn into_ended<R>(self) -> Ended<'a, R> {
        match self {
            Stopped::Rejected(rejection) => Ended::Rejected(rejection),
            Stopped::TimedOut(permit, deadline) => Ended::TimedOut(deadline.timed_out(permit)),
        }
    }
}

impl Stopped<'_> {
    #[inline]
    fn into_error(self) -> BreakerError {
        match self {
            Stopped::Rejected(rejection) => rejection.into_error(),
            Stopped::TimedOut(permit, deadline) => deadline.timed_out(permit),
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
            && let Some(rejection) = ready!(admit(this.permit, this.watch, this.awaits, cx))
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
                match keep(this.breaker, this.permit, this.watch, this.awaits, cx) {
                    Poll::Ready(stopped) => Poll::Ready(Err(stopped)),
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
    awaits: &mut Awaits<'a>,
    cx: &mut Context<'_>,
) -> Poll<Option<Rejection<'a>>> {
    if let Awaits::Nothing = awaits {
        *awaits = Awaits::Permit(wait(Asked::unanswered(permit.core())));
    }
    let Awaits::Permit(admission) = awaits else { unreachable!("a call with a deadline has a permit") };
    let asked = ready!(Pin::new(admission).poll(cx));
    *awaits = Awaits::Nothing;
    Poll::Ready(match asked.admitted() {
        Ok(admitted) => {
            *watch = admitted.stopwatch();
            *permit = admitted;
            None
        }
        Err(rejection) => Some(rejection),
    })
}

/// Keeps the call until it is polled again, unless it has timed out.
#[cold]
#[inline(never)]
pub(super) fn keep<'a>(
    breaker: &SiteBreaker,
    permit: &mut CallPermit<'a>,
    watch: &mut Stopwatch,
    awaits: &mut Awaits<'a>,
    cx: &mut Context<'_>,
) -> Poll<Stopped<'a>> {
    let mut deadline = match mem::replace(awaits, Awaits::Nothing) {
        Awaits::Deadline(deadline) => Some(deadline),
        Awaits::Nothing | Awaits::Permit(_) => None,
    };
    let polled = suspend(permit, *breaker.call_timeout(), watch, &mut deadline, cx);
    if let Some(deadline) = deadline {
        *awaits = Awaits::Deadline(deadline);
    }
    polled.map(|deadline| Stopped::TimedOut(permit.take(), deadline))
}
