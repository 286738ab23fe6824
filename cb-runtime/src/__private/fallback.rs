//! Calls a fallback, with or without the reason as its last argument. The compiler chooses by the function's
//! type.

use super::return_kind::Output;

/// An argument that both the body and the fallback take.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cloned, so the body and the fallback cannot both have it",
    label = "is not `Clone`",
    note = "three ways out: implement `Clone`; take the argument by reference or in an `Arc`; or \
            `fallback_on = \"open\"`, where the arguments move into the body or into the fallback"
)]
pub trait CloneArg: Sized {
    /// A copy for the fallback.
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

/// A function that takes the arguments, with or without the reason after them.
#[diagnostic::on_unimplemented(
    message = "this fallback does not take the function's arguments",
    label = "cannot be called with `{Args}`",
    note = "a fallback takes the same arguments as the function (a method's begin with `self`), and may take \
            one more, the reason: `{Reason}`"
)]
pub trait Callable<Args, Reason, Takes> {
    /// The type that it returns.
    type Output;
    /// Calls it. The arguments come first, so that the compiler knows their types when it checks the
    /// fallback.
    #[doc(hidden)]
    fn call(args: Args, reason: impl IntoReason<Reason = Reason>, fallback: Self) -> Self::Output;
}

/// Creates the reason, for a fallback that takes it.
pub trait IntoReason {
    /// The type of the reason.
    type Reason;
    #[doc(hidden)]
    fn into_reason(self) -> Self::Reason;
    /// Drops it in place; in most cases there is nothing to drop.
    #[doc(hidden)]
    fn discard(self);
}

macro_rules! callable {
    ($(($($A:ident)*))*) => {$(
        impl<Fun, Out, Reason, $($A),*> Callable<($($A,)*), Reason, Plain> for Fun
        where
            Fun: FnOnce($($A),*) -> Out,
        {
            type Output = Out;

            #[inline]
            fn call(($($A,)*): ($($A,)*), reason: impl IntoReason<Reason = Reason>, fallback: Self) -> Out {
                reason.discard();
                fallback($($A),*)
            }
        }

        impl<Fun, Out, Reason, $($A),*> Callable<($($A,)*), Reason, WithReason> for Fun
        where
            Fun: FnOnce($($A,)* Reason) -> Out,
        {
            type Output = Out;

            #[inline]
            fn call(($($A,)*): ($($A,)*), reason: impl IntoReason<Reason = Reason>, fallback: Self) -> Out {
                fallback($($A,)* reason.into_reason())
            }
        }
    )*};
}

/// Calls of closures, one function for each number of arguments. They determine the types of the closure's
/// parameters, so the user need not write them.
macro_rules! call_closures {
    ($($call:ident $with_reason:ident $forever:ident $with_reason_forever:ident ($($A:ident)*))*) => {$(
        /// Without the reason.
        #[inline]
        pub fn $call<Out, Reason, $($A),*>(
            ($($A,)*): ($($A,)*),
            _reason: Reason,
            closure: impl FnOnce($($A),*) -> Out,
        ) -> Out {
            closure($($A),*)
        }

        /// With the reason.
        #[inline]
        pub fn $with_reason<Out, Reason: IntoReason, $($A),*>(
            ($($A,)*): ($($A,)*),
            reason: Reason,
            closure: impl FnOnce($($A,)* Reason::Reason) -> Out,
        ) -> Out {
            closure($($A,)* reason.into_reason())
        }

        /// Without the reason, for a function that never returns.
        #[inline]
        pub fn $forever<R, Reason, $($A),*>(
            ($($A,)*): ($($A,)*),
            _reason: Reason,
            _output: Output<R>,
            closure: impl FnOnce($($A),*) -> R,
        ) -> R {
            closure($($A),*)
        }

        /// With the reason, for a function that never returns.
        #[inline]
        pub fn $with_reason_forever<R, Reason: IntoReason, $($A),*>(
            ($($A,)*): ($($A,)*),
            reason: Reason,
            _output: Output<R>,
            closure: impl FnOnce($($A,)* Reason::Reason) -> R,
        ) -> R {
            closure($($A,)* reason.into_reason())
        }
    )*};
}

// Each parameter is named after its type, so one list of names serves both.
#[allow(non_snake_case, clippy::many_single_char_names, clippy::too_many_arguments)]
mod arities {
    use super::{Callable, IntoReason, Output, Plain, WithReason};

    callable! {
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

    call_closures! {
        call_0 call_0_with_reason call_0_forever call_0_with_reason_forever ()
        call_1 call_1_with_reason call_1_forever call_1_with_reason_forever (A)
        call_2 call_2_with_reason call_2_forever call_2_with_reason_forever (A B)
        call_3 call_3_with_reason call_3_forever call_3_with_reason_forever (A B C)
        call_4 call_4_with_reason call_4_forever call_4_with_reason_forever (A B C D)
        call_5 call_5_with_reason call_5_forever call_5_with_reason_forever (A B C D E)
        call_6 call_6_with_reason call_6_forever call_6_with_reason_forever (A B C D E F)
        call_7 call_7_with_reason call_7_forever call_7_with_reason_forever (A B C D E F G)
        call_8 call_8_with_reason call_8_forever call_8_with_reason_forever (A B C D E F G H)
        call_9 call_9_with_reason call_9_forever call_9_with_reason_forever (A B C D E F G H I)
        call_10 call_10_with_reason call_10_forever call_10_with_reason_forever (A B C D E F G H I J)
        call_11 call_11_with_reason call_11_forever call_11_with_reason_forever (A B C D E F G H I J K)
        call_12 call_12_with_reason call_12_forever call_12_with_reason_forever (A B C D E F G H I J K L)
    }
}

pub use arities::*;
