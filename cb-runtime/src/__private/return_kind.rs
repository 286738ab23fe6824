//! The kind of an annotated function's return value: a `Result` or any other value. The macro sees only
//! tokens and cannot resolve an alias, so the expansion lets the compiler choose by the type.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use crate::breaker::permit::Rejection;
use crate::call::CallError;
use crate::error::BreakerError;

/// Stands for the type `R` that a function returns.
pub struct Output<R>(PhantomData<fn() -> R>);

impl<R> Clone for Output<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Output<R> {}

impl<R> Output<R> {
    /// The output that is written in the signature.
    #[inline]
    #[expect(clippy::new_without_default, reason = "it is the expansion's")]
    pub fn new() -> Self {
        Output(PhantomData)
    }

    /// The output of a call that has ended.
    #[inline]
    pub fn of_ended(_ended: &Ended<'_, R>) -> Self {
        Output(PhantomData)
    }

    /// The output of a call that has ended. It takes the value instead of a reference, because the compiler
    /// keeps a value that was once borrowed in the function's future even after a move.
    #[inline]
    pub fn with_ended(ended: Ended<'_, R>) -> (Self, Ended<'_, R>) {
        (Output(PhantomData), ended)
    }
}

/// A body, and its output.
#[expect(clippy::inline_always, reason = "a call would copy the body")]
#[inline(always)]
pub fn with_output<F: Future>(body: F) -> (Output<F::Output>, F) {
    (Output(PhantomData), body)
}

/// The end of a call that has not succeeded.
pub enum Ended<'a, R> {
    /// The call returned a failure.
    Failed(R),
    /// The call was rejected.
    Rejected(Rejection<'a>),
    /// The call timed out.
    TimedOut(BreakerError),
}

/// Names the type that a function type returns: `!` can be written only there.
pub trait Returns {
    /// The type.
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

/// A boxed future, which a function that is not `async` may return.
#[diagnostic::on_unimplemented(
    message = "this function is neither `async` nor does it return a boxed future, so the attribute cannot guard it",
    label = "not a `Pin<Box<dyn Future<Output = …>>>`",
    note = "make it an `async fn`, or guard the call inside it with `Breaker::call`"
)]
pub trait BoxedFuture {
    /// What the future returns.
    type Output;
    /// The future in the box.
    type Future: Future<Output = Self::Output> + ?Sized;

    /// The future itself. Without this method, the compiler would report a second time that it is none.
    #[doc(hidden)]
    fn into_pinned(self) -> Pin<Box<Self::Future>>;
    #[doc(hidden)]
    fn of_pinned(pinned: Pin<Box<Self::Future>>) -> Self;
}

#[diagnostic::do_not_recommend]
impl<F: Future + ?Sized> BoxedFuture for Pin<Box<F>> {
    type Output = F::Output;
    type Future = F;

    #[inline]
    fn into_pinned(self) -> Self {
        self
    }

    #[inline]
    fn of_pinned(pinned: Self) -> Self {
        pinned
    }
}

/// `Box::pin`. A lint may report the full path to the standard library's function as too long.
#[inline]
pub fn boxed<F: Future>(future: F) -> Pin<Box<F>> {
    Box::pin(future)
}

/// Determines the type that a body returns.
pub fn returning<R, F: Future<Output = R>>(body: F) -> F {
    body
}

/// Stands for a value of type `R` in code that never runs.
pub fn never<R>() -> R {
    unreachable!("stands in code that never runs")
}

/// How to read a value of type `R`.
pub trait ReturnKind<R>: Copy {
    /// The type that is cached.
    type Value;
    /// The error of a failure.
    type Error;
    /// The type that a rejection is turned into: the error of a `Result`, else the value itself.
    type Rejected;

    /// Whether the value is an error by its type.
    fn is_error(value: &R) -> bool;
    /// The part of the value that is cached.
    fn cacheable(value: &R) -> Option<&Self::Value>;
    /// Creates the return value from a cached value.
    fn restore(value: Self::Value) -> R;
    /// The reason that a fallback receives for a failure.
    fn reason(failure: R) -> CallError<Self::Error>;
    /// Creates the return value from a rejection.
    fn reject(rejected: Self::Rejected) -> R;
}

/// The function returns a `Result`: `Ok` is a success, `Err` a failure.
#[derive(Clone, Copy)]
pub struct ResultKind;

/// The function returns anything else: a success, whatever the value.
#[derive(Clone, Copy)]
pub struct ValueKind;

impl<T, E> ReturnKind<Result<T, E>> for ResultKind {
    type Value = T;
    type Error = E;
    type Rejected = E;

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

    #[inline]
    fn reject(rejected: E) -> Result<T, E> {
        Err(rejected)
    }
}

impl<R> ReturnKind<R> for ValueKind {
    type Value = R;
    type Error = Infallible;
    type Rejected = R;

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

    #[inline]
    fn reject(rejected: R) -> R {
        rejected
    }
}

// Method resolution prefers this inherent method to that of `OtherOutput`. The name is long, so that no
// user's trait has a method of the same name.
impl<T, E> Output<Result<T, E>> {
    #[inline]
    #[doc(hidden)]
    pub fn circuit_breaker_return_kind(self) -> ResultKind {
        ResultKind
    }
}

/// The return kind of everything but a `Result`.
pub trait OtherOutput: Sized {
    /// See `ValueKind`.
    #[inline]
    fn circuit_breaker_return_kind(self) -> ValueKind {
        ValueKind
    }
}

impl<R> OtherOutput for Output<R> {}

// The expansion calls the functions of the following traits directly: the compiler's messages would name the
// bound of a function in between.

/// A return type in which a failure can be told from a success.
#[diagnostic::on_unimplemented(
    message = "this function cannot fail, so its circuit could never open",
    label = "not a `Result`",
    note = "return a `Result`, or say what counts as a failure: `is_failure = |value| …`, or limit its time: \
            `call_timeout = \"1s\"`"
)]
pub trait CanFail: Sized {
    /// Its return kind. An associated type, because the compiler then reports nothing else about a type that
    /// does not implement this trait.
    #[doc(hidden)]
    type Kind: ReturnKind<Self>;
    /// Its return kind.
    #[doc(hidden)]
    fn return_kind(output: Output<Self>) -> Self::Kind;
}

#[diagnostic::do_not_recommend]
impl<T, E> CanFail for Result<T, E> {
    type Kind = ResultKind;

    #[inline]
    fn return_kind(_: Output<Self>) -> ResultKind {
        ResultKind
    }
}

/// A type with a conversion from [`BreakerError`]: the error of a `Result`, or the type that a function
/// returns instead of one.
///
/// `Unnameable` prevents the compiler from suggesting this trait as a bound: it suggests only bounds that it
/// can write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the circuit is open",
    label = "does not implement `From<cb_runtime::BreakerError>`",
    note = "a fallback answers instead of the error: `fallback = path_or_closure`",
    note = "return a `Result` with an error type of your own crate, which can implement `From<cb_runtime::BreakerError>`; \
            a type of another crate cannot; `anyhow::Error`, `Box<dyn Error + Send + Sync>` and `std::io::Error` have it",
    note = "in a generic function, add the bound: `where E: From<cb_runtime::BreakerError>`"
)]
pub trait FromBreakerError<Unnameable> {
    #[doc(hidden)]
    fn from_breaker_error(error: BreakerError, unnameable: Unnameable) -> Self;
}

#[diagnostic::do_not_recommend]
impl<Unnameable, E: From<BreakerError>> FromBreakerError<Unnameable> for E {
    #[inline]
    fn from_breaker_error(error: BreakerError, _: Unnameable) -> Self {
        E::from(error)
    }
}

/// A value of a type without a name.
#[inline]
pub fn unnameable() -> impl Sized {}
