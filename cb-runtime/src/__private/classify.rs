//! Classifies returned values.

use std::marker::PhantomData;
use std::time::Duration;

use super::return_kind::{Output, ReturnKind};
use crate::call::{Judge, Verdict};

/// Without `is_failure`: an error is a failure, anything else a success.
pub struct ByType<K>(PhantomData<K>);

impl<K> Clone for ByType<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for ByType<K> {}

impl<R, K: ReturnKind<R>> Judge<R> for ByType<K> {
    const MAY_PANIC: bool = false;

    #[inline]
    fn judge(self, value: &R) -> Verdict {
        if K::is_error(value) { Verdict::Failure } else { Verdict::Success }
    }
}

/// Classifies by the type alone.
#[inline]
pub fn by_type<K>(_kind: K) -> ByType<K> {
    ByType(PhantomData)
}

/// With `is_failure`: a value that the predicate accepts is a failure, an error that it does not accept is
/// ignored, and any other value is a success.
pub struct ByPredicate<R, K, P> {
    predicate: P,
    // With a bound on P instead, the bound would be part of the type of the awaited future, and the compiler
    // would report a mistake in the predicate twice.
    apply: fn(P, &R) -> bool,
    kind: PhantomData<K>,
}

impl<R, K: ReturnKind<R>, P> Judge<R> for ByPredicate<R, K, P> {
    #[inline]
    fn judge(self, value: &R) -> Verdict {
        match ((self.apply)(self.predicate, value), K::is_error(value)) {
            (true, _) => Verdict::Failure,
            (false, true) => Verdict::Ignored,
            (false, false) => Verdict::Success,
        }
    }
}

/// Classifies by the predicate of `is_failure`.
#[inline]
pub fn by_predicate<R, K: ReturnKind<R>, P: FnOnce(&R) -> bool>(
    _output: Output<R>,
    _kind: K,
    predicate: P,
) -> ByPredicate<R, K, P> {
    ByPredicate { predicate, apply: |predicate, value| predicate(value), kind: PhantomData }
}

/// With `open_for`: a value for which it returns a duration is a failure that opens the circuit for that
/// duration.
pub struct Opening<R, J, P> {
    judge: J,
    open_for: P,
    // See `ByPredicate`.
    apply: fn(P, &R) -> Option<Duration>,
}

impl<R, J: Judge<R>, P> Judge<R> for Opening<R, J, P> {
    #[inline]
    fn judge(self, value: &R) -> Verdict {
        match (self.apply)(self.open_for, value) {
            Some(span) => Verdict::Opening(span),
            None => self.judge.judge(value),
        }
    }
}

/// Asks `open_for` before it classifies by `judge`.
#[inline]
pub fn opening<R, J: Judge<R>, P: FnOnce(&R) -> Option<Duration>>(
    _output: Output<R>,
    judge: J,
    open_for: P,
) -> Opening<R, J, P> {
    Opening { judge, open_for, apply: |open_for, value| open_for(value) }
}
