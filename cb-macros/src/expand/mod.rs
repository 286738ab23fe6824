//! The plan, into code.
//!
//! All of it is spelled with [`Span::mixed_site`]: the user's code cannot see the expansion's variables,
//! nor the other way round. All that it names is in `cb_runtime::attribute`, which it imports under one
//! long name, so that a runtime that cannot be found is one error.
//!
//! The parts stand in the order of a call: `breaker`, `cache` (its key), `call`, `body`, `answer`.

mod answer;
mod body;
mod breaker;
mod cache;
mod call;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Type};

use crate::signature::{Arg, Function, TokioBody, by_reference};
use crate::tokens::mentions;
use crate::validate::{Fallback, On, Plan};

/// The name of the import. Items are not hygienic: the user's code could see it.
const RUNTIME: &str = "__circuit_breaker";

/// The item as it was, and what is wrong with it.
pub(crate) fn untouched(item: TokenStream, error: &Error) -> TokenStream {
    let mut tokens = error.to_compile_error();
    tokens.extend(item);
    tokens
}

/// The function, guarded.
pub(crate) fn guarded(function: &Function, plan: &Plan) -> TokenStream {
    let body = Guarded { function, plan }.function_body();
    let Function { attrs, vis, sig, .. } = function;
    // An `async fn` returns explicitly. Here another attribute below may look for the future as the last
    // expression.
    let allowed = function.returned.as_ref().map(|_| quote!(#[allow(clippy::implicit_return)]));
    quote!(#allowed #(#attrs)* #vis #sig #body)
}

/// A span for the expansion's own code that points at the user's, should the compiler report something there.
fn ours_at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// For code of the expansion that mentions arguments: lints are about what the user mentions.
fn allowed_for<'a>(args: impl IntoIterator<Item = &'a Arg>) -> Option<TokenStream> {
    args.into_iter().any(|arg| arg.ident.to_string().starts_with('_')).then(|| {
        quote_spanned!(Span::mixed_site()=> #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)])
    })
}

struct Guarded<'a> {
    function: &'a Function,
    plan: &'a Plan,
}

impl Guarded<'_> {
    fn function_body(&self) -> TokenStream {
        let import = self.import();
        let lookup = self.lookup();
        let call = self.call();
        let code = if let Some(TokioBody { before, after, .. }) = &self.function.tokio {
            quote_spanned!(Span::mixed_site()=> #before { #import #lookup #call } #after)
        } else if let Some(future) = &self.function.returned {
            let lookup_first = self.is_body_first().then_some(&lookup);
            let lookup_later = if lookup_first.is_none() { Some(&lookup) } else { None };
            let body_first = lookup_first.map(|_| self.body_first());
            let inside = self.in_users_braces(quote!(#lookup_later #call));
            let guarded = quote_spanned!(Span::mixed_site()=> async move #inside);
            let rt = runtime(Span::mixed_site());
            let guarded = match (&future.boxed, &future.output) {
                (None, _) => guarded,
                (Some(_), Some(_)) => quote_spanned!(Span::mixed_site()=> #rt::Box::pin(#guarded)),
                (Some(alias), None) => {
                    let of_pinned = Self::of_alias(alias, "of_pinned");
                    let rt = Ident::new(RUNTIME, alias.span());
                    quote_spanned!(alias.span()=> #of_pinned(#rt::boxed(#guarded)))
                }
            };
            quote!(#import #lookup_first #body_first #guarded)
        } else {
            quote!(#import #lookup #call)
        };
        self.in_users_braces(code)
    }

    /// With the braces that the user wrote: another attribute below takes the names that it puts inside
    /// from there.
    fn in_users_braces(&self, code: TokenStream) -> TokenStream {
        let mut group = Group::new(Delimiter::Brace, code);
        group.set_span(self.function.body.span());
        group.into_token_stream()
    }

    /// Whether the user's code that makes the future runs before the circuit is asked, as soon as the
    /// function is called.
    fn is_body_first(&self) -> bool {
        // With `fallback_on = "open"` the arguments move into the body only once it is known that the call
        // may be made.
        self.function.returned.as_ref().is_some_and(|future| future.leaves_arguments)
            && !matches!(self.plan.fallback, Some(Fallback { on: On::Open, .. }))
    }

    /// What needs the arguments before the body takes them.
    fn lookup(&self) -> TokenStream {
        let breaker = self.breaker();
        let key = self.plan.cache.as_ref().map(|cache| self.key(cache));
        let args = self.is_body_first().then(|| self.cloned_arguments());
        quote!(#breaker #key #args)
    }

    /// The call itself, and what the function returns.
    fn call(&self) -> TokenStream {
        if self.is_plain() {
            return self.plain_call();
        }
        let ended = self.ended();
        let Some(fallback) = &self.plan.fallback else {
            let answer = self.answer();
            return quote_spanned!(Span::mixed_site()=> #ended #answer);
        };
        let answer = self.answer_or_arguments(fallback.on);
        let of_fallback = self.of_fallback(&fallback.function);
        // In a block, so that the call's result has gone before a fallback is awaited: the function's
        // future can then be sent even if the result cannot.
        let count = (!self.counts_rejections_as_answered()).then(|| {
            let (rt, breaker) = (runtime(Span::mixed_site()), self.breaker_ref());
            quote_spanned!(Span::mixed_site()=> #rt::answered_by_fallback(#breaker);)
        });
        quote_spanned! {Span::mixed_site()=>
            let (output, args, reason) = {
                #ended
                #answer
            };
            #count
            #of_fallback
        }
    }

    /// What an alias of a boxed future has under that name. All at one place, so that the compiler reports
    /// only once that it is none.
    fn of_alias(alias: &Type, name: &str) -> TokenStream {
        let at = alias.span();
        let (rt, name) = (Ident::new(RUNTIME, at), Ident::new(name, at));
        quote_spanned!(at=> <#alias as #rt::BoxedFuture>::#name)
    }

    /// Binds what an expression of the attribute mentions of the arguments' patterns.
    fn bindings_for(&self, expression: &TokenStream) -> TokenStream {
        self.function
            .args
            .iter()
            .filter_map(|arg| Some((arg, arg.pattern.as_ref()?)))
            .filter(|(arg, _)| arg.names().iter().any(|name| mentions(expression, name)))
            .map(|(arg, pattern)| {
                let (ident, pattern) = (&arg.ident, by_reference(pattern));
                quote_spanned!(Span::mixed_site()=> #[allow(unused_variables)] let #pattern = &#ident;)
            })
            .collect()
    }

    fn import(&self) -> TokenStream {
        if let Some(path) = &self.plan.runtime {
            let name = runtime(path.span());
            quote_spanned!(ours_at(path.span())=> use #path::attribute as #name;)
        } else {
            let name = runtime(Span::mixed_site());
            quote_spanned!(Span::mixed_site()=> use ::cb_runtime::attribute as #name;)
        }
    }
}

/// The name of the import, to be found at the span.
fn runtime(span: Span) -> Ident {
    Ident::new(RUNTIME, ours_at(span))
}

/// A call of a function of the runtime's, to be found at the span, should the compiler report something
/// there.
fn call_at(span: Span, function: &str, args: &TokenStream) -> TokenStream {
    let rt = runtime(span);
    let path = function.split("::").map(|name| Ident::new(name, ours_at(span)));
    quote_spanned!(ours_at(span)=> #rt #(::#path)* (#args))
}

/// Such a call, with variables of the expansion's.
fn call_with(span: Span, function: &str, variables: &str) -> TokenStream {
    let variables = variables.split(", ").map(|name| Ident::new(name, ours_at(span)));
    call_at(span, function, &quote_spanned!(ours_at(span)=> #(#variables),*))
}
