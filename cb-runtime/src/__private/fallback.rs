//! Calling a fallback of whatever shape it has. The compiler finds the shape out, in two steps, each
//! with an error of its own: what it takes ([`Callable`]), and what it returns ([`Answer`]).

use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::form::Output;

/// A copy of an argument, for the fallback.
#[inline]
pub fn spare<T: Spare>(argument: &T) -> T {
    argument.spare()
}

/// An argument that both the body and the fallback can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cloned, so the body and the fallback cannot both have it",
    label = "is not `Clone`",
    note = "three ways out: implement `Clone`; take the argument by reference or in an `Arc`; or \
            `fallback_on = \"open\"`, where the arguments move into the body or into the fallback"
)]
pub trait Spare: Sized {
    #[doc(hidden)]
    fn spare(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Clone> Spare for T {
    #[inline]
    fn spare(&self) -> Self {
        self.clone()
    }
}

/// The fallback takes the arguments.
pub struct Plain;
/// The fallback takes the arguments and the reason.
pub struct WithReason;

/// A function that can be called with the arguments, with or without the reason after them.
#[diagnostic::on_unimplemented(
    message = "this fallback does not take the function's arguments",
    label = "cannot be called with `{Args}`",
    note = "a fallback takes the same arguments as the function (a method's begin with `self`), and may take \
            one more, the reason: `{Reason}`"
)]
pub trait Callable<Args, Reason, Takes> {
    /// What it returns.
    type Output;
    #[doc(hidden)]
    fn call(self, args: Args, reason: Reason) -> Self::Output;
}

/// Calls a fallback that is given by its path.
// The arguments come first, so that their types are known when the compiler looks at the fallback's.
#[inline]
pub fn call<Args, Reason, F: Callable<Args, Reason, Takes>, Takes>(
    args: Args,
    reason: Reason,
    fallback: F,
) -> F::Output {
    fallback.call(args, reason)
}

/// The arguments, on their way to a closure: its parameters get their types from here, so none need be
/// written. A closure says itself how many it takes.
pub struct Given<Args>(pub Args);

macro_rules! arities {
    ($(($($A:ident)*))*) => {$(
        impl<Fun, Out, Reason, $($A),*> Callable<($($A,)*), Reason, Plain> for Fun
        where
            Fun: FnOnce($($A),*) -> Out,
        {
            type Output = Out;

            #[inline]
            fn call(self, ($($A,)*): ($($A,)*), _reason: Reason) -> Out {
                self($($A),*)
            }
        }

        impl<Fun, Out, Reason, $($A),*> Callable<($($A,)*), Reason, WithReason> for Fun
        where
            Fun: FnOnce($($A,)* Reason) -> Out,
        {
            type Output = Out;

            #[inline]
            fn call(self, ($($A,)*): ($($A,)*), reason: Reason) -> Out {
                self($($A,)* reason)
            }
        }

        impl<$($A),*> Given<($($A,)*)> {
            /// Calls a closure that takes the arguments.
            #[inline]
            pub fn call<Out, Reason>(self, _reason: Reason, closure: impl FnOnce($($A),*) -> Out) -> Out {
                let ($($A,)*) = self.0;
                closure($($A),*)
            }

            /// Calls a closure that takes the arguments and the reason.
            #[inline]
            pub fn call_with_reason<Out, Reason>(
                self,
                reason: Reason,
                closure: impl FnOnce($($A,)* Reason) -> Out,
            ) -> Out {
                let ($($A,)*) = self.0;
                closure($($A,)* reason)
            }
        }
    )*};
}

// The parameters' names are their types': one list instead of two.
#[allow(non_snake_case, clippy::many_single_char_names, clippy::too_many_arguments)]
mod arities {
    use super::{Callable, Given, Plain, WithReason};

    arities! {
        ()
        (A)
        (A B)
        (A B C)
        (A B C D)
        (A B C D E)
        (A B C D E F)
        (A B C D E F G)
        (A B C D E F G H)
        (A B C D E F G H I)
        (A B C D E F G H I J)
        (A B C D E F G H I J K)
        (A B C D E F G H I J K L)
    }
}

/// The fallback returns what the function returns.
pub struct Whole;
/// It does so as an async function.
pub struct WholeLater;
/// The fallback returns the `Ok` value of what the function returns.
pub struct Value;
/// It does so as an async function.
pub struct ValueLater;

/// What a fallback may return for a function that returns `R`.
#[diagnostic::on_unimplemented(
    message = "this fallback does not return what the function returns",
    label = "returns `{Self}`, not `{R}`",
    note = "a fallback returns what the function returns, or the value inside its `Ok`; it may be async"
)]
pub trait Answer<R, Shape> {
    #[doc(hidden)]
    type Future: Future<Output = R>;
    #[doc(hidden)]
    fn answer(self) -> Self::Future;
}

impl<R> Answer<R, Whole> for R {
    type Future = Ready<R>;

    #[inline]
    fn answer(self) -> Ready<R> {
        ready(self)
    }
}

impl<R, F: Future<Output = R>> Answer<R, WholeLater> for F {
    type Future = F;

    #[inline]
    fn answer(self) -> F {
        self
    }
}

impl<T, E> Answer<Result<T, E>, Value> for T {
    type Future = Ready<Result<T, E>>;

    #[inline]
    fn answer(self) -> Self::Future {
        ready(Ok(self))
    }
}

impl<T, E, F: Future<Output = T>> Answer<Result<T, E>, ValueLater> for F {
    type Future = InOk<F, E>;

    #[inline]
    fn answer(self) -> Self::Future {
        InOk { future: Box::pin(self), error: PhantomData }
    }
}

/// A future whose value is put into an `Ok`.
pub struct InOk<F, E> {
    // Boxed, as projecting a pin by hand is unsafe; a fallback can afford it.
    future: Pin<Box<F>>,
    error: PhantomData<fn() -> E>,
}

impl<F: Future, E> Future for InOk<F, E> {
    type Output = Result<F::Output, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(cx).map(Ok)
    }
}

/// Calls a fallback that never returns, as its function does not. In two steps, what it "returns" would be kept in
/// a variable in between, which before edition 2024 the compiler takes for a `()`.
#[inline]
pub fn call_forever<Args, Reason, R, F, Takes, Shape>(
    args: Args,
    reason: Reason,
    _output: Output<R>,
    function: F,
) -> <F::Output as Answer<R, Shape>>::Future
where
    F: Callable<Args, Reason, Takes, Output: Answer<R, Shape>>,
{
    function.call(args, reason).answer()
}

/// What the function returns, from what the fallback has returned.
#[inline]
pub fn reply<R, A: Answer<R, Shape>, Shape>(_output: Output<R>, answer: A) -> A::Future {
    answer.answer()
}
