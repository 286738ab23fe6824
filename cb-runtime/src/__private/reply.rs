//! What a fallback may return: the function's return value or the value inside its `Ok`, at once or as a
//! future.
//!
//! The expansion asks a [`Reply`] for its shape by a method call. Method resolution tries the shapes in a
//! fixed order, so a fallback whose type is still open (`|_| Default::default()`) gets the first one that
//! fits: the value inside `Ok`.

use std::future::{Future, Pending};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::fallback::{Callable, IntoReason};
use super::return_kind::Output;

/// Stands for a fallback's return type `A`, for a function that returns `R`.
pub struct Reply<A, R>(PhantomData<fn() -> (A, R)>);

impl<A, R> Reply<A, R> {
    /// The reply of that type.
    #[inline]
    pub fn of(_reply: &A, _output: Output<R>) -> Self {
        Reply(PhantomData)
    }
}

/// The value inside `Ok`.
pub struct OkValue;
/// What the function returns.
pub struct Whole;
/// A future of the value inside `Ok`.
pub struct OkValueLater;
/// A future of what the function returns.
pub struct WholeLater;
/// A type that fits none of the shapes.
pub struct Mismatch;

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident: <$($param:ident),*> $self_type:ty => $shape:ident
        $(where $bounded:ident: $bound:path)?;)*) => {$(
        $(#[$doc])*
        pub trait $name {
            #[doc(hidden)]
            #[inline]
            fn circuit_breaker_reply_shape(&self) -> $shape {
                $shape
            }
        }

        impl<$($param),*> $name for $self_type $(where $bounded: $bound)? {}
    )*};
}

// A call on `&&&&&reply` finds the method for the type with the most references first.
shapes! {
    /// Tried first.
    IsOkValue: <T, E> &&&&Reply<T, Result<T, E>> => OkValue;
    /// Tried second.
    IsWhole: <R> &&&Reply<R, R> => Whole;
    /// Tried third.
    IsOkValueLater: <F, T, E> &&Reply<F, Result<T, E>> => OkValueLater where F: Future<Output = T>;
    /// Tried fourth.
    IsWholeLater: <F, R> &Reply<F, R> => WholeLater where F: Future<Output = R>;
    /// Fits everything.
    IsMismatch: <A, R> Reply<A, R> => Mismatch;
}

/// What a fallback may return for a function that returns `R`.
#[diagnostic::on_unimplemented(
    message = "this fallback does not return what the function returns",
    label = "returns `{Self}`, not `{R}`",
    note = "a fallback returns what the function returns, or the value inside its `Ok`; it may be async"
)]
pub trait FallbackReply<R, Shape> {
    #[doc(hidden)]
    type Future: Future<Output = R>;
    /// The return value, or a future of it. A value is not wrapped in a ready future: while that is awaited,
    /// the function's future would contain the value, and could not be sent if the value cannot.
    #[doc(hidden)]
    fn answer(reply: Self, output: Output<R>, shape: Shape) -> Result<R, Self::Future>;
}

impl<R> FallbackReply<R, Whole> for R {
    type Future = Pending<R>;

    #[inline]
    fn answer(reply: Self, _: Output<R>, _: Whole) -> Result<R, Self::Future> {
        Ok(reply)
    }
}

impl<R, F: Future<Output = R>> FallbackReply<R, WholeLater> for F {
    type Future = F;

    #[inline]
    fn answer(reply: Self, _: Output<R>, _: WholeLater) -> Result<R, F> {
        Err(reply)
    }
}

impl<T, E> FallbackReply<Result<T, E>, OkValue> for T {
    type Future = Pending<Result<T, E>>;

    #[inline]
    fn answer(reply: Self, _: Output<Result<T, E>>, _: OkValue) -> Result<Result<T, E>, Self::Future> {
        Ok(Ok(reply))
    }
}

impl<T, E, F: Future<Output = T>> FallbackReply<Result<T, E>, OkValueLater> for F {
    type Future = InOk<F, E>;

    #[inline]
    fn answer(reply: Self, _: Output<Result<T, E>>, _: OkValueLater) -> Result<Result<T, E>, Self::Future> {
        Err(InOk { future: Box::pin(reply), error: PhantomData })
    }
}

/// A future whose value is put into an `Ok`.
pub struct InOk<F, E> {
    // Boxed, because projecting a pin needs unsafe code or another crate, and a fallback can afford an
    // allocation.
    future: Pin<Box<F>>,
    error: PhantomData<fn() -> E>,
}

impl<F: Future, E> Future for InOk<F, E> {
    type Output = Result<F::Output, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(cx).map(Ok)
    }
}

/// Calls a fallback that never returns, for a function that never returns. The call and the conversion are
/// one step, because a variable between them would have the type `()` before edition 2024.
pub async fn call_forever<Args, Reason: IntoReason, R, F, Takes, Shape>(
    args: Args,
    reason: Reason,
    _output: Output<R>,
    fallback: F,
) -> R
where
    F: Callable<Args, Reason::Reason, Takes, Output: Forever<R, Shape>>,
{
    F::call(args, reason, fallback).forever().await
}

/// A value of a type without values, or a future of it.
#[diagnostic::on_unimplemented(
    message = "this fallback does not return what the function returns",
    label = "returns `{Self}`, not `{R}`",
    note = "a function that never returns needs a fallback that never does; it may be async"
)]
pub trait Forever<R, Shape> {
    #[doc(hidden)]
    fn forever(self) -> impl Future<Output = R>;
}

impl<R> Forever<R, Whole> for R {
    fn forever(self) -> impl Future<Output = R> {
        std::future::ready(self)
    }
}

impl<R, F: Future<Output = R>> Forever<R, WholeLater> for F {
    fn forever(self) -> impl Future<Output = R> {
        self
    }
}
