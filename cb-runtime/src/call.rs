//! A guarded call: leave, the body, what its outcome means, and giving that back.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::breaker::permit::{Admission, Permit};
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
    /// A panic of the call counts as a failure and goes on to the caller. If the breaker has a
    /// `call_timeout`, a tokio runtime with a timer is needed.
    ///
    /// # Errors
    /// [`CallError::Rejected`] without having called `call`, [`CallError::TimedOut`] after dropping it,
    /// [`CallError::Failed`] with its own error.
    pub async fn call<T, E>(&self, call: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, CallError<E>> {
        let core = self.core();
        let ran = {
            let body = pin!(async move { call().await });
            match admitted(core).await {
                Ok(permit) => permitted(permit, None, body).await,
                Err(rejection) => Ran::Rejected(rejection),
            }
        };
        match ran {
            Ran::Returned(permit, Ok(value)) => {
                permit.success();
                Ok(value)
            }
            Ran::Returned(permit, Err(error)) => {
                permit.failure();
                Err(CallError::Failed(error))
            }
            Ran::Rejected(error) => Err(CallError::Rejected(error)),
            Ran::TimedOut(error) => Err(CallError::TimedOut(error)),
        }
    }
}

/// A call that is over, and that is yet to be judged if it returned.
pub enum Ran<'a, R> {
    /// It returned this.
    Returned(Permit<'a>, R),
    /// It was not made.
    Rejected(BreakerError),
    /// It took too long, was dropped, and has been counted as a failure.
    TimedOut(BreakerError),
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

/// Makes the call that there is leave for.
// Not an `async fn`: that would hold its arguments twice, once as such and once as variables.
#[inline]
pub(crate) fn permitted<'p, F: Future>(
    mut permit: Permit<'p>,
    call_timeout: Option<Duration>,
    body: Pin<&mut F>,
) -> impl Future<Output = Ran<'p, F::Output>> {
    let deadline = permit.call_timeout(call_timeout).map(Deadline::new);
    async move {
        match (Drive { permit: &mut permit, body, deadline }).await {
            Ok(value) => Ran::Returned(permit, value),
            Err(limit) => Ran::TimedOut(permit.timed_out(limit)),
        }
    }
}

/// Polls the body until it returns, or for as long as it may take.
struct Drive<'d, 'p, F> {
    permit: &'d mut Permit<'p>,
    body: Pin<&'d mut F>,
    deadline: Option<Box<Deadline>>,
}

/// On the heap, so that a function without a timeout does not carry a timer in its future.
struct Deadline {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    #[cold]
    fn new(limit: Duration) -> Box<Self> {
        Box::new(Deadline { limit, sleep: Box::pin(tokio::time::sleep(limit)) })
    }
}

impl<F: Future> Future for Drive<'_, '_, F> {
    type Output = Result<F::Output, Duration>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let drive = self.get_mut();
        // Not reset if the body panics: a permit that is dropped while running is a failure.
        drive.permit.running(true);
        let polled = drive.body.as_mut().poll(cx);
        drive.permit.running(false);
        if let Poll::Ready(value) = polled {
            return Poll::Ready(Ok(value));
        }
        match &mut drive.deadline {
            Some(deadline) => deadline.sleep.as_mut().poll(cx).map(|()| Err(deadline.limit)),
            None => Poll::Pending,
        }
    }
}
