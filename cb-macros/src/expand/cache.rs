//! The cached result: its key, before the call, and its use, after it.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;

use super::breaker::value_tokens;
use super::{Guarded, allowed_for, call_with, ours_at, runtime};
use crate::signature::Arg;
use crate::tokens::mentions;
use crate::validate::Cache;

/// Where a function keeps what tells its cached results from those of others.
const CACHE_SITE: &str = "__CIRCUIT_BREAKER_CACHE";

impl Guarded<'_> {
    /// `let key`: what tells this call's result from others, before the body takes the arguments.
    pub(super) fn key(&self, cache: &Cache) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let version =
            cache.version.as_ref().map_or_else(|| quote_spanned!(Span::mixed_site()=> ""), value_tokens);
        let parts = if let Some(key) = &cache.key {
            let bindings = self.bindings_for(&key.to_token_stream());
            let (rt, at) = (runtime(key.span()), ours_at(key.span()));
            let part = quote_spanned!(at=> #rt::KeyPart::add_to(&(#key), &mut key));
            // A key that moves an argument is reported here, at the key, and not where the body uses the
            // argument.
            let tokens = key.to_token_stream();
            let borrowed = self.function.args.iter().filter(|arg| mentions(&tokens, &arg.ident)).map(|arg| {
                let (ident, allowed) = (&arg.ident, allowed_for([arg]));
                let mut ident = ident.clone();
                ident.set_span(ident.span().located_at(key.span()));
                quote_spanned!(at=> #allowed let _ = &#ident;)
            });
            quote_spanned!(Span::mixed_site()=> { #bindings #part; #(#borrowed)* })
        } else {
            let parts = self.function.args.iter().map(|Arg { ident, type_span, cfgs, .. }| {
                let rt = runtime(*type_span);
                quote_spanned!(ours_at(*type_span)=> #(#cfgs)* #rt::KeyPart::add_to(&#ident, &mut key);)
            });
            let allowed = allowed_for(&self.function.args);
            quote_spanned!(Span::mixed_site()=> #allowed { #(#parts)* })
        };
        let (breaker, site) = (self.breaker_ref(), Ident::new(CACHE_SITE, Span::mixed_site()));
        quote_spanned! {Span::mixed_site()=>
            let key = {
                static #site: #rt::CacheSite = #rt::CacheSite::new(
                    #rt::module_path!(),
                    #rt::option_env!("CARGO_PKG_VERSION"),
                    #rt::option_env!("CARGO_BIN_NAME"),
                );
                let mut key = #rt::key(#breaker, #version);
                #parts
                #rt::key_of(#breaker, #rt::cached_function(&#site, || {}), key)
            };
        }
    }

    /// `let codec`: how a result is kept and read back.
    pub(super) fn codec(&self) -> TokenStream {
        let rt = runtime(Span::mixed_site());
        let codec = call_with(self.function.output_span(), "codec", "output, kind, hold");
        quote_spanned! {Span::mixed_site()=>
            let codec = {
                #[allow(unused_imports)]
                use #rt::{IsNotSend as _, IsSend as _};
                let hold = (&output).circuit_breaker_hold();
                #codec
            };
        }
    }

    /// Caches a success.
    pub(super) fn cache_success(&self) -> TokenStream {
        let (rt, breaker) = (runtime(Span::mixed_site()), self.breaker_ref());
        quote_spanned!(Span::mixed_site()=> #rt::cache_success(#breaker, &key, codec, verdict, &value);)
    }

    /// Returns the cached result in place of a failure or a rejection; else `let ended`, again.
    pub(super) fn recall(&self) -> TokenStream {
        let (rt, breaker) = (runtime(Span::mixed_site()), self.breaker_ref());
        quote_spanned! {Span::mixed_site()=>
            let ended = match #rt::recall(#breaker, key, codec, ended) {
                #rt::Recalled::Value(value) => return value,
                #rt::Recalled::Nothing(ended) => ended,
                #rt::Recalled::InStore(later) => match later.await {
                    #rt::Result::Ok(value) => return value,
                    #rt::Result::Err(ended) => ended,
                },
            };
        }
    }
}
