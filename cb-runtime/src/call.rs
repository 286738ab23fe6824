//! A guarded call: permit, body, classification, outcome.

mod error;
mod run;
pub(crate) mod verdict;

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::breaker::Breaker;
use crate::breaker::counters::Outcome;
use crate::breaker::permit::{CallPermit, GateAdmission, Rejection};
use crate::breaker::stopwatch::Stopwatch;
use crate::deadline::block_on;
pub use error::CallError;
pub(crate) use run::{Admit, Awaited, Run, admitted, run, suspend, wait};
use verdict::ResultItself;
pub(crate) use verdict::{Judge, Verdict, end};

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
    /// defaults), a tokio runtime must have its timer enabled.
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
