//! The call of a function with a cache and without a predicate: one future of the runtime, as
//! [`Guarded`](super::guarded::Guarded) is. It also asks for the cached result in place of a failure.

use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::cached::{CallKey, Codec, Recalled, Recalling, keep_success};
use super::guarded::admit;
use super::return_kind::{Ended, ReturnKind};
use crate::breaker::gate::GateWord;
use crate::breaker::permit::{Asked, CallPermit, Rejection};
use crate::breaker::stopwatch::Stopwatch;
use crate::breakers::SiteBreaker;
use crate::call::{Awaited, suspend};

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
        // rejected and the fallback has the arguments, or the call has timed out.
        #[pin]
        body: Option<F>,
        // Void until the call is admitted, and after its end.
        permit: CallPermit<'a>,
        // Void unless the call is rejected at once.
        rejected: GateWord,
        awaited: Option<Arc<Awaited<'a>>>,
        // In an `Arc` for the reason given at `Awaited`. The mutex is never locked: with it, the `Arc` can be
        // sent to another thread.
        recalling: Option<Arc<Mutex<Recalling<'a, R>>>>,
    }
}

/// The result, or the end of a call in whose place there is no cached result.
type Answer<'a, R> = Result<ManuallyDrop<R>, Ended<'a, R>>;

/// The guarded call, and the cached result if it does not succeed. `body` may be `None` if the call is
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
    let rejected = asked.rejected_or_void();
    CachedCall { kind, breaker, codec, key, watch, body, permit, rejected, awaited: None, recalling: None }
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
        let (breaker, codec) = (*this.breaker, *this.codec);
        if this.permit.is_void()
            && let Some(answer) = ready!(without_permit(
                this.permit,
                this.watch,
                *this.rejected,
                this.awaited,
                this.recalling,
                breaker,
                codec,
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
                    return recall(this.recalling, breaker, codec, this.key, ended, cx);
                }
                Poll::Ready(Ok(keep_success(breaker, this.key.as_ref(), codec, value)))
            }
            Poll::Pending => {
                mem::forget(panicking);
                let timeout = *breaker.call_timeout();
                let deadline = ready!(suspend(this.permit, timeout, this.watch, this.awaited, cx));
                // Before the failure is recorded.
                this.body.set(None);
                let ended = Ended::TimedOut(deadline.timed_out(this.permit.take()));
                recall(this.recalling, breaker, codec, this.key, ended, cx)
            }
        }
    }
}

/// Waits for the permit, or for the store's cached result. Ready with an answer, if the call is not made.
#[cold]
#[inline(never)]
#[expect(clippy::too_many_arguments, reason = "the parts of a pinned future")]
fn without_permit<'a, R>(
    permit: &mut CallPermit<'a>,
    watch: &mut Stopwatch,
    rejected: GateWord,
    awaited: &mut Option<Arc<Awaited<'a>>>,
    recalling: &mut Option<Arc<Mutex<Recalling<'a, R>>>>,
    breaker: &'a SiteBreaker,
    codec: Codec<'a, R>,
    key: &mut Option<CallKey>,
    cx: &mut Context<'_>,
) -> Poll<Option<Answer<'a, R>>> {
    // Both succeed: nothing else has the `Arc`, and the mutex is never locked.
    if let Some(Ok(later)) = recalling.as_mut().and_then(Arc::get_mut).map(Mutex::get_mut) {
        return later.as_mut().poll(cx).map(|answer| Some(answer.map(ManuallyDrop::new)));
    }
    let rejection = if rejected == GateWord::VOID {
        match ready!(admit(permit, watch, awaited, cx)) {
            None => return Poll::Ready(None),
            Some(rejection) => rejection,
        }
    } else {
        Rejection::new(permit.core(), rejected)
    };
    recall(recalling, breaker, codec, key, Ended::Rejected(rejection), cx).map(Some)
}

/// The cached result in place of a failure or a rejection.
#[cold]
#[inline(never)]
fn recall<'a, R>(
    recalling: &mut Option<Arc<Mutex<Recalling<'a, R>>>>,
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
            *recalling = Some(Arc::new(Mutex::new(later)));
            polled.map(|answer| answer.map(ManuallyDrop::new))
        }
    }
}
