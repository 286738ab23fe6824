//! The permit of one call. It records exactly one outcome, however the call ends.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Core;
use super::counters::Outcome;
use super::gate::GateWord;
use super::stopwatch::Stopwatch;
use crate::clock::micros;
use crate::deadline::Deadline;
use crate::error::{BreakerError, RefusalKind};
use crate::store::LeaseId;

/// What the gate decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Admitted,
    Rejected,
    /// A probe may be due: the machine decides.
    Unknown,
}

/// The gate's decision on a call. Words that can be copied, so that the compiler keeps them in registers.
#[derive(Clone, Copy)]
pub struct GateAdmission<'a> {
    core: &'a Core,
    word: GateWord,
    decision: Decision,
}

impl<'a> GateAdmission<'a> {
    #[inline]
    pub(crate) fn new(core: &'a Core, word: GateWord, decision: Decision) -> Self {
        GateAdmission { core, word, decision }
    }

    /// A call whose answer is still to be waited for.
    #[inline]
    pub(crate) fn unanswered(core: &'a Core) -> Self {
        GateAdmission { core, word: GateWord::default(), decision: Decision::Unknown }
    }

    pub(crate) fn granted(permit: CallPermit<'a>) -> Self {
        // Another permit of this word is made at once.
        let permit = ManuallyDrop::new(permit);
        GateAdmission { core: permit.core, word: permit.word, decision: Decision::Admitted }
    }

    pub(crate) fn denied(rejection: Rejection<'a>) -> Self {
        GateAdmission { core: rejection.core, word: rejection.word, decision: Decision::Rejected }
    }

    #[inline]
    pub(crate) fn core(self) -> &'a Core {
        self.core
    }

    #[inline]
    pub(crate) fn must_wait(self) -> bool {
        self.decision == Decision::Unknown
    }

    #[inline]
    pub(crate) fn is_rejected(self) -> bool {
        self.decision == Decision::Rejected
    }

    #[inline]
    pub(crate) fn admitted(self) -> Result<CallPermit<'a>, Rejection<'a>> {
        let GateAdmission { core, word, decision } = self;
        if decision == Decision::Admitted {
            Ok(CallPermit { core, word })
        } else {
            Err(Rejection { core, word })
        }
    }

    /// The permit of a call that is admitted, else a void one.
    #[inline]
    pub(crate) fn permit_or_void(self) -> CallPermit<'a> {
        let word = if self.decision == Decision::Admitted { self.word } else { GateWord::VOID };
        CallPermit { core: self.core, word }
    }

    /// The word of a rejection, if the call is rejected, else a void one.
    #[inline]
    pub(crate) fn rejected_or_void(self) -> GateWord {
        if self.is_rejected() { self.word } else { GateWord::VOID }
    }

    /// The rejection of a call that is rejected.
    #[inline]
    pub(crate) fn rejection(self) -> Rejection<'a> {
        Rejection { core: self.core, word: self.word }
    }
}

/// A breaker's answer to a call.
pub(crate) enum Admission<'a> {
    /// The call may be made.
    Go(CallPermit<'a>),
    /// A probe may be due: the store is being asked for a lease.
    Wait(Waiting<'a>),
    /// The call must not be made.
    No(Rejection<'a>),
}

/// Permits one call.
///
/// Dropped without an outcome, the call counts as cancelled; after a panic of the guarded code, as failed.
///
/// Two words, which stay in registers: a third one would go through memory with every call.
#[must_use]
pub struct CallPermit<'a> {
    core: &'a Core,
    word: GateWord,
}

impl<'a> CallPermit<'a> {
    #[inline]
    pub(crate) fn new(core: &'a Core, word: GateWord) -> Self {
        CallPermit { core, word }
    }

    pub(crate) fn of_probe(core: &'a Core, lease: LeaseId) -> Self {
        CallPermit { core, word: GateWord::of_probe(lease) }
    }

    #[inline]
    pub(crate) fn core(&self) -> &'a Core {
        self.core
    }

    /// Begins to measure the call, if a rule looks at durations.
    #[inline]
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        if self.word.is_plain() { Stopwatch::OFF } else { self.core.stopwatch() }
    }

    /// Limits the duration of the call. A probe counts as failed soon after the limit, even if the call
    /// never ends.
    pub(crate) fn limit(&self, limit: Duration) {
        if let Some(lease) = self.word.lease() {
            self.core.limit_probe(lease, limit);
        }
    }

    /// Runs the guarded code. If it panics, the permit notes that, for the time when it is dropped. (Whether
    /// the thread is panicking would not tell: a call may be dropped by a panic of other code.)
    #[expect(clippy::inline_always, reason = "a call would pass the value through memory")]
    #[inline(always)]
    pub(crate) fn guard<T>(&mut self, code: impl FnOnce() -> T) -> T {
        let panicking = self.note_panic();
        let value = code();
        std::mem::forget(panicking);
        value
    }

    /// [`guard`](Self::guard) without a closure: notes a panic if the returned value is dropped. It is to be
    /// forgotten once the guarded code has returned.
    #[inline]
    pub(crate) fn note_panic(&mut self) -> NotePanic<'_> {
        NotePanic(&mut self.word)
    }

    /// The call took as long as `watch` says.
    #[inline]
    pub(crate) fn took(&mut self, watch: Stopwatch) {
        if !watch.is_off() && self.core.measure(watch) {
            self.word.note_slow();
        }
    }

    /// The call succeeded.
    #[cfg(test)]
    pub(crate) fn success(self) {
        self.end(Outcome::Success);
    }

    /// The call failed. If that trips the breaker, it is open when this returns.
    #[cfg(test)]
    pub(crate) fn failure(self) {
        self.end(Outcome::Failure);
    }

    /// The call took longer than `limit` and has been dropped: a failure.
    #[cold]
    pub(crate) fn timed_out(mut self, limit: Duration) -> BreakerError {
        let error = BreakerError::new(self.core.error_name().clone(), RefusalKind::TimedOut, micros(limit));
        if self.core.measure_dropped(limit) {
            self.word.note_slow();
        }
        self.end(Outcome::Failure);
        error
    }

    /// Records the outcome.
    #[inline]
    pub(crate) fn end(self, outcome: Outcome) {
        let permit = ManuallyDrop::new(self);
        permit.core.record(permit.word, outcome);
    }

    /// Records the outcome of a call whose permit stays where it is. From now on the permit is void.
    #[cfg_attr(not(debug_assertions), inline)]
    pub(crate) fn end_in_place(&mut self, watch: Stopwatch, is_failure: bool) {
        self.took(watch);
        self.core.record(self.word, if is_failure { Outcome::Failure } else { Outcome::Success });
        self.word = GateWord::VOID;
    }

    /// Leaves a void permit.
    pub(crate) fn take(&mut self) -> CallPermit<'a> {
        CallPermit { core: self.core, word: std::mem::replace(&mut self.word, GateWord::VOID) }
    }

    /// Whether there is no call that it permits: not yet, or no more.
    #[inline]
    pub(crate) fn is_void(&self) -> bool {
        self.word == GateWord::VOID
    }

    /// For an owned permit, which from now on gives the outcome back.
    pub(crate) fn into_word(self) -> GateWord {
        ManuallyDrop::new(self).word
    }

    /// Records a failure that determines how long the circuit is open.
    #[cold]
    pub(crate) fn end_opening(self, span: Duration) {
        let permit = ManuallyDrop::new(self);
        permit.core.record_opening(permit.word, span);
    }
}

impl Drop for CallPermit<'_> {
    // The check is inlined, because a call whose permit stays where it is drops a void one.
    #[inline]
    fn drop(&mut self) {
        if !self.is_void() {
            self.end_without_outcome();
        }
    }
}

impl CallPermit<'_> {
    #[cold]
    #[inline(never)]
    fn end_without_outcome(&self) {
        let outcome = if self.word.panicked() { Outcome::Failure } else { Outcome::Cancelled };
        self.core.record(self.word, outcome);
    }
}

/// Dropped by a panic, and by nothing else.
pub(crate) struct NotePanic<'a>(&'a mut GateWord);

impl Drop for NotePanic<'_> {
    fn drop(&mut self) {
        self.0.note_panic();
    }
}

/// A call that must not be made, and that has been counted. It becomes an error only where the error is used:
/// most fallbacks do not use it.
#[derive(Clone, Copy)]
pub struct Rejection<'a> {
    core: &'a Core,
    word: GateWord,
}

impl<'a> Rejection<'a> {
    #[inline]
    pub(crate) fn new(core: &'a Core, word: GateWord) -> Self {
        Rejection { core, word }
    }

    /// The caller's error.
    #[inline]
    pub fn into_error(self) -> BreakerError {
        self.core.rejection_error(self.word)
    }
}

/// Waits for the answer to a request for a probe: for one round trip to the store, which the coordinator
/// bounds. It has a bound of its own, in case the coordinator is gone. If it is dropped early, the probe is
/// returned.
pub(crate) struct Waiting<'a> {
    core: &'a Core,
    answer: oneshot::Receiver<Grant>,
    deadline: Deadline,
}

/// A granted probe that its caller has not taken yet. It is returned when dropped.
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
        Waiting { core, answer, deadline: Deadline::after(core.context().timeouts.silence()) }
    }
}

impl<'a> Future for Waiting<'a> {
    type Output = Result<CallPermit<'a>, Rejection<'a>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(cx) {
            return Poll::Ready(match answer {
                // The state may have changed between the granting and now; the grant then goes back.
                Ok(mut grant) if self.core.is_current(grant.word) => match grant.lease.take() {
                    Some(lease) => Ok(CallPermit::of_probe(self.core, lease)),
                    None => self.core.admit_late(),
                },
                _ => self.core.admit_late(),
            });
        }
        std::task::ready!(Pin::new(&mut self.deadline).poll(cx));
        self.answer.close();
        // By now this instance knows that it has no store: it may probe on its own.
        Poll::Ready(match self.core.admit() {
            Admission::Go(permit) => Ok(permit),
            Admission::No(rejection) => Err(rejection),
            Admission::Wait(_) => self.core.admit_late(),
        })
    }
}
