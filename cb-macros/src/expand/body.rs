//! The body: the user's code, in place, and what its result counts as.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use super::{Guarded, allowed_for, call_at, call_with, ours_at, runtime};
use crate::signature::{Arg, Output, ReturnedFuture};
use crate::tokens::mentions;
use crate::validate::{Fallback, On};

impl Guarded<'_> {
    /// `let ended`, where the call has no good result: how it ended; for a fallback also `let args`, what it
    /// is called with. A result that nothing else is to be done with is returned from in here.
    #[expect(clippy::too_many_lines, reason = "one quotation and its parts, in the order of a call")]
    pub(super) fn ended(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        let kind = self.return_kind();
        // Before the call, because it is used on both ways out of it.
        let codec = self.plan.cache.as_ref().map(|_| self.codec());
        let keep = self.plan.cache.as_ref().map(|_| self.cache_success());
        // By value, because the future would hold a second body if this one were borrowed.
        let body = if self.is_body_first() { quote_spanned!(Span::mixed_site()=> body) } else { self.body() };
        let body = quote_spanned!(Span::mixed_site()=> let (output, body) = #rt::with_output(#body););
        let is_never = matches!(self.function.output(), Output::Never);
        // By its type, a result is classified where it arises; a predicate may panic, and looks at it later.
        let is_judged_later = is_never || self.has_predicate();
        let judge = is_judged_later.then(|| self.judge());
        let run = if is_judged_later {
            quote_spanned!(Span::mixed_site()=> #rt::run_to_judge(#breaker, &mut permit, body))
        } else {
            quote_spanned!(Span::mixed_site()=> #rt::run(#breaker, &mut permit, body, kind))
        };
        let unwrapped = self.unwrapped();
        // A predicate may panic: the value is dropped then.
        let unwrapped_first = self
            .has_predicate()
            .then(|| quote_spanned!(Span::mixed_site()=> let value = #rt::ManuallyDrop::into_inner(value);));
        let Arms { ended, clones, failed, timed_out, rejected } = self.arms();
        let (verdict, result) = if keep.is_some() || failed.is_some() {
            let verdict = if is_judged_later {
                quote_spanned!(Span::mixed_site()=> let verdict = #rt::end(permit, judge, &value);)
            } else {
                quote_spanned! {Span::mixed_site()=>
                    #rt::has_ended(permit);
                    let verdict = #rt::verdict(kind, &value);
                }
            };
            let return_ = match failed {
                None => self.returned_value(),
                Some(failed) => quote_spanned!(Span::mixed_site()=>
                    if #rt::is_returned(verdict) {
                        return #unwrapped;
                    }
                    #failed),
            };
            (verdict, return_)
        } else {
            let end = if is_judged_later {
                quote_spanned!(Span::mixed_site()=> #rt::end(permit, judge, &value);)
            } else {
                quote_spanned!(Span::mixed_site()=> #rt::has_ended(permit);)
            };
            (end, self.returned_value())
        };
        let ok = if is_never {
            // Statements after the value would be unreachable.
            quote_spanned!(Span::mixed_site()=> match #rt::end_never(permit, judge, value) {})
        } else {
            quote_spanned! {Span::mixed_site()=>
                {
                    #unwrapped_first
                    #verdict
                    #keep
                    #result
                }
            }
        };
        let body = quote!(#body #kind);
        let is_needed_anyway = self.plan.fallback.is_some() || codec.is_some();
        let are_small = !self.is_body_first() && self.function.args.iter().all(|arg| arg.is_small);
        let (before, inside) = if !is_needed_anyway && !are_small {
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
        let output = if self.plan.cache.is_some() {
            quote_spanned!(Span::mixed_site()=> let (output, ended) = #rt::Output::with_ended(ended);)
        } else {
            quote_spanned!(Span::mixed_site()=> let output = #rt::Output::of_ended(&ended);)
        };
        let (ask, wait) = if self.counts_rejections_as_answered() {
            let wait = quote_spanned!(Span::mixed_site()=> #rt::waited_with_fallback(#rt::wait(asked).await));
            (quote_spanned!(Span::mixed_site()=> #rt::ask_with_fallback), wait)
        } else {
            (
                quote_spanned!(Span::mixed_site()=> #rt::ask),
                quote_spanned!(Span::mixed_site()=> #rt::wait(asked).await),
            )
        };
        quote_spanned! {Span::mixed_site()=>
            #before
            let #ended = 'call: {
                let asked = #ask(#breaker);
                let asked = if #rt::must_wait(asked) { #wait } else { asked };
                let mut permit = match #rt::admitted(asked) {
                    #rt::Result::Ok(permit) => permit,
                    #rt::Result::Err(rejection) => break 'call #rejected,
                };
                #clones
                #inside
                #judge
                match #run.await {
                    #rt::Result::Ok(value) => #ok,
                    #rt::Result::Err(deadline) => #timed_out,
                }
            };
            #output
            #kind
        }
    }

    /// Whether the runtime's own future can do all of the call: nothing needs the arguments or the result but
    /// the body and its caller, and the type alone classifies the result.
    pub(super) fn is_plain(&self) -> bool {
        let is_never = matches!(self.function.output(), Output::Never);
        !is_never && !self.has_predicate() && self.plan.fallback.is_none() && self.plan.cache.is_none()
    }

    /// The call of such a function, and what the function returns.
    pub(super) fn plain_call(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        let kind = self.return_kind();
        // An `_` in the written type is inferred from the body. An alias that names no future would be one
        // more error here.
        let is_inferred = match self.function.output() {
            Output::Type(written) => mentions_infer(&written),
            Output::OfFuture(_) => true,
            Output::Unit | Output::Never => false,
        };
        let (output, body) = if self.is_body_first() {
            (self.output(), quote_spanned!(Span::mixed_site()=> body))
        } else if is_inferred {
            let body = self.body();
            let both = quote_spanned!(Span::mixed_site()=> let (output, body) = #rt::with_output(#body););
            (both, quote_spanned!(Span::mixed_site()=> body))
        } else {
            (self.output(), self.body())
        };
        let value = self.returned_value();
        let answer = self.stopped();
        quote_spanned! {Span::mixed_site()=>
            #output
            #kind
            let asked = #rt::ask(#breaker);
            let stopped = if #rt::is_rejected(asked) {
                #rt::rejected(asked)
            } else {
                match #rt::call(#breaker, asked, #body, kind).await {
                    #rt::Result::Ok(value) => #value,
                    #rt::Result::Err(stopped) => stopped,
                }
            };
            #answer
        }
    }

    /// Whether a rejection is counted together with the answer of the fallback, which follows. With a
    /// cache, a cached result may answer instead.
    pub(super) fn counts_rejections_as_answered(&self) -> bool {
        let answers = |fallback: &Fallback| matches!(fallback.on, On::Any | On::Open);
        self.plan.cache.is_none() && self.plan.fallback.as_ref().is_some_and(answers)
    }

    /// `let kind`: whether a `Result` is returned. An alias of one counts, because the compiler tells.
    fn return_kind(&self) -> TokenStream {
        if self.plan.must_be_result {
            let kind = call_with(self.function.output_span(), "CanFail::return_kind", "output");
            return quote_spanned!(Span::mixed_site()=> let kind = #kind;);
        }
        let rt = runtime(Span::mixed_site());
        quote_spanned! {Span::mixed_site()=>
            let kind = {
                #[allow(unused_imports)]
                use #rt::OtherOutput as _;
                output.circuit_breaker_return_kind()
            };
        }
    }

    fn has_predicate(&self) -> bool {
        self.plan.is_failure.is_some() || self.plan.open_for.is_some()
    }

    /// The body's result. The compiler would keep a copy of a value that it may have to drop; so nobody drops
    /// this one until it is returned.
    pub(super) fn unwrapped(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        if self.has_predicate() {
            quote_spanned!(Span::mixed_site()=> value)
        } else {
            quote_spanned!(Span::mixed_site()=> #rt::ManuallyDrop::into_inner(value))
        }
    }

    /// What differs by the fallback.
    fn arms(&self) -> Arms {
        let rt = runtime(Span::mixed_site());
        let on = self.plan.fallback.as_ref().map(|fallback| fallback.on);
        let idents = self.function.args.iter().map(|arg| &arg.ident);
        let allowed = allowed_for(&self.function.args);
        let value = self.unwrapped();
        let failed = quote_spanned!(Span::mixed_site()=> #rt::Ended::Failed(#value));
        let timed_out = quote_spanned!(Span::mixed_site()=> #rt::time_out(output, permit, deadline));
        let count = self.counts_rejections_as_answered().then(|| {
            let breaker = self.breaker_ref();
            quote_spanned!(Span::mixed_site()=> #rt::answered_by_fallback(#breaker);)
        });
        let rejected = quote_spanned!(Span::mixed_site()=> #rt::Ended::Rejected(rejection));
        let with =
            |ended: &TokenStream, args: &TokenStream| quote_spanned!(Span::mixed_site()=> (#ended, #args));
        let counted = |ended: TokenStream| match &count {
            Some(count) => quote_spanned!(Span::mixed_site()=> { #count #ended }),
            None => ended,
        };
        let none = quote_spanned!(Span::mixed_site()=> #rt::Option::None);
        let args = quote_spanned!(Span::mixed_site()=> args);
        let moved = quote_spanned!(Span::mixed_site()=> (#(#idents,)*));
        let both = with(&quote_spanned!(Span::mixed_site()=> ended), &args);
        match on {
            None => Arms {
                ended: quote_spanned!(Span::mixed_site()=> ended),
                clones: None,
                failed: self.plan.cache.as_ref().map(|_| failed),
                timed_out,
                rejected,
            },
            Some(On::Open) => Arms {
                ended: both,
                clones: None,
                failed: self.plan.cache.as_ref().map(|_| with(&failed, &none)),
                timed_out: with(&timed_out, &none),
                rejected: quote_spanned! {Span::mixed_site()=>
                    {
                        #allowed
                        let args = #moved;
                        (#rejected, #rt::Option::Some(args))
                    }
                },
            },
            // The body has the arguments, called or not.
            Some(On::Any | On::Error) if self.is_body_first() => Arms {
                ended: both,
                clones: None,
                failed: Some(counted(with(&failed, &args))),
                timed_out: counted(with(&timed_out, &args)),
                rejected: with(&rejected, &args),
            },
            // Nothing is copied for a call that is not made.
            Some(On::Any | On::Error) => Arms {
                ended: both,
                clones: self.cloned_arguments(),
                failed: Some(counted(with(&failed, &args))),
                timed_out: counted(with(&timed_out, &args)),
                rejected: quote_spanned! {Span::mixed_site()=>
                    {
                        #allowed
                        let args = #moved;
                        (#rejected, args)
                    }
                },
            },
        }
    }

    /// `let output`, before there is a body.
    fn output(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        if self.is_body_first() {
            return quote_spanned!(Span::mixed_site()=> let (output, body) = #rt::with_output(body););
        }
        let ty = match self.function.output() {
            Output::Unit => quote_spanned!(Span::mixed_site()=> ()),
            Output::Never => quote_spanned!(Span::mixed_site()=> <fn() -> ! as #rt::Returns>::Output),
            Output::Type(written) => {
                let at = ours_at(self.function.output_span());
                quote_spanned!(at=> #written)
            }
            Output::OfFuture(alias) => Self::of_alias(&alias, "Output"),
        };
        quote_spanned!(Span::mixed_site()=> let output = #rt::Output::<#ty>::new();)
    }

    /// The body, not yet polled.
    fn body(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let inside = self.inside();
        match self.function.output() {
            Output::Never => quote_spanned!(Span::mixed_site()=>
                // `!` can be written only as what a function returns.
                #rt::returning::<<fn() -> ! as #rt::Returns>::Output, _>(async move { #inside })),
            Output::Unit | Output::Type(_) | Output::OfFuture(_) => {
                quote_spanned!(Span::mixed_site()=> async move { #inside })
            }
        }
    }

    /// `let body`: the future that the user's code returns, made before the circuit is asked.
    pub(super) fn body_first(&self) -> TokenStream {
        let patterns = self.patterns();
        let user = &self.function.body;
        let made = match self.function.returned.as_ref().and_then(|future| future.boxed.as_ref()) {
            None => quote_spanned!(Span::mixed_site()=> (move || { #patterns #user })()),
            Some(ty) => Self::pinned_of_alias(
                ty,
                quote_spanned!(Span::mixed_site()=> move || -> #ty { #patterns #user }),
            ),
        };
        quote_spanned!(Span::mixed_site()=> let body = #made;)
    }

    /// The future that a closure returns by an alias.
    fn pinned_of_alias(alias: &Type, closure: TokenStream) -> TokenStream {
        let into_pinned = Self::of_alias(alias, "into_pinned");
        // Called where the alias stands, see `of_alias`; lints look at code there, so the name is nobody
        // else's.
        let make = Ident::new("__circuit_breaker_body", alias.span());
        let pinned = quote_spanned!(alias.span()=> #into_pinned(#make()));
        quote_spanned!(Span::mixed_site()=> { let #make = #closure; #pinned })
    }

    /// The inside of the body's `async` block.
    fn inside(&self) -> TokenStream {
        let body = &self.function.body;
        // A `return` in a function that returns a future returns that future.
        let body = match &self.function.returned {
            None => body.to_token_stream(),
            Some(ReturnedFuture { boxed: None, .. }) => {
                quote_spanned!(Span::mixed_site()=> (move || #body)().await)
            }
            Some(ReturnedFuture { boxed: Some(ty), output: Some(_), .. }) => {
                quote_spanned!(Span::mixed_site()=> (move || -> #ty #body)().await)
            }
            Some(ReturnedFuture { boxed: Some(ty), output: None, .. }) => {
                let pinned =
                    Self::pinned_of_alias(ty, quote_spanned!(Span::mixed_site()=> move || -> #ty #body));
                quote_spanned!(Span::mixed_site()=> #pinned.await)
            }
        };
        let keep = self.keep_arguments();
        let patterns = self.patterns();
        // As in `tracing`: the compiler knows the type of the body before it looks at it, and so reports
        // errors inside it.
        let never_returned = match self.function.output() {
            Output::Unit => self.never_returned(&quote_spanned!(Span::mixed_site()=> ())),
            // See `pinned_body`.
            Output::Never => TokenStream::new(),
            Output::Type(written) => self.never_returned(&written.to_token_stream()),
            Output::OfFuture(alias) => self.never_returned(&Self::of_alias(&alias, "Output")),
        };
        // In a `match`, because the lint against unused braces would otherwise fire for every body of one
        // line.
        quote_spanned! {Span::mixed_site()=>
            #never_returned
            #keep
            #patterns
            match () { () => #body }
        }
    }

    /// Takes the arguments apart as the user's patterns do.
    fn patterns(&self) -> TokenStream {
        let patterns = self.function.args.iter().filter_map(|arg| {
            let (ident, pattern, cfgs) = (&arg.ident, arg.pattern.as_ref()?, &arg.cfgs);
            Some(quote_spanned!(Span::mixed_site()=> #(#cfgs)* let #pattern = #ident;))
        });
        patterns.collect()
    }

    fn never_returned(&self, output: &TokenStream) -> TokenStream {
        let at = ours_at(self.function.output_span());
        let rt = runtime(at);
        quote_spanned!(at=> if false { return #rt::never::<#output>(); })
    }

    /// Mentions the arguments in reverse order. The body's future then holds them in that order and drops
    /// them in it, as a function does. (To move them into variables of the body would do so, too, but make
    /// the future larger by all of them.)
    ///
    /// An argument that nothing else mentions is left out, so that the compiler can report it as unused.
    fn keep_arguments(&self) -> TokenStream {
        let body = self.function.body.stream();
        let used_outside = self.plan.fallback.is_some() || self.plan.cache.is_some();
        let name = self.plan.name.parts();
        let mentions = self.function.args.iter().rev().filter_map(|arg| {
            let Arg { ident, cfgs, .. } = arg;
            let kept = arg.is_receiver
                || arg.pattern.is_some()
                || used_outside
                || ident.to_string().starts_with('_')
                || mentions(&body, ident)
                || mentions(&name, ident);
            let allowed = allowed_for([arg]);
            kept.then(|| quote_spanned!(Span::mixed_site()=> #(#cfgs)* #allowed let _ = &#ident;))
        });
        mentions.collect()
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

/// The parts of [`Guarded::ended`] that depend on the fallback.
struct Arms {
    /// What the match is bound to.
    ended: TokenStream,
    /// Before the body.
    clones: Option<TokenStream>,
    /// For a failure; none: it is returned like a success.
    failed: Option<TokenStream>,
    timed_out: TokenStream,
    rejected: TokenStream,
}

/// Whether a part of the type is left to the compiler.
fn mentions_infer(ty: &Type) -> bool {
    mentions(&ty.to_token_stream(), &Ident::new("_", Span::call_site()))
}
