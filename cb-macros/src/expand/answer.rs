//! What the function returns: the result of its body, or that of its fallback.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::Expr;

use super::{Guarded, allowed_for, call_at, call_with, ours_at, runtime};
use crate::signature::{Arg, Output};
use crate::tokens::unwrapped;
use crate::validate::{Callee, On};

impl Guarded<'_> {
    /// `let args`: copies for a fallback that may be called after the body has taken the arguments.
    pub(super) fn cloned_arguments(&self) -> Option<TokenStream> {
        self.plan.fallback.as_ref().filter(|fallback| fallback.on != On::Open)?;
        let clones = self.function.args.iter().map(|Arg { ident, type_span, .. }| {
            let rt = runtime(*type_span);
            quote_spanned!(ours_at(*type_span)=> #rt::CloneArg::clone_arg(&#ident))
        });
        let allowed = allowed_for(&self.function.args);
        Some(quote_spanned!(Span::mixed_site()=> #allowed let args = (#(#clones,)*);))
    }

    /// The return value of a function without a fallback.
    pub(super) fn answer(&self) -> TokenStream {
        let returned = self.function.output_span();
        let reject = reject(returned);
        let args = quote_spanned!(ours_at(returned)=> kind, ended, #reject);
        let into_return = call_at(returned, "into_return", &args);
        let return_ = self.return_at(returned);
        quote_spanned!(Span::mixed_site()=> #return_ #into_return)
    }

    /// The return value of a [plain call](Self::plain_call) without a result.
    pub(super) fn stopped(&self) -> TokenStream {
        let returned = self.function.output_span();
        let reject = reject(returned);
        let args = quote_spanned!(ours_at(returned)=> output, kind, stopped, #reject);
        let value = call_at(returned, "stopped", &args);
        let return_ = self.return_at(returned);
        quote_spanned!(Span::mixed_site()=> #return_ #value)
    }

    /// Returns the body's result.
    pub(super) fn returned_value(&self) -> TokenStream {
        let return_ = self.return_at(Span::mixed_site());
        let value = Self::unwrapped();
        quote_spanned!(Span::mixed_site()=> #return_ #value)
    }

    /// The return value, or `output` and what the fallback is called with.
    pub(super) fn answer_or_arguments(&self, on: On) -> TokenStream {
        let into_return = match on {
            On::Any => "into_return_or_any",
            On::Open => "into_return_or_open",
            On::Error => "into_return_or_error",
        };
        let returned = self.function.output_span();
        let reject = (on != On::Any).then(|| reject(returned));
        let args = quote_spanned!(ours_at(returned)=> kind, ended, args, #reject);
        let into_return = call_at(returned, into_return, &args);
        let rt = runtime(Span::mixed_site());
        let return_ = self.return_at(Span::mixed_site());
        quote_spanned! {Span::mixed_site()=>
            match #into_return {
                #rt::Result::Ok(value) => #return_ value,
                #rt::Result::Err((args, reason)) => (output, args, reason),
            }
        }
    }

    /// `return`, which a lint may ask for. There is no value of `!`, and so nothing to return.
    fn return_at(&self, span: Span) -> Option<TokenStream> {
        let is_never = matches!(self.function.output(), Output::Never);
        (!is_never).then(|| quote_spanned!(ours_at(span)=> return))
    }

    /// The return value, from the fallback.
    pub(super) fn of_fallback(&self, function: &Callee) -> TokenStream {
        match self.function.output() {
            Output::Never if !is_async(function) => forever(function),
            _ => reply(function),
        }
    }
}

/// The last arguments of the runtime's `into_return…`, which turn a rejection into a return value.
fn reject(returned: Span) -> TokenStream {
    let rt = runtime(returned);
    quote_spanned!(ours_at(returned)=> #rt::unnameable(), #rt::FromBreakerError::from_breaker_error)
}

/// The fallback's result, in the form in which the function returns it.
fn reply(function: &Callee) -> TokenStream {
    let at = function.span();
    let reply = match function {
        Callee::Path(path) => {
            call_at(at, "Callable::call", &quote_spanned!(ours_at(at)=> args, reason, #path))
        }
        Callee::Closure { closure, arity, takes_reason } => {
            let reason = if *takes_reason { "_with_reason" } else { "" };
            let args = quote_spanned!(ours_at(at)=> args, reason, #closure);
            call_at(at, &format!("call_{arity}{reason}"), &args)
        }
    };
    let answer = call_with(at, "FallbackReply::answer", "reply, output, shape");
    let rt = runtime(Span::mixed_site());
    quote_spanned! {Span::mixed_site()=>
        let later = {
            let reply = #reply;
            let shape = {
                #[allow(unused_imports)]
                use #rt::{IsMismatch as _, IsOkValue as _, IsOkValueLater as _, IsWhole as _, IsWholeLater as _};
                (&&&&&#rt::Reply::of(&reply, output)).circuit_breaker_reply_shape()
            };
            match #answer {
                #rt::Result::Ok(value) => return value,
                #rt::Result::Err(later) => later,
            }
        };
        return later.await
    }
}

/// A fallback that never returns. A variable that holds its result would be a `()` before edition 2024.
fn forever(function: &Callee) -> TokenStream {
    let at = function.span();
    match function {
        Callee::Path(path) => {
            let args = quote_spanned!(ours_at(at)=> args, reason, output, #path);
            let call = call_at(at, "call_forever", &args);
            quote_spanned!(Span::mixed_site()=> #call.await)
        }
        Callee::Closure { closure, arity, takes_reason } => {
            let reason = if *takes_reason { "_with_reason" } else { "" };
            let args = quote_spanned!(ours_at(at)=> args, reason, output, #closure);
            call_at(at, &format!("call_{arity}{reason}_forever"), &args)
        }
    }
}

/// Whether a closure returns a future, as far as its tokens can tell.
fn is_async(function: &Callee) -> bool {
    match function {
        Callee::Path(_) => false,
        Callee::Closure { closure, .. } => match unwrapped(closure) {
            Expr::Closure(closure) => {
                closure.asyncness.is_some() || matches!(unwrapped(&closure.body), Expr::Async(_))
            }
            _ => false,
        },
    }
}
