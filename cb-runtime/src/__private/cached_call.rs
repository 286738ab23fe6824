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
use crate::breaker::permit::{CallPermit, GateAdmission, Rejection};
use crate::breaker::stopwatch::Stopwatch;
use crate::breakers::SiteBreaker;
use crate::call::{Awaited, suspend};

pin_project! {
    /// The future of [`call_cached`].
    #[must_use = "futures do nothing unless polled"]
    pub struct CachedCall<'a, F, R, K> {
        kind: K,
        // Before the permit, so that it is dropped before the outcome is recorded. `None`: the call is
        // rejected and the fallback has the arguments, or the call has timed out.
        #[pin]
        body: Option<F>,
        guard: Guard<'a, R>,
    }
}

/// All of a call but its body.
struct Guard<'a, R> {
    breaker: &'a SiteBreaker,
    codec: Codec<'a, R>,
    key: Option<CallKey>,
    watch: Stopwatch,
    /// Void until the call is admitted, and after its end.
    permit: CallPermit<'a>,
    /// Void unless the call is rejected at once.
    rejected: GateWord,
    awaited: Rarely<Arc<Awaited<'a>>>,
    recalling: Rarely<Arc<Unshared<Recalling<'a, R>>>>,
}

/// A part that few calls have. It is dropped out of line: the rest of a future's drop code is then small
/// enough for the compiler to inline it.
struct Rarely<T>(ManuallyDrop<Option<T>>);

impl<T> Rarely<T> {
    const NO: Self = Rarely(ManuallyDrop::new(None));
}

impl<T> Drop for Rarely<T> {
    #[inline]
    fn drop(&mut self) {
        #[cold]
        #[inline(never)]
        fn drop_some<T>(part: &mut ManuallyDrop<Option<T>>) {
            drop(ManuallyDrop::into_inner(mem::replace(part, ManuallyDrop::new(None))));
        }
        if self.0.is_some() {
            drop_some(&mut self.0);
        }
    }
}

/// Makes a value `Sync` that is only used by its owner: the mutex is never locked. It is in an `Arc` for the
/// reason given at [`Awaited`].
struct Unshared<T>(Mutex<T>);

impl<T> Unshared<T> {
    fn get_mut(this: &mut Arc<Self>) -> Option<&mut T> {
        // Both succeed: nothing else has the `Arc`, and no thread has panicked with the mutex.
        Arc::get_mut(this)?.0.get_mut().ok()
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
    admission: GateAdmission<'a>,
    body: Option<F>,
    kind: K,
    key: Option<CallKey>,
    codec: Codec<'a, F::Output>,
) -> CachedCall<'a, F, F::Output, K> {
    let permit = admission.permit_or_void();
    let watch = permit.stopwatch();
    let rejected = admission.rejected_or_void();
    let (awaited, recalling) = (Rarely::NO, Rarely::NO);
    let guard = Guard { breaker, codec, key, watch, permit, rejected, awaited, recalling };
    CachedCall { kind, body, guard }
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
        let guard = this.guard;
        if guard.permit.is_void()
            && let Some(answer) = ready!(guard.poll_without_permit(cx))
        {
            return Poll::Ready(answer);
        }
        let Some(body) = this.body.as_mut().as_pin_mut() else { unreachable!("an admitted call has a body") };
        let panicking = guard.permit.note_panic();
        match body.poll(cx) {
            Poll::Ready(value) => {
                let value = ManuallyDrop::new(value);
                mem::forget(panicking);
                let is_error = K::is_error(&value);
                guard.permit.end_in_place(guard.watch, is_error);
                if is_error {
                    return guard.recall(Ended::Failed(ManuallyDrop::into_inner(value)), cx);
                }
                Poll::Ready(Ok(keep_success(guard.breaker, guard.key.as_ref(), guard.codec, value)))
            }
            Poll::Pending => {
                mem::forget(panicking);
                let timeout = *guard.breaker.call_timeout();
                let Guard { permit, watch, awaited, .. } = &mut *guard;
                let deadline = ready!(suspend(permit, timeout, watch, &mut awaited.0, cx));
                // Before the failure is recorded.
                this.body.set(None);
                let ended = Ended::TimedOut(deadline.timed_out(guard.permit.take()));
                guard.recall(ended, cx)
            }
        }
    }
}

impl<'a, R> Guard<'a, R> {
    /// Waits for the permit, or for the store's cached result. Ready with an answer, if the call is not made.
    #[cold]
    #[inline(never)]
    fn poll_without_permit(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer<'a, R>>> {
        if let Some(later) = self.recalling.0.as_mut().and_then(Unshared::get_mut) {
            return later.as_mut().poll(cx).map(|answer| Some(answer.map(ManuallyDrop::new)));
        }
        let rejection = if self.rejected == GateWord::VOID {
            match ready!(admit(&mut self.permit, &mut self.watch, &mut self.awaited.0, cx)) {
                None => return Poll::Ready(None),
                Some(rejection) => rejection,
            }
        } else {
            Rejection::new(self.permit.core(), self.rejected)
        };
        self.recall(Ended::Rejected(rejection), cx).map(Some)
    }

    /// The cached result in place of a failure or a rejection.
    #[cold]
    #[inline(never)]
    fn recall(&mut self, ended: Ended<'a, R>, cx: &mut Context<'_>) -> Poll<Answer<'a, R>> {
        match self.codec.recall(self.breaker, self.key.take(), ended) {
            Recalled::Value(value) => Poll::Ready(Ok(ManuallyDrop::new(value))),
            Recalled::Nothing(ended) => Poll::Ready(Err(ended)),
            Recalled::InStore(mut later) => {
                let polled = later.as_mut().poll(cx);
                *self.recalling.0 = Some(Arc::new(Unshared(Mutex::new(later))));
                polled.map(|answer| answer.map(ManuallyDrop::new))
            }
        }
    }
}
