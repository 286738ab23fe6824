//! The plan, into code.
//!
//! All of it is spelled with [`Span::mixed_site`]: our variables cannot be seen by the user's code, nor theirs
//! by ours. All it names is in `cb_runtime::__private`, by its full path, so it means the same in every scope.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Error;
use syn::spanned::Spanned;

use crate::name::{Made, Name};
use crate::signature::{Arg, Driven, Function, Later, Output, bound_names, by_reference, mentions};
use crate::validate::{Cache, Callee, Fallback, On, Plan};
use crate::value::Value;

/// Where a function keeps its breaker. An item, and so not hidden from the attribute's own expressions, unlike our
/// variables: nobody else has one of that name.
const SITE: &str = "__CIRCUIT_BREAKER_SITE";

/// Where a function keeps what tells its cached results from those of others; an item, too.
const CACHE_SITE: &str = "__CIRCUIT_BREAKER_CACHE";

/// The item as it was, and what is wrong with it.
pub(crate) fn untouched(item: TokenStream, error: &Error) -> TokenStream {
    let mut tokens = error.to_compile_error();
    tokens.extend(item);
    tokens
}

/// What the name is made of, for finding out which arguments that mentions.
fn made_parts(name: &Name) -> TokenStream {
    match name {
        Name::Fixed(_) => TokenStream::new(),
        Name::Made(Made { parts, .. }) => quote!(#(#parts)*),
    }
}

/// A span for our own code that points at the user's, should the compiler have something against it.
fn ours_at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// For code of ours that mentions arguments: only what the user mentions is the lints' business.
fn allowed_for<'a>(args: impl IntoIterator<Item = &'a Arg>) -> Option<TokenStream> {
    args.into_iter().any(|arg| arg.ident.to_string().starts_with('_')).then(|| {
        quote_spanned!(Span::mixed_site()=> #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)])
    })
}

/// The function, guarded.
pub(crate) fn guarded(function: &Function, plan: &Plan) -> TokenStream {
    let guarded = Guarded { function, plan };
    let mut body = Group::new(Delimiter::Brace, guarded.whole_body());
    body.set_span(function.body.span());
    let Function { attrs, vis, sig, .. } = function;
    quote!(#(#attrs)* #vis #sig #body)
}

struct Guarded<'a> {
    function: &'a Function,
    plan: &'a Plan,
}

impl Guarded<'_> {
    /// The path to all that the expansion names.
    fn rt(&self, span: Span) -> TokenStream {
        let span = ours_at(span);
        if let Some(path) = &self.plan.runtime {
            quote_spanned!(span=> #path::__private)
        } else {
            quote_spanned!(span=> ::cb_runtime::__private)
        }
    }

    fn whole_body(&self) -> TokenStream {
        let body = self.body();
        let rt = self.rt(Span::mixed_site());
        if let Some(Driven { before, after, .. }) = &self.function.driven {
            return quote_spanned!(Span::mixed_site()=> #before { #body } #after);
        }
        match &self.function.later {
            None => body,
            Some(Later { boxed: None, .. }) => quote_spanned!(Span::mixed_site()=> async move { #body }),
            Some(Later { boxed: Some(_), .. }) => {
                quote_spanned!(Span::mixed_site()=> #rt::Box::pin(async move { #body }))
            }
        }
    }

    fn body(&self) -> TokenStream {
        let breaker = self.breaker();
        let key = self.plan.cache.as_ref().map(|cache| self.key(cache));
        let call = match self.plan.fallback {
            Some(Fallback { on: On::Open, .. }) => self.call_or_keep_arguments(),
            _ => self.call(),
        };
        let form = self.form();
        let rt = self.rt(Span::mixed_site());
        let cached = self.plan.cache.as_ref().map(|_| self.cached());
        let answer = self.answer();
        quote_spanned! {Span::mixed_site()=>
            #breaker
            #key
            #call
            let output = #rt::Output::of_ended(&ended);
            #form
            #cached
            #answer
        }
    }

    /// `let breaker`: this function's, looked up once.
    fn breaker(&self) -> TokenStream {
        let Guarded { plan, .. } = self;
        let rt = self.rt(Span::mixed_site());
        let (site, kind, made) = match &plan.name {
            Name::Fixed(name) => (self.call_at(name.span(), "Site::new", &quote!(#name)), "Site", None),
            Name::Made(made) => {
                let site =
                    self.call_at(Span::mixed_site(), "NamedSite::new", &made.pattern.to_token_stream());
                (site, "NamedSite", Some(self.made_name(made)))
            }
        };
        let kind = Ident::new(kind, Span::mixed_site());
        let base = match &plan.base {
            Some(base) => self.call_at(base.span(), "base", &quote!(#base)),
            None => self.call_at(Span::mixed_site(), "settings", &TokenStream::new()),
        };
        let settings = plan.settings.iter().map(|(name, value)| {
            let value = self.value(value);
            quote_spanned!(Span::mixed_site()=> .#name(#value))
        });
        let site_name = Ident::new(SITE, Span::mixed_site());
        let bound = self.bound_for(&{
            let (registry, name) = (&plan.registry, made_parts(&plan.name));
            quote!(#registry #name)
        });
        let made = made.map(|made| quote_spanned!(Span::mixed_site()=> #made,));
        let find = if let Some(registry) = &plan.registry {
            let at = ours_at(registry.span());
            quote_spanned!(at=> { #bound #site_name.within(&(#registry), #made settings) })
        } else {
            quote_spanned!(Span::mixed_site()=> { #bound #site_name.global(#made settings) })
        };
        quote_spanned! {Span::mixed_site()=>
            let breaker = {
                static #site_name: #rt::#kind = #site;
                let settings: fn() -> #rt::BreakerConfig = || #base #(#settings)*;
                #find
            };
        }
    }

    /// The name of this call's breaker.
    fn made_name(&self, Made { text, parts, .. }: &Made) -> TokenStream {
        let rt = self.rt(text.span());
        quote_spanned!(ours_at(text.span())=> #rt::format_args!(#text, #(#parts),*))
    }

    fn value(&self, value: &Value) -> TokenStream {
        match value {
            Value::Written(expr) => expr.to_token_stream(),
            Value::Float(float) => float.to_token_stream(),
            Value::Text(text, span) => quote_spanned!(*span=> #text),
            Value::Span(value, span) => {
                let (seconds, nanos) = (value.as_secs(), value.subsec_nanos());
                self.call_at(*span, "Duration::new", &quote!(#seconds, #nanos))
            }
        }
    }

    /// `let key`: what tells this call's result from others, before the body takes the arguments.
    fn key(&self, cache: &Cache) -> TokenStream {
        let rt = self.rt(Span::mixed_site());
        let version = cache
            .version
            .as_ref()
            .map_or_else(|| quote_spanned!(Span::mixed_site()=> ""), |version| self.value(version));
        let parts = if let Some(key) = &cache.key {
            let bound = self.bound_for(&key.to_token_stream());
            let rt = self.rt(key.span());
            let part = quote_spanned!(ours_at(key.span())=> #rt::key_part(&mut key, &(#key)));
            quote_spanned!(Span::mixed_site()=> { #bound #part; })
        } else {
            let parts = self.function.args.iter().map(|Arg { ident, type_span, cfgs, .. }| {
                let rt = self.rt(*type_span);
                quote_spanned!(ours_at(*type_span)=> #(#cfgs)* #rt::key_part(&mut key, &#ident);)
            });
            let allowed = allowed_for(&self.function.args);
            quote_spanned!(Span::mixed_site()=> #allowed { #(#parts)* })
        };
        let site = Ident::new(CACHE_SITE, Span::mixed_site());
        quote_spanned! {Span::mixed_site()=>
            let function = {
                static #site: #rt::CacheSite = #rt::CacheSite::new(
                    #rt::module_path!(),
                    #rt::option_env!("CARGO_PKG_VERSION"),
                    #rt::option_env!("CARGO_BIN_NAME"),
                );
                #rt::cached_function(&#site, || {})
            };
            let key = {
                let mut key = #rt::key(&breaker, #version);
                #parts
                #rt::key_of(&breaker, function, &key)
            };
        }
    }

    /// Binds what an expression of the attribute mentions of the arguments' patterns.
    fn bound_for(&self, expression: &TokenStream) -> TokenStream {
        self.function
            .args
            .iter()
            .filter_map(|arg| Some((arg, arg.pattern.as_ref()?)))
            .filter(|(_, pattern)| bound_names(pattern).iter().any(|name| mentions(expression, name)))
            .map(|(arg, pattern)| {
                let (ident, pattern) = (&arg.ident, by_reference(pattern));
                quote_spanned!(Span::mixed_site()=> #[allow(unused_variables, clippy::needless_borrowed_reference)] let #pattern = #ident;)
            })
            .collect()
    }

    /// `let body`: the user's code, in place.
    fn pinned_body(&self) -> TokenStream {
        let rt = self.rt(Span::mixed_site());
        let inside = self.inside();
        let body = match self.function.output() {
            Output::Never => quote_spanned!(Span::mixed_site()=>
                // `!` may be written as what a function returns, and nowhere else.
                #rt::returning::<<fn() -> ! as #rt::Returns>::Output, _>(async move { #inside })),
            Output::Unit | Output::Type(_) => quote_spanned!(Span::mixed_site()=> async move { #inside }),
        };
        quote_spanned!(Span::mixed_site()=> let body = #rt::pin!(#body);)
    }

    fn inside(&self) -> TokenStream {
        let body = &self.function.body;
        // A `return` in a function that returns a future returns that future.
        let body = match &self.function.later {
            None => body.to_token_stream(),
            Some(Later { boxed: None, .. }) => quote_spanned!(Span::mixed_site()=> (move || #body)().await),
            Some(Later { boxed: Some(ty), .. }) => {
                quote_spanned!(Span::mixed_site()=> (move || -> #ty #body)().await)
            }
        };
        let keep = self.keep_arguments();
        let patterns = self.function.args.iter().filter_map(|arg| {
            let (ident, pattern, cfgs) = (&arg.ident, arg.pattern.as_ref()?, &arg.cfgs);
            Some(quote_spanned!(Span::mixed_site()=> #(#cfgs)* let #pattern = #ident;))
        });
        // The type of the body is known before it is looked at, and errors in it point into it; this is
        // how tracing does it.
        let never_returned = match self.function.output() {
            Output::Unit => self.never_returned(&quote_spanned!(Span::mixed_site()=> ())),
            // Said elsewhere: see `pinned_body`.
            Output::Never => TokenStream::new(),
            Output::Type(written) => self.never_returned(&written.to_token_stream()),
        };
        // In a `match`, as the lint against unused braces would else be heard of every body of one line.
        quote_spanned! {Span::mixed_site()=>
            #never_returned
            #keep
            #(#patterns)*
            match () { () => #body }
        }
    }

    fn never_returned(&self, output: &TokenStream) -> TokenStream {
        let at = ours_at(self.function.output_span());
        let rt = self.rt(at);
        quote_spanned!(at=> if false { return #rt::never::<#output>(); })
    }

    /// Mentions the arguments in reverse, so that the body's future holds them in that order and drops
    /// them in it, as a function does. (Taking them into variables of the body would do the same, and make the
    /// future larger by all of them.)
    ///
    /// One that nothing else mentions is left out, or the compiler could not say that it is not used.
    fn keep_arguments(&self) -> TokenStream {
        let body = self.function.body.stream();
        let used_outside = self.plan.fallback.is_some() || self.plan.cache.is_some();
        let name = made_parts(&self.plan.name);
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

    /// `let ended`: the body made and run; with `spare` where a fallback will want the arguments, too.
    fn call(&self) -> TokenStream {
        let spare = self.plan.fallback.as_ref().map(|_| {
            let spares = self.function.args.iter().map(|Arg { ident, type_span, .. }| {
                let rt = self.rt(*type_span);
                quote_spanned!(ours_at(*type_span)=> #rt::spare(&#ident))
            });
            let allowed = allowed_for(&self.function.args);
            quote_spanned!(Span::mixed_site()=> #allowed let spare = (#(#spares,)*);)
        });
        let body = self.pinned_body();
        let judge = self.judge();
        quote_spanned! {Span::mixed_site()=>
            #spare
            let ended = {
                #body
                #judge
                breaker.run(body, judge).await
            };
        }
    }

    /// The same for `fallback_on = "open"`: the arguments go into the body, or are kept.
    fn call_or_keep_arguments(&self) -> TokenStream {
        let rt = self.rt(Span::mixed_site());
        let idents = self.function.args.iter().map(|arg| &arg.ident);
        let allowed = allowed_for(&self.function.args);
        let body = self.pinned_body();
        let judge = self.judge();
        quote_spanned! {Span::mixed_site()=>
            let (ended, spare) = match breaker.admitted().await {
                #rt::Result::Ok(permit) => {
                    #body
                    #judge
                    (breaker.permitted(permit, body, judge).await, #rt::Option::None)
                }
                #rt::Result::Err(error) => {
                    #allowed
                    let spare = (#(#idents,)*);
                    (#rt::Ended::Rejected(error), #rt::Option::Some(spare))
                }
            };
        }
    }

    /// `let judge`: what tells the body's failures.
    fn judge(&self) -> TokenStream {
        let rt = self.rt(Span::mixed_site());
        let form = self.form();
        let can_fail = self.plan.must_be_result.then(|| {
            let call = self.call_with(self.function.output_span(), "can_fail", "output, form");
            quote_spanned!(Span::mixed_site()=> #call;)
        });
        let judge = match &self.plan.is_failure {
            None => self.call_with(Span::mixed_site(), "by_type", "form"),
            Some(is_failure) => {
                let at = ours_at(is_failure.span());
                self.call_at(at, "by_predicate", &quote_spanned!(at=> output, form, #is_failure))
            }
        };
        let judge = match &self.plan.open_for {
            None => judge,
            Some(open_for) => {
                let at = ours_at(open_for.span());
                self.call_at(at, "opening", &quote_spanned!(at=> output, #judge, #open_for))
            }
        };
        quote_spanned! {Span::mixed_site()=>
            let judge = {
                let output = #rt::Output::of(&body);
                #form
                #can_fail
                #judge
            };
        }
    }

    /// `let form`: how to read what is returned. An alias of `Result` is one, too: so the compiler tells.
    fn form(&self) -> TokenStream {
        let rt = self.rt(Span::mixed_site());
        quote_spanned! {Span::mixed_site()=>
            let form = {
                #[allow(unused_imports)]
                use #rt::OtherOutput as _;
                output.form()
            };
        }
    }

    /// `let ended`, again: with the kept result in the place of a bad one.
    fn cached(&self) -> TokenStream {
        let rt = self.rt(Span::mixed_site());
        let codec = self.call_with(self.function.output_span(), "codec", "output, form");
        quote_spanned! {Span::mixed_site()=>
            let codec = #codec;
            let ended = #rt::cached(&breaker, function, key, codec, form, ended).await;
        }
    }

    /// What the function returns.
    fn answer(&self) -> TokenStream {
        let returned = self.function.output_span();
        let Some(fallback) = &self.plan.fallback else {
            return self.call_with(returned, "settle", "form, ended");
        };
        let settle = match fallback.on {
            On::Any => "settle_any",
            On::Open => "settle_open",
            On::Error => "settle_error",
        };
        let settle = self.call_with(returned, settle, "form, ended, spare");
        let (at, call) = match &fallback.function {
            Callee::Path(path) => {
                let at = path.span();
                (at, self.call_at(at, "call", &quote_spanned!(ours_at(at)=> args, reason, #path)))
            }
            Callee::Closure { closure, takes_reason } => {
                let at = closure.span();
                let rt = self.rt(at);
                let call = if *takes_reason { "call_with_reason" } else { "call" };
                let call = Ident::new(call, ours_at(at));
                (at, quote_spanned!(ours_at(at)=> #rt::Given(args).#call(reason, #closure)))
            }
        };
        let reply = self.call_with(at, "reply", "output, reply");
        let reply = match (self.function.output(), &fallback.function) {
            (Output::Never, Callee::Path(path)) => {
                self.call_at(at, "call_forever", &quote_spanned!(ours_at(at)=> args, reason, output, #path))
            }
            (Output::Never, _) => quote_spanned!(Span::mixed_site()=>
                #[allow(clippy::diverging_sub_expression)]
                let reply = #call;
                #reply),
            _ => quote_spanned!(Span::mixed_site()=> let reply = #call; #reply),
        };
        let rt = self.rt(Span::mixed_site());
        quote_spanned! {Span::mixed_site()=>
            match #settle {
                #rt::Result::Ok(value) => value,
                #rt::Result::Err((args, reason)) => {
                    #reply.await
                }
            }
        }
    }

    /// A call of ours, to be found at the span, should the compiler have something against it.
    fn call_at(&self, span: Span, function: &str, args: &TokenStream) -> TokenStream {
        let rt = self.rt(span);
        let path = function.split("::").map(|name| Ident::new(name, ours_at(span)));
        quote_spanned!(ours_at(span)=> #rt #(::#path)* (#args))
    }

    /// The same, with variables of ours.
    fn call_with(&self, span: Span, function: &str, variables: &str) -> TokenStream {
        let variables = variables.split(", ").map(|name| Ident::new(name, ours_at(span)));
        self.call_at(span, function, &quote_spanned!(ours_at(span)=> #(#variables),*))
    }
}
