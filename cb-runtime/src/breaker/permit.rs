//! Leave to make one call. It gives the call's outcome back exactly once, whatever becomes of the call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Core;
use super::counters::Outcome;
use super::gate::GateWord;
use super::stopwatch::Stopwatch;
use crate::error::{BreakerError, RefusalKind};
use crate::store::LeaseId;

/// What a breaker says to a call that wants to be made.
pub(crate) enum Admission<'a> {
    /// Make it.
    Go(Permit<'a>),
    /// A probe may be due: the store is being asked for leave.
    Wait(Waiting<'a>),
    /// Don't.
    No(BreakerError),
}

/// Leave to make one call.
///
/// Dropped without an outcome it counts as cancelled; dropped while the call is running (it
/// panicked) as a failure.
#[must_use]
pub struct Permit<'a> {
    core: &'a Core,
    word: GateWord,
    /// 0 = none: only a probe has one. (`Option` would be two words, and take two to move.) With [`SLOW`] in it
    /// when the call has ended, and was slow.
    lease: LeaseId,
    /// Whole words throughout: a byte that is written just before the word around it is copied stalls the
    /// processor for longer than all the rest of the fast path takes.
    stage: usize,
}

/// Beside the number of a lease: none is that high.
pub(crate) const SLOW: LeaseId = 1 << 63;

/// The guarded code is not running on any thread: between two polls, or before the first.
const IDLE: usize = 0;
/// It is running. A permit that is dropped now was dropped by a panic.
const RUNNING: usize = 1;
/// The outcome has been given back.
const ENDED: usize = 2;

impl<'a> Permit<'a> {
    #[inline]
    pub(crate) fn new(core: &'a Core, word: GateWord, lease: Option<LeaseId>) -> Self {
        Permit { core, word, lease: lease.unwrap_or(0), stage: IDLE }
    }

    pub(crate) fn core(&self) -> &'a Core {
        self.core
    }

    /// How long the call may take: the operator's word, else what the function was `given` by its
    /// attribute, else the registry's default.
    #[inline]
    pub fn call_timeout(&self, given: Option<Duration>) -> Option<Duration> {
        self.core.call_timeout(given)
    }

    /// The call is not going to take longer than this: if it is a probe, it counts as failed soon after, even if the call
    /// never ends.
    pub(crate) fn limit(&self, limit: Duration) {
        if self.lease != 0 {
            self.core.limit_probe(self.lease & !SLOW, limit);
        }
    }

    /// Marks that the guarded code is running on this thread now (`true`), or has returned (`false`).
    /// A permit that is dropped in between was dropped by a panic.
    #[inline]
    pub fn running(&mut self, running: bool) {
        self.stage = if running { RUNNING } else { IDLE };
    }

    /// The call has been measured, and ends now, whatever that is going to mean.
    #[inline]
    pub(crate) fn took(&mut self, watch: Stopwatch) {
        if self.core.was_slow(watch) {
            self.lease |= SLOW;
        }
    }

    /// The call returned what counts as a success.
    #[inline]
    pub fn success(mut self) {
        self.end(Outcome::Success);
    }

    /// The call returned what counts as a failure. If that trips the breaker, it is open when this returns.
    pub fn failure(mut self) {
        self.end(Outcome::Failure);
    }

    /// The call returned something that says nothing about the dependency.
    #[inline]
    pub fn ignored(mut self) {
        self.end(Outcome::Ignored);
    }

    /// The call took longer than `limit` and has been dropped: a failure.
    pub fn timed_out(mut self, limit: Duration) -> BreakerError {
        let error = BreakerError::new(self.core.name().clone(), RefusalKind::TimedOut, Some(limit));
        if self.core.is_slow(limit) {
            self.lease |= SLOW;
        }
        self.end(Outcome::Failure);
        error
    }

    /// Gives the outcome back, without moving the permit.
    #[inline]
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.stage = ENDED;
        self.core.record(self.word, self.lease, outcome);
    }

    /// The same for a failure that says for how long the circuit must be open.
    #[cold]
    pub(crate) fn end_opening(&mut self, span: Duration) {
        self.stage = ENDED;
        self.core.record_opening(self.word, self.lease, span);
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.stage {
            ENDED => {}
            RUNNING => self.core.record(self.word, self.lease, Outcome::Failure),
            _ => self.core.record(self.word, self.lease, Outcome::Cancelled),
        }
    }
}

/// Waits for the answer to a request for a probe: one round trip to the store at most, with a
/// deadline that the coordinator keeps. Dropped early, the probe goes back.
pub(crate) struct Waiting<'a> {
    core: &'a Core,
    answer: oneshot::Receiver<Grant>,
}

/// A probe that has been granted and not been taken yet; goes back if it is dropped.
pub(crate) struct Grant {
    core: Arc<Core>,
    word: GateWord,
    lease: Option<LeaseId>,
}

impl Grant {
    pub(crate) fn new(core: Arc<Core>, word: GateWord, lease: LeaseId) -> Self {
        Grant { core, word, lease: Some(lease) }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.core.give_back(lease);
        }
    }
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(core: &'a Core, answer: oneshot::Receiver<Grant>) -> Self {
        Waiting { core, answer }
    }
}

impl<'a> Future for Waiting<'a> {
    type Output = Result<Permit<'a>, BreakerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(match answer {
            // The state may have changed between the granting and now; the grant then goes back.
            Ok(mut grant) if self.core.is_current(grant.word) => {
                Ok(Permit::new(self.core, grant.word, grant.lease.take()))
            }
            _ => self.core.admit_late(),
        })
    }
}
