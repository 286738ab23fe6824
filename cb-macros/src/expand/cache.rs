//! The cached result: its key, before the call, and its use, after it.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;

use super::breaker::value_tokens;
use super::{Guarded, allowed_for, call_with, ours_at, runtime};
use crate::signature::Arg;
use crate::validate::Cache;

impl Guarded<'_> {
    /// `let key`: what tells this call's result from others, before the body takes the arguments.
    pub(super) fn key(&self, cache: &Cache) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let version =
            cache.version.as_ref().map_or_else(|| quote_spanned!(Span::mixed_site()=> ""), value_tokens);
        let parts = if let Some(key) = &cache.key {
            let bindings = self.bindings_for(&key.to_token_stream());
            let (rt, at) = (runtime(key.span()), ours_at(key.span()));
            // In a closure that may only borrow, so that a key which moves an argument is reported at the key and not at
            // the body.
            let part = quote_spanned!(at=> #rt::borrowing(&mut key, |key| #rt::key_part(key, &(#key))));
            quote_spanned!(Span::mixed_site()=> { #bindings #part; })
        } else {
            let parts = self.function.args.iter().map(|Arg { ident, type_span, cfgs, .. }| {
                let rt = runtime(*type_span);
                quote_spanned!(ours_at(*type_span)=> #(#cfgs)* #rt::key_part(&mut key, &#ident);)
            });
            let allowed = allowed_for(&self.function.args);
            quote_spanned!(Span::mixed_site()=> #allowed { #(#parts)* })
        };
        quote_spanned! {Span::mixed_site()=>
            let key = {
                let mut key = #rt::key(&|| {}, #version);
                #parts
                key.finish()
            };
        }
    }

    /// `let codec`: how a result is kept and read back.
    pub(super) fn codec(&self) -> TokenStream {
        let codec = call_with(self.function.output_span(), "codec", "output, kind");
        quote_spanned!(Span::mixed_site()=> let codec = #codec;)
    }

    /// Keeps a success.
    pub(super) fn keep(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        quote_spanned!(Span::mixed_site()=> #rt::keep(#breaker, &key, &codec, kind, verdict, &value);)
    }

    /// Returns the cached result in the place of a bad one.
    pub(super) fn cached(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let breaker = self.breaker_ref();
        quote_spanned! {Span::mixed_site()=>
            if let #rt::Option::Some(value) = #rt::cached(#breaker, key, codec, kind).await {
                return value;
            }
        }
    }
}
