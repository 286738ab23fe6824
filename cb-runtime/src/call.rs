//! A guarded call: permit, body, classification, outcome.

mod error;

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::breaker::counters::Outcome;
use crate::breaker::permit::{Admission, CallPermit, GateAdmission, Rejection, Waiting};
use crate::breaker::stopwatch::Stopwatch;
use crate::breaker::{Breaker, Core};
use crate::deadline::block_on;
use crate::error::BreakerError;
pub use error::CallError;

/// What [`Breaker::call`] can guard: a closure that returns a future of a `Result`, as an `async` closure
/// does.
///
/// There are two implementations, which `Guarding` distinguishes, and one of them is for no type at all. If
/// none of two implementations fits, the compiler does not infer the future's type and reports one error.
/// With a single implementation it would infer that one's type and report the mistake again at the `.await`.
#[diagnostic::on_unimplemented(
    message = "the closure of `Breaker::call` does not return a future of a `Result`",
    label = "write `async || …`, with a `Result` as its value"
)]
pub trait GuardedBody<Guarding> {
    /// The future of the guarded call.
    type Call<'a>;

    #[doc(hidden)]
    fn guarded_by(self, breaker: &Breaker) -> Self::Call<'_>;
}

/// The implementation for closures.
pub enum ByCall {}
/// The implementation for no type.
pub enum ByNothing {}

/// No type implements it.
pub trait Nothing {}

#[diagnostic::do_not_recommend]
impl<T, E, C, F> GuardedBody<ByCall> for C
where
    C: FnOnce() -> F,
    F: Future<Output = Result<T, E>>,
{
    type Call<'a> = GuardedCall<'a, C, F>;

    #[inline]
    fn guarded_by(self, breaker: &Breaker) -> GuardedCall<'_, C, F> {
        GuardedCall { breaker, call: Some(self), wait: None, body: None, suspended: None }
    }
}

#[diagnostic::do_not_recommend]
impl<C: Nothing> GuardedBody<ByNothing> for C {
    type Call<'a> = ();

    fn guarded_by(self, _: &Breaker) {}
}

impl Breaker {
    /// Makes a call under this breaker's guard, as the attribute does, but without a fallback and a cache.
    /// `Ok` counts as a success, `Err` as a failure.
    ///
    /// Dropping the future drops the call, which then counts as cancelled: neither success nor failure. A
    /// panic of the call counts as a failure and goes on to the caller. If there is a `call_timeout` (from
    /// the operator, else from the config that this handle was made with, else from the registry's
    /// defaults), a tokio runtime with a timer is needed.
    ///
    /// ```
    /// # async fn fetch(id: u64) -> std::io::Result<u64> { Ok(id) }
    /// # type Error = cb_runtime::CallError<std::io::Error>;
    /// # async fn example(breaker: cb_runtime::Breaker) -> Result<(), Error> {
    /// let user = breaker.call(async || fetch(7).await).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError::Rejected`] without having called `call`, [`CallError::TimedOut`] after dropping it,
    /// [`CallError::Failed`] with its own error.
    #[inline]
    pub fn call<Guarding, C: GuardedBody<Guarding>>(&self, call: C) -> C::Call<'_> {
        call.guarded_by(self)
    }
}

pin_project! {
    /// The future of [`Breaker::call`].
    #[must_use = "futures do nothing unless polled"]
    pub struct GuardedCall<'a, C, F> {
        breaker: &'a Breaker,
        call: Option<C>,
        wait: Option<Admit<'a>>,
        #[pin]
        body: Option<F>,
        suspended: Option<Suspended<'a>>,
    }
}

impl<'a> Admit<'a> {
    /// Polls the kept request for a permit, or a new one.
    #[cold]
    fn poll_kept(
        kept: &mut Option<Admit<'a>>,
        core: &'a Core,
        cx: &mut Context<'_>,
    ) -> Poll<GateAdmission<'a>> {
        Pin::new(kept.get_or_insert(Admit { core, waiting: None })).poll(cx)
    }
}

/// The state of a call between two polls. During a poll it is on the stack, so that a panic drops the permit.
struct Suspended<'a> {
    permit: CallPermit<'a>,
    watch: Stopwatch,
    awaited: Option<Arc<Awaited<'a>>>,
}

impl<T, E, C, F> Future for GuardedCall<'_, C, F>
where
    C: FnOnce() -> F,
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, CallError<E>>;

    #[expect(clippy::inline_always, reason = "a call would pass the value through memory")]
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut running = if let Some(call) = this.call.take() {
            let core = this.breaker.core();
            let admission =
                if this.wait.is_none() { core.admit_at_gate() } else { GateAdmission::unanswered(core) };
            let admission = if admission.must_wait() {
                match Admit::poll_kept(this.wait, core, cx) {
                    Poll::Ready(admission) => admission,
                    Poll::Pending => {
                        *this.call = Some(call);
                        return Poll::Pending;
                    }
                }
            } else {
                admission
            };
            let mut permit = match admission.admitted() {
                Ok(permit) => permit,
                Err(rejection) => return Poll::Ready(Err(CallError::Rejected(rejection.into_error()))),
            };
            let watch = permit.stopwatch();
            this.body.set(Some(permit.guard(call)));
            Suspended { permit, watch, awaited: None }
        } else {
            this.suspended.take().expect("a call is polled until it has ended")
        };
        let Some(body) = this.body.as_mut().as_pin_mut() else { unreachable!("a suspended call has a body") };
        if let Poll::Ready(result) = running.permit.guard(|| body.poll(cx)) {
            let result = ManuallyDrop::new(result);
            running.permit.took(running.watch);
            this.body.set(None);
            end(running.permit, ResultItself, &*result);
            return Poll::Ready(ManuallyDrop::into_inner(result).map_err(CallError::Failed));
        }
        let Suspended { permit, watch, awaited } = &mut running;
        match suspend(permit, *this.breaker.given_call_timeout(), watch, awaited, cx) {
            Poll::Pending => {
                *this.suspended = Some(running);
                Poll::Pending
            }
            Poll::Ready(deadline) => {
                this.body.set(None);
                Poll::Ready(Err(CallError::TimedOut(deadline.timed_out(running.permit))))
            }
        }
    }
}

impl Breaker {
    /// Makes a blocking call under this breaker's guard, on this thread and without a runtime. `Ok` counts
    /// as a success, `Err` as a failure, a panic as a failure that goes on to the caller.
    ///
    /// Blocks for the call itself, and before it only if a probe is due: then for the store's answer, for the
    /// `response_timeout` (0.4 s) at most. A `call_timeout` cannot interrupt the call, but a probe that takes
    /// longer counts as failed.
    ///
    /// ```
    /// use cb_runtime::{BreakerConfig, CallError, Registry};
    ///
    /// # fn main() -> Result<(), cb_runtime::Error> {
    /// let registry = Registry::builder().build()?;
    /// let breaker = registry.get_or_create("files", BreakerConfig::default().failure_threshold(1));
    /// let read = || std::fs::read("/no/such/file");
    /// assert!(matches!(breaker.call_blocking(read), Err(CallError::Failed(_))));
    /// assert!(breaker.call_blocking(read).unwrap_err().is_rejected());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError::Rejected`] without having called `call`, [`CallError::Failed`] with its own error.
    pub fn call_blocking<T, E>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, CallError<E>> {
        let admission = self.core().admit_at_gate();
        let admission = if admission.must_wait() { block_on(wait(admission)) } else { admission };
        let rejected = |rejection: Rejection<'_>| CallError::Rejected(rejection.into_error());
        let mut permit = admission.admitted().map_err(rejected)?;
        if let Some(limit) = self.core().call_timeout(*self.given_call_timeout()) {
            permit.limit(limit);
        }
        let watch = permit.stopwatch();
        let result = permit.guard(call);
        permit.took(watch);
        permit.end(if result.is_ok() { Outcome::Success } else { Outcome::Failure });
        result.map_err(CallError::Failed)
    }
}

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
struct ResultItself;

impl<T, E> Judge<Result<T, E>> for ResultItself {
    const MAY_PANIC: bool = false;

    fn judge(self, result: &Result<T, E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}

/// Requests a permit. Waits for the store's answer if a probe is due.
pub(crate) async fn admitted(core: &Core) -> Result<CallPermit<'_>, BreakerError> {
    let admission = core.admit_at_gate();
    let admission = if admission.must_wait() { wait(admission).await } else { admission };
    admission.admitted().map_err(Rejection::into_error)
}

/// Waits for the store's answer, because a probe is due.
pub(crate) fn wait(admission: GateAdmission<'_>) -> Admit<'_> {
    Admit { core: admission.core(), waiting: None }
}

/// The future of [`wait`]. It has only two words, because it is a part of every guarded function's future.
#[must_use = "futures do nothing unless polled"]
pub struct Admit<'a> {
    core: &'a Core,
    waiting: Option<Box<Waiting<'a>>>,
}

impl<'a> Future for Admit<'a> {
    type Output = GateAdmission<'a>;

    #[cold]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<GateAdmission<'a>> {
        if self.waiting.is_none() {
            match self.core.admit() {
                Admission::Go(permit) => return Poll::Ready(GateAdmission::granted(permit)),
                Admission::No(rejection) => return Poll::Ready(GateAdmission::denied(rejection)),
                Admission::Wait(waiting) => self.waiting = Some(Box::new(waiting)),
            }
        }
        match &mut self.waiting {
            Some(waiting) => Pin::new(&mut **waiting).poll(cx).map(|answer| match answer {
                Ok(permit) => GateAdmission::granted(permit),
                Err(rejection) => GateAdmission::denied(rejection),
            }),
            None => Poll::Pending,
        }
    }
}

pin_project! {
    /// The running body of a call whose result is classified afterwards, by [`end`]. `Err`: the call has
    /// timed out. The body is held by value, and its result is returned as a `ManuallyDrop`, for the reasons
    /// given at [`Guarded`](crate::__private::Guarded).
    #[must_use = "futures do nothing unless polled"]
    pub struct Run<'a, 'p, F> {
        permit: &'p mut CallPermit<'a>,
        given_timeout: &'p Option<Duration>,
        watch: Stopwatch,
        awaited: Option<Arc<Awaited<'a>>>,
        #[pin]
        body: F,
    }
}

/// What a call waits for besides its body. It is on the heap, because few calls need it. It is in an `Arc`
/// although it is not shared: every call drops an `Option` of it, which for an `Arc` is a null check, but
/// for a `Box` of this type a function call.
pub enum Awaited<'a> {
    /// The permit.
    Permit(Admit<'a>),
    /// The timer of a `call_timeout`, and its limit.
    Deadline(Duration, Pin<Box<Sleep>>),
}

impl Awaited<'_> {
    /// Records the failure of a call whose time is over. The body has been dropped before.
    pub(crate) fn timed_out(&self, permit: CallPermit<'_>) -> BreakerError {
        let Awaited::Deadline(limit, _) = self else { unreachable!("a call that is made has its permit") };
        permit.timed_out(*limit)
    }
}

/// Makes the permitted call. `given_timeout`: the function's `call_timeout`.
#[expect(clippy::ref_option, reason = "calls borrow it: two words would be copied into every future")]
#[expect(clippy::inline_always, reason = "a call would copy the body")]
#[inline(always)]
pub(crate) fn run<'a, 'p, F: Future>(
    permit: &'p mut CallPermit<'a>,
    given_timeout: &'p Option<Duration>,
    body: F,
) -> Run<'a, 'p, F> {
    let watch = permit.stopwatch();
    Run { permit, given_timeout, watch, awaited: None, body }
}

impl<'a, F: Future> Future for Run<'a, '_, F> {
    type Output = Result<ManuallyDrop<F::Output>, Arc<Awaited<'a>>>;

    #[expect(clippy::inline_always, reason = "a call would pass the value through memory")]
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (body, permit) = (this.body, &mut **this.permit);
        if let Poll::Ready(value) = permit.guard(|| body.poll(cx)) {
            let value = ManuallyDrop::new(value);
            permit.took(*this.watch);
            return Poll::Ready(Ok(value));
        }
        suspend(permit, **this.given_timeout, this.watch, this.awaited, cx).map(Err)
    }
}

/// Ready once the call has timed out.
#[cold]
#[inline(never)]
pub(crate) fn suspend<'a>(
    permit: &CallPermit<'_>,
    given_timeout: Option<Duration>,
    watch: &mut Stopwatch,
    awaited: &mut Option<Arc<Awaited<'a>>>,
    cx: &mut Context<'_>,
) -> Poll<Arc<Awaited<'a>>> {
    if !watch.was_suspended() {
        *awaited = permit.core().call_timeout(given_timeout).map(|limit| {
            permit.limit(limit);
            Arc::new(Awaited::Deadline(limit, Box::pin(tokio::time::sleep(limit))))
        });
    }
    *watch = watch.suspended(permit.core().clock());
    let Some(Awaited::Deadline(_, timer)) = awaited.as_mut().and_then(Arc::get_mut) else {
        return Poll::Pending;
    };
    // The timer must have been polled to wake this task.
    ready!(timer.as_mut().poll(cx));
    awaited.take().map_or(Poll::Pending, Poll::Ready)
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
