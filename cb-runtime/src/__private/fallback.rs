//! Calling a fallback, with or without the reason as its last argument. The compiler finds out which by the function's own type.

use super::return_kind::Output;

/// A copy of an argument, for the fallback.
#[inline]
pub fn clone_arg<T: CloneArg>(argument: &T) -> T {
    argument.clone_arg()
}

/// An argument that both the body and the fallback can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cloned, so the body and the fallback cannot both have it",
    label = "is not `Clone`",
    note = "three ways out: implement `Clone`; take the argument by reference or in an `Arc`; or \
            `fallback_on = \"open\"`, where the arguments move into the body or into the fallback"
)]
pub trait CloneArg: Sized {
    #[doc(hidden)]
    fn clone_arg(&self) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Clone> CloneArg for T {
    #[inline]
    fn clone_arg(&self) -> Self {
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
    fn call(self, args: Args, reason: impl IntoReason<Reason = Reason>) -> Self::Output;
}

/// Makes the reason, for a fallback that takes it.
pub trait IntoReason {
    /// What the fallback takes.
    type Reason;
    #[doc(hidden)]
    fn into_reason(self) -> Self::Reason;
}

/// Calls a fallback that is given by its path.
// The arguments come first, so that the compiler knows their types when it checks the fallback.
#[inline]
pub fn call<Args, Reason: IntoReason, F: Callable<Args, Reason::Reason, Takes>, Takes>(
    args: Args,
    reason: Reason,
    fallback: F,
) -> F::Output {
    fallback.call(args, reason)
}

/// The arguments for a closure. Its parameters get their types from here, so none need be written.
pub struct Arguments<Args>(pub Args);

macro_rules! arities {
    ($(($($A:ident)*))*) => {$(
        impl<Fun, Out, Reason, $($A),*> Callable<($($A,)*), Reason, Plain> for Fun
        where
            Fun: FnOnce($($A),*) -> Out,
        {
            type Output = Out;

            #[inline]
            fn call(self, ($($A,)*): ($($A,)*), _reason: impl IntoReason<Reason = Reason>) -> Out {
                self($($A),*)
            }
        }

        impl<Fun, Out, Reason, $($A),*> Callable<($($A,)*), Reason, WithReason> for Fun
        where
            Fun: FnOnce($($A,)* Reason) -> Out,
        {
            type Output = Out;

            #[inline]
            fn call(self, ($($A,)*): ($($A,)*), reason: impl IntoReason<Reason = Reason>) -> Out {
                self($($A,)* reason.into_reason())
            }
        }

        impl<$($A),*> Arguments<($($A,)*)> {
            /// Calls a closure that takes the arguments.
            #[inline]
            pub fn call<Out, Reason>(self, _reason: Reason, closure: impl FnOnce($($A),*) -> Out) -> Out {
                let ($($A,)*) = self.0;
                closure($($A),*)
            }

            /// Calls a closure that takes the arguments and never returns, as its function does not.
            #[inline]
            pub fn call_forever<R, Reason>(
                self,
                _reason: Reason,
                _output: Output<R>,
                closure: impl FnOnce($($A),*) -> R,
            ) -> R {
                let ($($A,)*) = self.0;
                closure($($A),*)
            }

            /// Calls a closure that takes the arguments and the reason and never returns.
            #[inline]
            pub fn call_with_reason_forever<R, Reason: IntoReason>(
                self,
                reason: Reason,
                _output: Output<R>,
                closure: impl FnOnce($($A,)* Reason::Reason) -> R,
            ) -> R {
                let ($($A,)*) = self.0;
                closure($($A,)* reason.into_reason())
            }

            /// Calls a closure that takes the arguments and the reason.
            #[inline]
            pub fn call_with_reason<Out, Reason: IntoReason>(
                self,
                reason: Reason,
                closure: impl FnOnce($($A,)* Reason::Reason) -> Out,
            ) -> Out {
                let ($($A,)*) = self.0;
                closure($($A,)* reason.into_reason())
            }
        }
    )*};
}

// Each parameter is named after its type, so one list of names serves both.
#[allow(non_snake_case, clippy::many_single_char_names, clippy::too_many_arguments)]
mod arities {
    use super::{Arguments, Callable, IntoReason, Output, Plain, WithReason};

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
