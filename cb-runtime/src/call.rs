//! A guarded call: leave, the body, what its outcome means, and giving that back.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::breaker::Breaker;
use crate::breaker::permit::{Admission, Permit};
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
        let ended = {
            let body = pin!(async move { call().await });
            match admitted(core.admit()).await {
                Ok(permit) => permitted(permit, None, body, judge_result).await,
                Err(rejection) => Ended::Rejected(rejection),
            }
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

/// The verdict where nobody has given a better one.
#[inline]
pub(crate) fn judge_result<T, E>(result: &Result<T, E>) -> Verdict {
    if result.is_ok() { Verdict::Success } else { Verdict::Failure }
}

/// The answer to a call that wants to be made, waiting for the store's word where a probe is due.
#[inline]
pub(crate) async fn admitted(admission: Admission<'_>) -> Result<Permit<'_>, BreakerError> {
    match admission {
        Admission::Go(permit) => Ok(permit),
        Admission::Wait(waiting) => waiting.await,
        Admission::No(error) => Err(error),
    }
}

/// Makes the call that there is leave for, and gives its outcome back.
#[inline]
pub(crate) async fn permitted<F: Future>(
    mut permit: Permit<'_>,
    call_timeout: Option<Duration>,
    body: Pin<&mut F>,
    judge: impl FnOnce(&F::Output) -> Verdict,
) -> Ended<F::Output> {
    let limit = permit.call_timeout(call_timeout);
    match drive(&mut permit, body, limit).await {
        Ok(value) => {
            // The predicate is the user's code as much as the body is: a panic in it counts as one.
            permit.running(true);
            let verdict = judge(&value);
            permit.running(false);
            match verdict {
                Verdict::Success => {
                    permit.success();
                    Ended::Success(value)
                }
                Verdict::Failure => {
                    permit.failure();
                    Ended::Failed(value)
                }
                Verdict::Ignored => {
                    permit.ignored();
                    Ended::Ignored(value)
                }
            }
        }
        Err(limit) => Ended::TimedOut(permit.timed_out(limit)),
    }
}

/// Polls the body until it returns, or for as long as it may take.
#[inline]
fn drive<'d, 'p, F: Future>(
    permit: &'d mut Permit<'p>,
    body: Pin<&'d mut F>,
    limit: Option<Duration>,
) -> Drive<'d, 'p, F> {
    Drive { permit, body, deadline: limit.map(Deadline::new) }
}

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
