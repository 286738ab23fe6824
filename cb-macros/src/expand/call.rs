//! The call: the permit, the body, and what its result counts as.
//!
//! By its type, a result is classified where it arises, in a future of the runtime that makes all of the
//! call. A predicate may panic, and looks at the result later: then the function itself contains the parts.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;

use super::{Guarded, allowed_for, call_at, call_with, ours_at, runtime};
use crate::signature::Output;
use crate::tokens::mentions;
use crate::validate::{Fallback, On};

impl Guarded<'_> {
    /// Whether nothing needs the arguments or the result but the body and its caller.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_judged_later() && self.plan.fallback.is_none() && self.plan.cache.is_none()
    }

    fn is_judged_later(&self) -> bool {
        matches!(self.function.output(), Output::Never) || self.has_predicate()
    }

    fn has_predicate(&self) -> bool {
        self.plan.is_failure.is_some() || self.plan.open_for.is_some()
    }

    /// The call of a plain function, and what the function returns.
    pub(super) fn plain_call(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        let Typed { before, inside, body } = self.typed();
        let value = self.returned_value();
        let answer = self.stopped();
        quote_spanned! {Span::mixed_site()=>
            #before
            #inside
            let admission = #rt::admit(#breaker);
            let stopped = if #rt::is_rejected(admission) {
                #rt::rejected(admission)
            } else {
                match #rt::call(#breaker, admission, #body, kind).await {
                    #rt::Result::Ok(value) => #value,
                    #rt::Result::Err(stopped) => stopped,
                }
            };
            #answer
        }
    }

    /// `let ended`, where the call has no good result: how it ended; for a fallback also `let args`, what it
    /// is called with. A result that nothing else is to be done with is returned from in here.
    pub(super) fn ended(&self) -> TokenStream {
        if self.is_judged_later() {
            self.judged_call()
        } else if self.plan.cache.is_some() {
            self.cached_call()
        } else {
            self.call_with_fallback()
        }
    }

    /// The call of a function with a fallback.
    fn call_with_fallback(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        let Typed { before, inside, body } = self.typed();
        let admission = self.admission();
        let Arguments { moved, of_rejected, copied, of_called } = self.arguments();
        let unwrapped = Self::unwrapped();
        let count = self.count_answer();
        let (ok, count) = if self.is_for_rejections() {
            (self.returned_value(), None)
        } else {
            let ok = quote_spanned! {Span::mixed_site()=>
                {
                    if !#rt::is_error(kind, &value) {
                        return #unwrapped;
                    }
                    #count
                    (#rt::Ended::Failed(#unwrapped), #of_called)
                }
            };
            (ok, count)
        };
        let again = inside.is_some().then(|| {
            let kind = self.return_kind();
            quote_spanned!(Span::mixed_site()=> let output = #rt::Output::of_ended(&ended); #kind)
        });
        quote_spanned! {Span::mixed_site()=>
            #before
            #admission
            let (ended, args) = if #rt::is_rejected(admission) {
                #moved
                (#rt::Ended::Rejected(#rt::rejection(admission)), #of_rejected)
            } else {
                #copied
                #inside
                match #rt::call(#breaker, admission, #body, kind).await {
                    #rt::Result::Ok(value) => #ok,
                    #rt::Result::Err(stopped) => {
                        #count
                        (#rt::ended(output, stopped), #of_called)
                    }
                }
            };
            #again
        }
    }

    /// The call of a function with a cache, which also answers if the call does not succeed.
    fn cached_call(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        let (output, kind, codec) = (self.output(), self.return_kind(), self.codec());
        let body = self.body();
        let admission = self.admission();
        let some = quote_spanned!(Span::mixed_site()=> #rt::Option::Some(#body));
        let none = quote_spanned!(Span::mixed_site()=> #rt::Option::None);
        let choice = if self.plan.fallback.is_some() {
            let Arguments { moved, of_rejected, copied, of_called } = self.arguments();
            quote_spanned! {Span::mixed_site()=>
                let (body, args) = if #rt::is_rejected(admission) {
                    #moved
                    (#none, #of_rejected)
                } else {
                    #copied
                    (#some, #of_called)
                };
            }
        } else {
            quote_spanned!(Span::mixed_site()=> let body = #some;)
        };
        let value = self.returned_value();
        quote_spanned! {Span::mixed_site()=>
            #output
            #kind
            #codec
            #admission
            #choice
            let ended = match #rt::call_cached(#breaker, admission, body, kind, key, codec).await {
                #rt::Result::Ok(value) => #value,
                #rt::Result::Err(ended) => ended,
            };
        }
    }

    /// The body's result. The compiler would keep a copy of a value that it may have to drop; so nobody drops
    /// this one until it is returned.
    pub(super) fn unwrapped() -> TokenStream {
        let rt = runtime(Span::mixed_site());
        quote_spanned!(Span::mixed_site()=> #rt::ManuallyDrop::into_inner(value))
    }

    /// `let admission`
    fn admission(&self) -> TokenStream {
        let (rt, breaker) = (runtime(Span::mixed_site()), self.breaker_ref());
        let admit = if self.counts_rejections_as_answered() { "admit_with_fallback" } else { "admit" };
        let admit = Ident::new(admit, Span::mixed_site());
        let admission = quote_spanned!(Span::mixed_site()=> let admission = #rt::#admit(#breaker););
        // Once the body has the arguments, they cannot move into the fallback.
        let is_known_first = self.is_judged_later() || self.is_for_rejections();
        let waited = is_known_first.then(|| self.waited());
        quote!(#admission #waited)
    }

    /// Whether the arguments move either into the body or into the fallback.
    fn is_for_rejections(&self) -> bool {
        matches!(self.plan.fallback, Some(Fallback { on: On::Open, .. }))
    }

    /// `let admission`, once it is known whether the call may be made.
    fn waited(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let waited = quote_spanned!(Span::mixed_site()=> #rt::wait(admission).await);
        let waited = if self.counts_rejections_as_answered() {
            quote_spanned!(Span::mixed_site()=> #rt::waited_with_fallback(#waited))
        } else {
            waited
        };
        quote_spanned!(Span::mixed_site()=> let admission = if #rt::must_wait(admission) { #waited } else { admission };)
    }

    /// Whether a rejection is counted together with the answer of the fallback, which follows. With a
    /// cache, a cached result may answer instead.
    pub(super) fn counts_rejections_as_answered(&self) -> bool {
        let answers = |fallback: &Fallback| matches!(fallback.on, On::Any | On::Open);
        self.plan.cache.is_none() && self.plan.fallback.as_ref().is_some_and(answers)
    }

    /// The body, with `let output` and `let kind`.
    fn typed(&self) -> Typed {
        let rt = runtime(Span::mixed_site());
        let kind = self.return_kind();
        // An `_` in the written type is inferred from the body. An alias that names no future would be one
        // more error here.
        let is_inferred = match self.function.output() {
            Output::Type(written) => {
                mentions(&written.to_token_stream(), &Ident::new("_", Span::call_site()))
            }
            Output::OfFuture(_) => true,
            Output::Unit | Output::Never => false,
        };
        let body = self.body();
        if self.is_body_first() || !is_inferred {
            let output = self.output();
            return Typed { before: quote!(#output #kind), inside: None, body };
        }
        let both = quote_spanned!(Span::mixed_site()=> let (output, body) = #rt::with_output(#body););
        let variable = quote_spanned!(Span::mixed_site()=> body);
        Typed { before: TokenStream::new(), inside: Some(quote!(#both #kind)), body: variable }
    }

    /// The fallback's arguments.
    fn arguments(&self) -> Arguments {
        let rt = runtime(Span::mixed_site());
        let args = quote_spanned!(Span::mixed_site()=> args);
        if self.is_body_first() {
            // Copied before the body was made.
            return Arguments { moved: None, of_rejected: args.clone(), copied: None, of_called: args };
        }
        let idents = self.function.args.iter().map(|arg| &arg.ident);
        let allowed = allowed_for(&self.function.args);
        let moved = Some(quote_spanned!(Span::mixed_site()=> #allowed let args = (#(#idents,)*);));
        if self.is_for_rejections() {
            Arguments {
                moved,
                of_rejected: quote_spanned!(Span::mixed_site()=> #rt::Option::Some(args)),
                copied: None,
                of_called: quote_spanned!(Span::mixed_site()=> #rt::Option::None),
            }
        } else {
            let copied = self.cloned_arguments();
            Arguments { moved, of_rejected: args.clone(), copied, of_called: args }
        }
    }

    /// The call of a function whose result is classified later: by a predicate, or never.
    fn judged_call(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        let kind = self.return_kind();
        let has_cache = self.plan.cache.is_some();
        // Before the call, because it is used on both ways out of it.
        let codec = has_cache.then(|| self.codec());
        // By value, because the future would hold a second body if this one were borrowed.
        let body = self.body();
        let body = quote_spanned!(Span::mixed_site()=> let (output, body) = #rt::with_output(#body); #kind);
        let are_small = !self.is_body_first() && self.function.args.iter().all(|arg| arg.is_small);
        let (before, inside) = if self.plan.fallback.is_none() && codec.is_none() && !are_small {
            // Arguments that can be copied would still be there beside a body that is made after a wait.
            (body, None)
        } else {
            // Nothing is copied, and no argument is moved into the body, for a call that is not made. The
            // body is made where it runs.
            let codec = codec.map(|codec| {
                let output = self.output();
                quote!(#output #kind #codec)
            });
            (quote!(#codec), Some(body))
        };
        let admission = self.admission();
        let judge = self.judge();
        let Arms { ended, copied, failed, timed_out, rejected } = self.arms();
        let ok = self.end_of_body(failed);
        let after = if has_cache {
            self.recall()
        } else {
            quote_spanned!(Span::mixed_site()=> let output = #rt::Output::of_ended(&ended); #kind)
        };
        quote_spanned! {Span::mixed_site()=>
            #before
            let #ended = 'call: {
                #admission
                let mut permit = match #rt::admitted(admission) {
                    #rt::Result::Ok(permit) => permit,
                    #rt::Result::Err(rejection) => break 'call #rejected,
                };
                #copied
                #inside
                #judge
                match #rt::run_to_judge(#breaker, &mut permit, body).await {
                    #rt::Result::Ok(value) => #ok,
                    #rt::Result::Err(deadline) => #timed_out,
                }
            };
            #after
        }
    }

    /// What is done with the body's `value`. `failed`: what follows a failure, with a cache or a fallback.
    fn end_of_body(&self, failed: Option<TokenStream>) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        if matches!(self.function.output(), Output::Never) {
            // Statements after the value would be unreachable.
            return quote_spanned!(Span::mixed_site()=> match #rt::end_never(permit, judge, value) {});
        }
        let keep = self.plan.cache.is_some().then(|| self.cache_success());
        let result = failed.map_or_else(
            || quote_spanned!(Span::mixed_site()=> return value;),
            |failed| {
                quote_spanned!(Span::mixed_site()=>
                if #rt::is_returned(verdict) {
                    return value;
                }
                #failed)
            },
        );
        // A predicate may panic: the value is dropped then.
        quote_spanned! {Span::mixed_site()=>
            {
                let value = #rt::ManuallyDrop::into_inner(value);
                let verdict = #rt::end(permit, judge, &value);
                #keep
                #result
            }
        }
    }

    /// What differs by the fallback.
    fn arms(&self) -> Arms {
        let rt = runtime(Span::mixed_site());
        let failed = quote_spanned!(Span::mixed_site()=> #rt::Ended::Failed(value));
        let timed_out = quote_spanned!(Span::mixed_site()=> #rt::time_out(output, permit, deadline));
        let rejected = quote_spanned!(Span::mixed_site()=> #rt::Ended::Rejected(rejection));
        let has_cache = self.plan.cache.is_some();
        let Some(fallback) = &self.plan.fallback else {
            let ended = quote_spanned!(Span::mixed_site()=> ended);
            return Arms { ended, copied: None, failed: has_cache.then_some(failed), timed_out, rejected };
        };
        let Arguments { moved, of_rejected, copied, of_called } = self.arguments();
        let is_on_open = fallback.on == On::Open;
        let count = (!is_on_open).then(|| self.count_answer());
        let with_args = |ended| quote_spanned!(Span::mixed_site()=> { #count (#ended, #of_called) });
        Arms {
            ended: quote_spanned!(Span::mixed_site()=> (ended, args)),
            copied,
            failed: (has_cache || !is_on_open).then(|| with_args(failed)),
            timed_out: with_args(timed_out),
            rejected: quote_spanned!(Span::mixed_site()=> { #moved (#rejected, #of_rejected) }),
        }
    }

    /// Counts the answer of the fallback where that has not been counted with the rejection.
    fn count_answer(&self) -> Option<TokenStream> {
        let (rt, breaker) = (runtime(Span::mixed_site()), self.breaker_ref());
        self.counts_rejections_as_answered()
            .then(|| quote_spanned!(Span::mixed_site()=> #rt::answered_by_fallback(#breaker);))
    }

    /// `let judge`: what classifies a returned value.
    fn judge(&self) -> TokenStream {
        let judge = match &self.plan.is_failure {
            None => call_with(Span::mixed_site(), "by_type", "kind"),
            Some(is_failure) => {
                let at = ours_at(is_failure.span());
                call_at(at, "by_predicate", &quote_spanned!(at=> output, kind, #is_failure))
            }
        };
        let judge = match &self.plan.open_for {
            None => judge,
            Some(open_for) => {
                let at = ours_at(open_for.span());
                call_at(at, "opening", &quote_spanned!(at=> output, #judge, #open_for))
            }
        };
        quote_spanned!(Span::mixed_site()=> let judge = #judge;)
    }
}

/// The body's expression, and where the variables `output` and `kind` come from.
struct Typed {
    /// Statements before the breaker is asked.
    before: TokenStream,
    /// Statements before the call is made, for a type that is inferred from the body.
    inside: Option<TokenStream>,
    body: TokenStream,
}

/// What the fallback is called with.
struct Arguments {
    /// `let args`, for a call that is not made. Nothing is copied for it.
    moved: Option<TokenStream>,
    of_rejected: TokenStream,
    /// `let args`, for a call that is made.
    copied: Option<TokenStream>,
    of_called: TokenStream,
}

/// The parts of [`Guarded::judged_call`] that depend on the fallback.
struct Arms {
    /// What the call's end is bound to.
    ended: TokenStream,
    /// Before the body.
    copied: Option<TokenStream>,
    /// For a failure; none: it is returned like a success.
    failed: Option<TokenStream>,
    timed_out: TokenStream,
    rejected: TokenStream,
}
