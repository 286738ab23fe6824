//! The call of a function with a cache and without a predicate: one future of the runtime, as
//! [`Guarded`](super::guarded::Guarded) is. It also asks for the cached result in place of a failure.

use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::cached::{CallKey, Codec, Recalled, Recalling, keep_success};
use super::guarded::{Awaits, Stopped, admit, keep};
use super::return_kind::{Ended, ReturnKind};
use crate::breaker::permit::{Asked, CallPermit, Rejection};
use crate::breaker::stopwatch::Stopwatch;
use crate::breakers::SiteBreaker;

pin_project! {
    /// The future of [`call_cached`].
    #[must_use = "futures do nothing unless polled"]
    pub struct CachedCall<'a, F, R, K> {
        kind: K,
        breaker: &'a SiteBreaker,
        codec: Codec<'a, R>,
        key: Option<CallKey>,
        watch: Stopwatch,
        // Before the permit, so that it is dropped before the outcome is recorded. `None`: the call is
        // rejected, or has timed out.
        #[pin]
        body: Option<F>,
        // Void until the call is admitted, and after its end.
        permit: CallPermit<'a>,
        step: Step<'a, R>,
    }
}

/// What a call is at.
enum Step<'a, R> {
    /// It is to be made, or is being made.
    Call(Awaits<'a>),
    /// It has been rejected.
    Rejected(Rejection<'a>),
    /// It has failed or has been rejected, and the store is asked for the cached result.
    Recall(Recalling<'a, R>),
}

/// The result, or the end of a call in whose place there is no cached result.
type Answer<'a, R> = Result<ManuallyDrop<R>, Ended<'a, R>>;

/// The guarded call, and the cached result if it does not succeed. `body` is not needed if the call is
/// rejected.
#[cfg_attr(not(debug_assertions), expect(clippy::inline_always, reason = "a call would copy the body"))]
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn call_cached<'a, F: Future, K: ReturnKind<F::Output>>(
    breaker: &'a SiteBreaker,
    asked: Asked<'a>,
    body: Option<F>,
    kind: K,
    key: Option<CallKey>,
    codec: Codec<'a, F::Output>,
) -> CachedCall<'a, F, F::Output, K> {
    let permit = asked.permit_or_void();
    let watch = permit.stopwatch();
    let step =
        if asked.is_rejected() { Step::Rejected(asked.rejection()) } else { Step::Call(Awaits::Nothing) };
    CachedCall { kind, breaker, codec, key, watch, body, permit, step }
}

impl<'a, R, F: Future<Output = R>, K: ReturnKind<R>> Future for CachedCall<'a, F, R, K> {
    type Output = Answer<'a, R>;

    #[cfg_attr(
        not(debug_assertions),
        expect(clippy::inline_always, reason = "a call would pass the value through memory")
    )]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.permit.is_void()
            && let Some(answer) = ready!(without_permit(
                this.permit,
                this.watch,
                this.step,
                *this.breaker,
                *this.codec,
                this.key,
                cx
            ))
        {
            return Poll::Ready(answer);
        }
        let Some(body) = this.body.as_mut().as_pin_mut() else { unreachable!("an admitted call has a body") };
        let panicking = this.permit.note_panic();
        match body.poll(cx) {
            Poll::Ready(value) => {
                let value = ManuallyDrop::new(value);
                mem::forget(panicking);
                let is_error = K::is_error(&value);
                this.permit.end_in_place(*this.watch, is_error);
                if is_error {
                    let ended = Ended::Failed(ManuallyDrop::into_inner(value));
                    return recall(this.step, *this.breaker, *this.codec, this.key, ended, cx);
                }
                keep_success(this.breaker, this.key.as_ref(), *this.codec, &value);
                Poll::Ready(Ok(value))
            }
            Poll::Pending => {
                mem::forget(panicking);
                let stopped = ready!(keep_call(this.breaker, this.permit, this.watch, this.step, cx));
                // Before the failure is recorded.
                this.body.set(None);
                recall(this.step, *this.breaker, *this.codec, this.key, stopped.into_ended(), cx)
            }
        }
    }
}

/// Waits for the permit, or for the store's cached result. Ready with an answer, if the call is not made.
#[cold]
#[inline(never)]
fn without_permit<'a, R>(
    permit: &mut CallPermit<'a>,
    watch: &mut Stopwatch,
    step: &mut Step<'a, R>,
    breaker: &'a SiteBreaker,
    codec: Codec<'a, R>,
    key: &mut Option<CallKey>,
    cx: &mut Context<'_>,
) -> Poll<Option<Answer<'a, R>>> {
    let rejection = match step {
        Step::Recall(later) => {
            return later.as_mut().poll(cx).map(|answer| Some(answer.map(ManuallyDrop::new)));
        }
        Step::Rejected(rejection) => *rejection,
        Step::Call(awaits) => match ready!(admit(permit, watch, awaits, cx)) {
            None => return Poll::Ready(None),
            Some(rejection) => rejection,
        },
    };
    recall(step, breaker, codec, key, Ended::Rejected(rejection), cx).map(Some)
}

/// Keeps a call that is being made until it is polled again, unless it has timed out.
#[cold]
#[inline(never)]
fn keep_call<'a, R>(
    breaker: &SiteBreaker,
    permit: &mut CallPermit<'a>,
    watch: &mut Stopwatch,
    step: &mut Step<'a, R>,
    cx: &mut Context<'_>,
) -> Poll<Stopped<'a>> {
    let Step::Call(awaits) = step else { unreachable!("a call with a permit is being made") };
    keep(breaker, permit, watch, awaits, cx)
}

/// The cached result in place of a failure or a rejection.
#[cold]
#[inline(never)]
fn recall<'a, R>(
    step: &mut Step<'a, R>,
    breaker: &'a SiteBreaker,
    codec: Codec<'a, R>,
    key: &mut Option<CallKey>,
    ended: Ended<'a, R>,
    cx: &mut Context<'_>,
) -> Poll<Answer<'a, R>> {
    match codec.recall(breaker, key.take(), ended) {
        Recalled::Value(value) => Poll::Ready(Ok(ManuallyDrop::new(value))),
        Recalled::Nothing(ended) => Poll::Ready(Err(ended)),
        Recalled::InStore(mut later) => {
            let polled = later.as_mut().poll(cx);
            *step = Step::Recall(later);
            polled.map(|answer| answer.map(ManuallyDrop::new))
        }
    }
}
