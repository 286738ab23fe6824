//! What an annotated function returns: a `Result`, or anything else. The compiler tells, by the type;
//! the macro, which sees only tokens, could not see through an alias.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use super::{CallError, Ended};
use crate::error::BreakerError;

/// Stands for the type `R` that a function returns.
pub struct Output<R>(PhantomData<fn() -> R>);

impl<R> Clone for Output<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Output<R> {}

/// A name for what a type of function returns.
pub trait Returns {
    /// It.
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

/// Tells the compiler what a body returns.
pub fn returning<R, F: Future<Output = R>>(body: F) -> F {
    body
}

/// Stands for a value of a type in code that never runs.
pub fn never<R>() -> R {
    unreachable!("stands where nothing runs")
}

/// How to read a value of type `R`.
pub trait Form<R>: Copy {
    /// What is cached.
    type Value;
    /// What a failure carries.
    type Error;
    /// The form itself. Bounds on it are reported where the compiler would, with `Self`, report the argument
    /// of that type.
    type Itself;

    /// Whether it is an error by its type.
    fn is_error(value: &R) -> bool;
    /// What to cache of it.
    fn cacheable(value: &R) -> Option<&Self::Value>;
    /// Makes what the function returns of what was cached.
    fn restore(value: Self::Value) -> R;
    /// Tells a fallback of a failure.
    fn reason(failure: R) -> CallError<Self::Error>;
}

/// The function returns a `Result`: `Ok` is a success, `Err` a failure.
#[derive(Clone, Copy)]
pub struct AsResult;

/// The function returns something else: a success, whatever it is.
#[derive(Clone, Copy)]
pub struct AsValue;

impl<T, E> Form<Result<T, E>> for AsResult {
    type Value = T;
    type Error = E;
    type Itself = Self;

    #[inline]
    fn is_error(value: &Result<T, E>) -> bool {
        value.is_err()
    }

    fn cacheable(value: &Result<T, E>) -> Option<&T> {
        value.as_ref().ok()
    }

    fn restore(value: T) -> Result<T, E> {
        Ok(value)
    }

    fn reason(failure: Result<T, E>) -> CallError<E> {
        match failure {
            Ok(_) => CallError::Unacceptable,
            Err(error) => CallError::Failed(error),
        }
    }
}

impl<R> Form<R> for AsValue {
    type Value = R;
    type Error = Infallible;
    type Itself = Self;

    #[inline]
    fn is_error(_: &R) -> bool {
        false
    }

    fn cacheable(value: &R) -> Option<&R> {
        Some(value)
    }

    fn restore(value: R) -> R {
        value
    }

    fn reason(_: R) -> CallError<Infallible> {
        CallError::Unacceptable
    }
}

impl<R> Output<R> {
    /// That of a body which has not run yet.
    #[inline]
    pub fn of<F: Future<Output = R>>(_body: &Pin<&mut F>) -> Self {
        Output(PhantomData)
    }

    /// That of a call which has ended.
    #[inline]
    pub fn of_ended(_ended: &Ended<R>) -> Self {
        Output(PhantomData)
    }
}

/// Found before the method of [`OtherOutput`], which has the same name: an inherent one always is.
impl<T, E> Output<Result<T, E>> {
    #[inline]
    #[doc(hidden)]
    pub fn form(self) -> AsResult {
        AsResult
    }
}

/// The form of all that is not a `Result`.
pub trait OtherOutput: Sized {
    /// See [`AsValue`].
    #[inline]
    fn form(self) -> AsValue {
        AsValue
    }
}

impl<R> OtherOutput for Output<R> {}

/// Has something to tell a failure by, without being told.
#[diagnostic::on_unimplemented(
    message = "this function cannot fail, so its circuit could never open",
    label = "not a `Result`",
    note = "return a `Result`, or say what counts as a failure: `is_failure = |value| …`, or limit its time: \
            `call_timeout = \"1s\"`"
)]
pub trait CanFail {}

impl CanFail for AsResult {}

/// Fails to compile for a form that cannot fail.
#[inline]
pub fn can_fail<R, F: Form<R>>(_output: Output<R>, _form: F)
where
    F::Itself: CanFail,
{
}

/// Can say that the circuit is open.
#[diagnostic::on_unimplemented(
    message = "this function has no fallback, and what it returns cannot say that the circuit is open",
    label = "not a `Result`",
    note = "give it a fallback: `fallback = path_or_closure`, or return a `Result` with an error that \
            implements `From<cb_runtime::BreakerError>`"
)]
pub trait Refuse<R> {
    /// What the function returns in place of its own result.
    fn refuse(error: BreakerError) -> R;
}

/// An error that a breaker's own error can become.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the circuit is open",
    label = "its error type does not implement `From<cb_runtime::BreakerError>`",
    note = "add `impl From<cb_runtime::BreakerError> for {Self}`, or give the function a fallback for \
            everything: `fallback = path_or_closure`"
)]
pub trait FromBreakerError {
    #[doc(hidden)]
    fn from_breaker_error(error: BreakerError) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<BreakerError>> FromBreakerError for E {
    fn from_breaker_error(error: BreakerError) -> Self {
        E::from(error)
    }
}

impl<T, E: FromBreakerError> Refuse<Result<T, E>> for AsResult {
    fn refuse(error: BreakerError) -> Result<T, E> {
        Err(E::from_breaker_error(error))
    }
}
