//! The running body of a call, and what a call waits for.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use crate::breaker::Core;
use crate::breaker::permit::{Admission, CallPermit, GateAdmission, Rejection, Waiting};
use crate::breaker::stopwatch::Stopwatch;
use crate::deadline::Deadline;
use crate::error::BreakerError;

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

impl<'a> Admit<'a> {
    /// Polls the kept request for a permit, or a new one.
    #[cold]
    pub(super) fn poll_kept(
        kept: &mut Option<Admit<'a>>,
        core: &'a Core,
        cx: &mut Context<'_>,
    ) -> Poll<GateAdmission<'a>> {
        Pin::new(kept.get_or_insert(Admit { core, waiting: None })).poll(cx)
    }
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
    /// The running body of a call whose result is classified afterwards, by [`end`](super::end).
    /// `Err`: the call has timed out. The body is held by value, and its result is returned as a
    /// `ManuallyDrop`, for the reasons given at [`Guarded`](crate::__private::Guarded).
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
    Deadline(Duration, Timer),
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Tokio's timer, which its tests may pause. On another executor, the process's own.
fn timer(limit: Duration) -> Timer {
    if Handle::try_current().is_ok() {
        Box::pin(tokio::time::sleep(limit))
    } else {
        Box::pin(Deadline::after(limit))
    }
}

impl Awaited<'_> {
    /// Records the failure of a call whose time has elapsed. The body has been dropped before.
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
            Arc::new(Awaited::Deadline(limit, timer(limit)))
        });
    }
    *watch = watch.suspended(permit.core().clock());
    let Some(Awaited::Deadline(_, timer)) = awaited.as_mut().and_then(Arc::get_mut) else {
        return Poll::Pending;
    };
    // The timer must have been polled to wake this task. It is polled even if the body has used up the task's
    // budget, as a body that always has something to do does.
    ready!(Pin::new(&mut tokio::task::unconstrained(timer.as_mut())).poll(cx));
    awaited.take().map_or(Poll::Pending, Poll::Ready)
}
