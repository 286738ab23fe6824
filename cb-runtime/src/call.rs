//! A guarded call: leave, the body, what its outcome means, and giving that back.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::breaker::counters::Outcome;
use crate::breaker::permit::{Admission, Permit, Waiting};
use crate::breaker::stopwatch::Stopwatch;
use crate::breaker::{Breaker, Core};
use crate::error::BreakerError;

/// Why a guarded call has no good result: what [`Breaker::call`] returns, and what a fallback may take
/// as its last argument.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The call was not made: the circuit is open, or half-open with all its probes under way.
    Rejected(BreakerError),
    /// The call took longer than its `call_timeout` and was dropped.
    TimedOut(BreakerError),
    /// The call returned this error.
    Failed(E),
    /// The call returned a value without an error in it which `is_failure` counts as a failure.
    Unacceptable,
}

impl<E> CallError<E> {
    /// The breaker's own word, if it was the breaker that ended the call.
    pub fn breaker_error(&self) -> Option<&BreakerError> {
        match self {
            CallError::Rejected(error) | CallError::TimedOut(error) => Some(error),
            CallError::Failed(_) | CallError::Unacceptable => None,
        }
    }

    /// The error that the call returned, if it was made and returned one.
    pub fn inner(&self) -> Option<&E> {
        match self {
            CallError::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The error that the call returned, if it was made and returned one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            CallError::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The call was not made.
    pub fn is_rejected(&self) -> bool {
        matches!(self, CallError::Rejected(_))
    }

    /// The call was made, took too long, and was dropped.
    pub fn is_timeout(&self) -> bool {
        matches!(self, CallError::TimedOut(_))
    }
}

impl<E> From<BreakerError> for CallError<E> {
    fn from(error: BreakerError) -> Self {
        if error.is_timeout() { CallError::TimedOut(error) } else { CallError::Rejected(error) }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Rejected(error) | CallError::TimedOut(error) => error.fmt(f),
            CallError::Failed(error) => error.fmt(f),
            CallError::Unacceptable => f.write_str("the call returned a value that counts as a failure"),
        }
    }
}

impl<E: Error> Error for CallError<E> {
    // Display is the inner error's own, so the chain goes on behind it.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CallError::Rejected(error) | CallError::TimedOut(error) => error.source(),
            CallError::Failed(error) => error.source(),
            CallError::Unacceptable => None,
        }
    }
}

impl Breaker {
    /// Makes a call under this breaker's guard: the same as the attribute does, without fallback and cache.
    /// `Ok` counts as a success, `Err` as a failure.
    ///
    /// Dropping the future drops the call, which then counts as cancelled: neither success nor failure.
    /// A panic of the call counts as a failure and goes on to the caller. If there is a `call_timeout` (from the
    /// operator, else from the config that this handle was made with, else from the registry's defaults), a tokio
    /// runtime with a timer is needed.
    ///
    /// # Errors
    /// [`CallError::Rejected`] without having called `call`, [`CallError::TimedOut`] after dropping it,
    /// [`CallError::Failed`] with its own error.
    pub async fn call<T, E>(&self, call: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, CallError<E>> {
        let core = self.core();
        let ended = {
            let body = pin!(async move { call().await });
            Guarded::new(core, self.given_call_timeout(), body, ResultItself).await
        };
        match ended {
            Ended::Success(result) | Ended::Ignored(result) | Ended::Failed(result) => {
                result.map_err(CallError::Failed)
            }
            Ended::Rejected(error) => Err(CallError::Rejected(error)),
            Ended::TimedOut(error) => Err(CallError::TimedOut(error)),
        }
    }
}

/// What a returned value says about the dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// Nothing.
    Ignored,
    /// It does not, and says for how long it will not.
    Opening(Duration),
}

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

/// Says what a returned value means.
pub trait Judge<R> {
    /// It may be the user's code, whose panic counts as a failure of the call.
    const MAY_PANIC: bool = true;

    #[doc(hidden)]
    fn judge(self, value: &R) -> Verdict;
}

/// `Ok` is a success, `Err` a failure.
struct ResultItself;

impl<T, E> Judge<Result<T, E>> for ResultItself {
    const MAY_PANIC: bool = false;

    fn judge(self, result: &Result<T, E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}

/// Asks for leave to make a call; waits for the store's word where a probe is due.
#[inline]
pub(crate) async fn admitted(core: &Core) -> Result<Permit<'_>, BreakerError> {
    match core.admit() {
        Admission::Go(permit) => Ok(permit),
        Admission::Wait(waiting) => waiting.await,
        Admission::No(error) => Err(error),
    }
}

/// A guarded call: leave, the body, its verdict. One future for all of it, so that on the fast path
/// nothing is moved from one to the next: leave, body and outcome happen inside one `poll`.
pub(crate) struct Guarded<'a, F: Future, J> {
    core: &'a Core,
    call_timeout: Option<Duration>,
    body: Pin<&'a mut F>,
    judge: Option<J>,
    stage: Stage<'a>,
}

enum Stage<'a> {
    New,
    Waiting(Waiting<'a>),
    Permitted(Permit<'a>),
    /// The body has been polled. Its permit is here between polls.
    Running(Option<Permit<'a>>, Stopwatch, Option<Box<Deadline>>),
    Ended,
}

/// Leave to poll a body.
type Leave<'a> = (Permit<'a>, Stopwatch);

/// What does not depend on the body's type: compiled once, and not with every guarded function.
impl<'a> Stage<'a> {
    /// Leave to poll the body, and since when it is measured.
    fn leave(&mut self, core: &'a Core, cx: &mut Context<'_>) -> Poll<Result<Leave<'a>, BreakerError>> {
        if let Stage::Running(permit, watch, _) = self {
            let permit = permit.take().expect("a guarded call is not polled after it has ended");
            return Poll::Ready(Ok((permit, *watch)));
        }
        let admission = match std::mem::replace(self, Stage::Ended) {
            Stage::New => core.admit(),
            Stage::Waiting(waiting) => Admission::Wait(waiting),
            Stage::Permitted(permit) => Admission::Go(permit),
            Stage::Running(..) | Stage::Ended => panic!("a guarded call was polled after it had ended"),
        };
        let answer = match admission {
            Admission::Go(permit) => Ok(permit),
            Admission::No(error) => Err(error),
            Admission::Wait(mut waiting) => match Pin::new(&mut waiting).poll(cx) {
                Poll::Ready(answer) => answer,
                Poll::Pending => {
                    *self = Stage::Waiting(waiting);
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready(answer.map(|permit| (permit, core.stopwatch())))
    }

    /// Keeps the permit until the next poll, unless the call's time is up.
    fn suspend(
        &mut self,
        (permit, watch): Leave<'a>,
        call_timeout: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<BreakerError> {
        let mut deadline = match std::mem::replace(self, Stage::Ended) {
            Stage::Running(_, _, deadline) => deadline,
            _ => permit.call_timeout(call_timeout).map(|limit| {
                permit.limit(limit);
                Box::new(Deadline { limit, sleep: Box::pin(tokio::time::sleep(limit)) })
            }),
        };
        // The timer must have been polled to wake this task.
        if let Some(deadline) = &mut deadline
            && deadline.sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(permit.timed_out(deadline.limit));
        }
        let watch = watch.suspended(permit.core().clock());
        *self = Stage::Running(Some(permit), watch, deadline);
        Poll::Pending
    }
}

/// Nothing in it is pinned in place: the body is pinned where the caller keeps it.
impl<F: Future, J> Unpin for Guarded<'_, F, J> {}

/// A timer on the heap, so that a function without a timeout does not carry one in its future.
struct Deadline {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl<'a, F: Future, J> Guarded<'a, F, J> {
    /// A call that still has to ask for leave.
    #[inline]
    pub(crate) fn new(
        core: &'a Core,
        call_timeout: Option<Duration>,
        body: Pin<&'a mut F>,
        judge: J,
    ) -> Self {
        Guarded { core, call_timeout, body, judge: Some(judge), stage: Stage::New }
    }

    /// A call that there is leave for.
    #[inline]
    pub(crate) fn permitted(
        permit: Permit<'a>,
        call_timeout: Option<Duration>,
        body: Pin<&'a mut F>,
        judge: J,
    ) -> Self {
        let core = permit.core();
        Guarded { core, call_timeout, body, judge: Some(judge), stage: Stage::Permitted(permit) }
    }
}

impl<'a, F: Future, J: Judge<F::Output>> Guarded<'a, F, J> {
    /// Polls the body. What is ready at once is never stored, and its permit never moved.
    #[inline]
    fn run(
        &mut self,
        mut permit: Permit<'a>,
        watch: Stopwatch,
        cx: &mut Context<'_>,
    ) -> Poll<Ended<F::Output>> {
        permit.running(true);
        match self.body.as_mut().poll(cx) {
            Poll::Ready(value) => {
                permit.took(watch);
                Poll::Ready(self.finish(&mut permit, value))
            }
            Poll::Pending => {
                permit.running(false);
                let leave = (permit, watch);
                Poll::Ready(Ended::TimedOut(ready!(self.stage.suspend(leave, self.call_timeout, cx))))
            }
        }
    }

    /// Gives the outcome back.
    #[expect(clippy::inline_always, reason = "a call would pass the value through memory, see below")]
    #[inline(always)]
    fn finish(&mut self, permit: &mut Permit<'a>, value: F::Output) -> Ended<F::Output> {
        let judge = self.judge.take().expect("a call ends once");
        // The predicate is the user's code as much as the body is: a panic in it counts as one.
        permit.running(true);
        if J::MAY_PANIC {
            let verdict = judge.judge(&value);
            return end(permit, verdict, ManuallyDrop::new(value));
        }
        // Nothing from here on panics, but the compiler cannot know: it would keep the value in memory to be
        // able to drop it then, and every call would wait for it to be written and read back.
        let value = ManuallyDrop::new(value);
        let verdict = judge.judge(&value);
        end(permit, verdict, value)
    }
}

/// Gives the outcome back, and the value on.
#[expect(clippy::inline_always, reason = "a call would pass the value through memory, see above")]
#[inline(always)]
fn end<R>(permit: &mut Permit<'_>, verdict: Verdict, value: ManuallyDrop<R>) -> Ended<R> {
    match verdict {
        Verdict::Success => {
            permit.end(Outcome::Success);
            Ended::Success(ManuallyDrop::into_inner(value))
        }
        Verdict::Failure => {
            permit.end(Outcome::Failure);
            Ended::Failed(ManuallyDrop::into_inner(value))
        }
        Verdict::Opening(span) => {
            permit.end_opening(span);
            Ended::Failed(ManuallyDrop::into_inner(value))
        }
        Verdict::Ignored => {
            permit.end(Outcome::Ignored);
            Ended::Ignored(ManuallyDrop::into_inner(value))
        }
    }
}

impl<F: Future, J: Judge<F::Output>> Future for Guarded<'_, F, J> {
    type Output = Ended<F::Output>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = self.get_mut();
        if let Stage::New = call.stage
            && let Some(permit) = call.core.admit_closed()
        {
            return call.run(permit, Stopwatch::OFF, cx);
        }
        call.poll_slowly(cx)
    }
}

impl<F: Future, J: Judge<F::Output>> Guarded<'_, F, J> {
    /// Everything but a plainly closed circuit's first poll. Apart from it, so that the permit of a call that is
    /// ready at once stays in registers, and so that it does not pay for measuring.
    #[inline(never)]
    fn poll_slowly(&mut self, cx: &mut Context<'_>) -> Poll<Ended<F::Output>> {
        if let Stage::New = self.stage
            && let Some(permit) = self.core.admit_measured()
        {
            let watch = self.core.stopwatch();
            return self.run(permit, watch, cx);
        }
        match ready!(self.stage.leave(self.core, cx)) {
            Ok((permit, watch)) => self.run(permit, watch, cx),
            Err(error) => Poll::Ready(Ended::Rejected(error)),
        }
    }
}
