//! The body: the user's code, in place, and its type.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use super::{Guarded, allowed_for, call_with, ours_at, runtime};
use crate::signature::{Arg, Output, ReturnedFuture};
use crate::tokens::mentions;

impl Guarded<'_> {
    /// `let kind`: whether a `Result` is returned. An alias of one counts, because the compiler tells.
    pub(super) fn return_kind(&self) -> TokenStream {
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

    /// `let output`, before there is a body.
    pub(super) fn output(&self) -> TokenStream {
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

    /// The body, not yet polled: the variable of [`body_first`](Self::body_first), if there is one.
    pub(super) fn body(&self) -> TokenStream {
        if self.is_body_first() {
            return quote_spanned!(Span::mixed_site()=> body);
        }
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
        // else's. It is `mut` for code that changes what the closure has taken.
        let make = Ident::new("__circuit_breaker_body", alias.span());
        let pinned = quote_spanned!(alias.span()=> #into_pinned(#make()));
        quote_spanned!(Span::mixed_site()=> { #[allow(unused_mut)] let mut #make = #closure; #pinned })
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
            // See `body`.
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
}
