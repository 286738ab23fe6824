//! The body: the user's code, in place, and what its result counts as.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;

use super::{Guarded, allowed_for, call_at, call_with, ours_at, return_kind, runtime};
use crate::signature::{Arg, Output, ReturnedFuture};
use crate::tokens::mentions;

impl Guarded<'_> {
    /// `let ended`: the body, made and run.
    pub(super) fn ended(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let body = self.pinned_body();
        let judge = self.judge();
        let breaker = self.breaker_ref();
        quote_spanned! {Span::mixed_site()=>
            let ended = {
                #body
                #judge
                #rt::run(#breaker, body, judge).await
            };
        }
    }

    /// `let (ended, args)` for `fallback_on = "open"`: the arguments move into the body, or are kept for the fallback.
    pub(super) fn ended_or_arguments(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let idents = self.function.args.iter().map(|arg| &arg.ident);
        let allowed = allowed_for(&self.function.args);
        let body = self.pinned_body();
        let judge = self.judge();
        let breaker = self.breaker_ref();
        quote_spanned! {Span::mixed_site()=>
            let (ended, args) = match #rt::admit(#breaker).await {
                #rt::Result::Ok(permit) => {
                    #body
                    #judge
                    (#rt::run_permitted(#breaker, permit, body, judge).await, #rt::Option::None)
                }
                #rt::Result::Err(error) => {
                    #allowed
                    let args = (#(#idents,)*);
                    (#rt::Ended::Rejected(error), #rt::Option::Some(args))
                }
            };
        }
    }

    /// `let body`: pinned, not yet polled.
    fn pinned_body(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        if self.is_body_first() {
            return quote_spanned!(Span::mixed_site()=> let body = #rt::pin!(body););
        }
        let inside = self.inside();
        let body = match self.function.output() {
            Output::Never => quote_spanned!(Span::mixed_site()=>
                // `!` can be written only as what a function returns.
                #rt::returning::<<fn() -> ! as #rt::Returns>::Output, _>(async move { #inside })),
            Output::Unit | Output::Type(_) | Output::OfFuture(_) => {
                quote_spanned!(Span::mixed_site()=> async move { #inside })
            }
        };
        quote_spanned!(Span::mixed_site()=> let body = #rt::pin!(#body);)
    }

    /// `let body`: the future that the user's code returns, made before the circuit is asked.
    pub(super) fn body_first(&self) -> TokenStream {
        let patterns = self.patterns();
        let user = &self.function.body;
        let made = match self.function.returned.as_ref().and_then(|future| future.boxed.as_ref()) {
            None => quote_spanned!(Span::mixed_site()=> (move || { #patterns #user })()),
            Some(ty) => quote_spanned!(Span::mixed_site()=> (move || -> #ty { #patterns #user })()),
        };
        quote_spanned!(Span::mixed_site()=> let body = #made;)
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
            Some(ReturnedFuture { boxed: Some(ty), .. }) => {
                quote_spanned!(Span::mixed_site()=> (move || -> #ty #body)().await)
            }
        };
        let keep = self.keep_arguments();
        let patterns = self.patterns();
        // As in `tracing`: the compiler knows the type of the body before it looks at it, and so reports errors inside it.
        let never_returned = match self.function.output() {
            Output::Unit => self.never_returned(&quote_spanned!(Span::mixed_site()=> ())),
            // See `pinned_body`.
            Output::Never => TokenStream::new(),
            Output::Type(written) => self.never_returned(&written.to_token_stream()),
            Output::OfFuture(alias) => {
                let (rt, at) = (runtime(alias.span()), ours_at(alias.span()));
                self.never_returned(&quote_spanned!(at=> <#alias as #rt::BoxedFuture>::Output))
            }
        };
        // In a `match`, because the lint against unused braces would otherwise fire for every body of one line.
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

    /// Mentions the arguments in reverse order. The body's future then holds them in that order and drops them in it, as a
    /// function does. (To move them into variables of the body would do so, too, but make the future larger by all of them.)
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
        let rt = runtime(Span::mixed_site());
        let kind = return_kind();
        let can_fail = self.plan.must_be_result.then(|| {
            let call = call_with(self.function.output_span(), "can_fail", "output, kind");
            quote_spanned!(Span::mixed_site()=> #call;)
        });
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
        quote_spanned! {Span::mixed_site()=>
            let judge = {
                let output = #rt::Output::of(&body);
                #kind
                #can_fail
                #judge
            };
        }
    }
}
