//! The plan, into code.
//!
//! All of it is spelled with [`Span::mixed_site`]: our variables cannot be seen by the user's code, nor theirs
//! by ours. All it names is in `cb_runtime::__private`, by its full path, so it means the same in every scope.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr};

use crate::signature::{Arg, Function, bound_names, by_reference, mentions};
use crate::validate::{Cache, Callee, Fallback, On, Plan};
use crate::value::Value;

/// The item as it was, and what is wrong with it.
pub(crate) fn untouched(item: TokenStream, error: &Error) -> TokenStream {
    let mut tokens = error.to_compile_error();
    tokens.extend(item);
    tokens
}

/// A span for our own code that points at the user's, should the compiler have something against it.
fn ours_at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// The function, guarded.
pub(crate) fn guarded(function: Function, plan: &Plan) -> TokenStream {
    let guarded = Guarded { rt: runtime(plan.runtime.as_ref()), function: &function, plan };
    let mut body = Group::new(Delimiter::Brace, guarded.body());
    body.set_span(function.body.span());
    let Function { attrs, vis, sig, .. } = &function;
    quote!(#(#attrs)* #vis #sig #body)
}

fn runtime(given: Option<&Expr>) -> TokenStream {
    let mixed = Span::mixed_site();
    match given {
        Some(path) => quote_spanned!(mixed=> #path::__private),
        None => quote_spanned!(mixed=> ::cb_runtime::__private),
    }
}

struct Guarded<'a> {
    /// The path to `__private`.
    rt: TokenStream,
    function: &'a Function,
    plan: &'a Plan,
}

impl Guarded<'_> {
    fn body(&self) -> TokenStream {
        let breaker = self.breaker();
        let key = self.plan.cache.as_ref().map(|cache| self.key(cache));
        let call = match self.plan.fallback {
            Some(Fallback { on: On::Open, .. }) => self.call_or_keep_arguments(),
            _ => self.call(),
        };
        let cached = self.plan.cache.as_ref().map(|_| self.cached());
        let answer = self.answer();
        quote_spanned! {Span::mixed_site()=>
            #breaker
            #key
            #call
            #cached
            #answer
        }
    }

    /// `let breaker`: this function's, looked up once.
    fn breaker(&self) -> TokenStream {
        let Guarded { rt, plan, .. } = self;
        let name = &plan.name;
        let site = quote_spanned!(ours_at(name.span())=> #rt::Site::new(#name));
        let base = match &plan.base {
            Some(base) => quote_spanned!(ours_at(base.span())=> #rt::base(#base)),
            None => quote_spanned!(Span::mixed_site()=> #rt::settings()),
        };
        let settings = plan.settings.iter().map(|(name, value)| {
            let value = self.value(value);
            quote_spanned!(Span::mixed_site()=> .#name(#value))
        });
        let find = match &plan.registry {
            Some(registry) => {
                let bound = self.bound_for(&registry.to_token_stream());
                quote_spanned!(ours_at(registry.span())=> { #bound SITE.within(&#registry, settings) })
            }
            None => quote_spanned!(Span::mixed_site()=> SITE.global(settings)),
        };
        quote_spanned! {Span::mixed_site()=>
            let breaker = {
                static SITE: #rt::Site = #site;
                let settings: fn() -> #rt::BreakerConfig = || #base #(#settings)*;
                #find
            };
        }
    }

    fn value(&self, value: &Value) -> TokenStream {
        let rt = &self.rt;
        match value {
            Value::Written(expr) => expr.to_token_stream(),
            Value::Float(float) => float.to_token_stream(),
            Value::Text(text, span) => quote_spanned!(*span=> #text),
            Value::Span(value, span) => {
                let (seconds, nanos) = (value.as_secs(), value.subsec_nanos());
                quote_spanned!(ours_at(*span)=> #rt::Duration::new(#seconds, #nanos))
            }
        }
    }

    /// `let key`: what tells this call's result from others, before the body takes the arguments.
    fn key(&self, cache: &Cache) -> TokenStream {
        let rt = &self.rt;
        let version = match &cache.version {
            Some(version) => self.value(version),
            None => quote_spanned!(Span::mixed_site()=> ""),
        };
        let parts = match &cache.key {
            Some(key) => {
                let bound = self.bound_for(&key.to_token_stream());
                let part = quote_spanned!(ours_at(key.span())=> #rt::key_part(&mut key, &#key));
                quote_spanned!(Span::mixed_site()=> { #bound #part; })
            }
            None => {
                let parts = self.function.args.iter().map(|Arg { ident, type_span, cfgs, .. }| {
                    quote_spanned!(ours_at(*type_span)=> #(#cfgs)* #rt::key_part(&mut key, &#ident);)
                });
                quote_spanned!(Span::mixed_site()=> #[allow(clippy::used_underscore_binding)] { #(#parts)* })
            }
        };
        quote_spanned! {Span::mixed_site()=>
            let key = {
                let mut key = #rt::key(&|| {}, #version);
                #parts
                key.finish()
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
                quote_spanned!(Span::mixed_site()=> #[allow(unused_variables)] let #pattern = #ident;)
            })
            .collect()
    }

    /// `let body` and `let judge`: the user's code, in place, and what tells its failures.
    fn body_and_judge(&self) -> TokenStream {
        let Guarded { rt, function, plan } = self;
        let inside = self.inside();
        let judge = match &plan.is_failure {
            None => quote_spanned!(Span::mixed_site()=> output.judge(output.form())),
            Some(is_failure) => quote_spanned!(ours_at(is_failure.span())=>
                output.judge_by(output.form(), #is_failure)),
        };
        let can_fail = plan
            .must_be_result
            .then(|| quote_spanned!(ours_at(function.output_span())=> #rt::can_fail(output.form());));
        quote_spanned! {Span::mixed_site()=>
            let body = #rt::pin!(async move { #inside });
            let judge = {
                #[allow(unused_imports)]
                use #rt::OtherOutput as _;
                let output = #rt::Output::of(&body);
                #can_fail
                #judge
            };
        }
    }

    fn inside(&self) -> TokenStream {
        let output = self.function.output_inside();
        let body = &self.function.body;
        let keep = self.keep_arguments();
        let patterns = self.function.args.iter().filter_map(|arg| {
            let (ident, pattern, cfgs) = (&arg.ident, arg.pattern.as_ref()?, &arg.cfgs);
            Some(quote_spanned!(Span::mixed_site()=> #(#cfgs)* let #pattern = #ident;))
        });
        // The type of the body is known before it is looked at, and errors in it point into it; this is
        // how tracing does it.
        quote_spanned! {Span::mixed_site()=>
            #[allow(
                unknown_lints,
                unreachable_code,
                clippy::diverging_sub_expression,
                clippy::empty_loop,
                clippy::let_unit_value,
                clippy::let_with_type_underscore,
                clippy::needless_return,
                clippy::unreachable
            )]
            if false {
                let never: #output = loop {};
                return never;
            }
            #keep
            #(#patterns)*
            #body
        }
    }

    /// Mentions the arguments in reverse, so that the body's future holds them in that order and drops
    /// them in it, as a function does. (Taking them into variables of the body would do the same, and make the
    /// future larger by all of them.)
    ///
    /// One that nothing else mentions is left out, or the compiler could not say that it is not used.
    fn keep_arguments(&self) -> TokenStream {
        let body = self.function.body.stream();
        let used_outside = self.plan.fallback.is_some() || self.plan.cache.is_some();
        let mentions = self.function.args.iter().rev().filter_map(|arg| {
            let Arg { ident, cfgs, .. } = arg;
            let kept = arg.is_receiver
                || arg.pattern.is_some()
                || used_outside
                || ident.to_string().starts_with('_')
                || mentions(&body, ident);
            kept.then(|| quote_spanned!(Span::mixed_site()=> #(#cfgs)* let _ = &#ident;))
        });
        quote_spanned! {Span::mixed_site()=>
            #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)]
            { #(#mentions)* }
        }
    }

    /// `let ended`: the body made and run; with `spare` where a fallback will want the arguments, too.
    fn call(&self) -> TokenStream {
        let rt = &self.rt;
        let spare = self.plan.fallback.as_ref().map(|_| {
            let spares = self.function.args.iter().map(
                |Arg { ident, type_span, .. }| quote_spanned!(ours_at(*type_span)=> #rt::spare(&#ident)),
            );
            quote_spanned! {Span::mixed_site()=>
                #[allow(clippy::used_underscore_binding)]
                let spare = (#(#spares,)*);
            }
        });
        let body_and_judge = self.body_and_judge();
        quote_spanned! {Span::mixed_site()=>
            #spare
            let ended = {
                #body_and_judge
                breaker.run(body, judge).await
            };
        }
    }

    /// The same for `fallback_on = "open"`: the arguments go into the body, or are kept.
    fn call_or_keep_arguments(&self) -> TokenStream {
        let rt = &self.rt;
        let idents = self.function.args.iter().map(|arg| &arg.ident);
        let body_and_judge = self.body_and_judge();
        quote_spanned! {Span::mixed_site()=>
            let (ended, spare) = match breaker.admitted().await {
                #rt::Result::Ok(permit) => {
                    #body_and_judge
                    (breaker.permitted(permit, body, judge).await, #rt::Option::None)
                }
                #rt::Result::Err(error) => {
                    #[allow(clippy::used_underscore_binding)]
                    let spare = (#(#idents,)*);
                    (#rt::Ended::Rejected(error), #rt::Option::Some(spare))
                }
            };
        }
    }

    /// `let ended`, again: with the kept result in the place of a bad one.
    fn cached(&self) -> TokenStream {
        let rt = &self.rt;
        let form = self.form();
        let cached = quote_spanned!(ours_at(self.function.output_span())=>
            #rt::cached(&breaker, key, form, ended));
        quote_spanned! {Span::mixed_site()=>
            let ended = {
                #form
                #cached.await
            };
        }
    }

    /// `let form`: how to read what the call has returned.
    fn form(&self) -> TokenStream {
        let rt = &self.rt;
        quote_spanned! {Span::mixed_site()=>
            let output = #rt::Output::of_ended(&ended);
            let form = {
                #[allow(unused_imports)]
                use #rt::OtherOutput as _;
                output.form()
            };
        }
    }

    /// What the function returns.
    fn answer(&self) -> TokenStream {
        let rt = &self.rt;
        let form = self.form();
        let output = ours_at(self.function.output_span());
        let Some(fallback) = &self.plan.fallback else {
            let settle = quote_spanned!(output=> #rt::settle(form, ended));
            return quote_spanned! {Span::mixed_site()=>
                #form
                #settle
            };
        };
        let settle = match fallback.on {
            On::Any => "settle_any",
            On::Open => "settle_open",
            On::Error => "settle_error",
        };
        let settle = Ident::new(settle, output);
        let settle = quote_spanned!(output=> #rt::#settle(form, ended, spare));
        let call = match &fallback.function {
            Callee::Path(path) => {
                quote_spanned!(ours_at(path.span())=> #rt::call(#path, args, reason))
            }
            Callee::Closure { closure, takes_reason } => {
                let call = if *takes_reason { "call_with_reason" } else { "call" };
                let call = format_ident!("{call}", span = ours_at(closure.span()));
                quote_spanned!(ours_at(closure.span())=> #rt::Given(args).#call(reason, #closure))
            }
        };
        let reply = match &fallback.function {
            Callee::Path(path) => path.span(),
            Callee::Closure { closure, .. } => closure.span(),
        };
        let reply = quote_spanned!(ours_at(reply)=> #rt::reply(output, reply));
        quote_spanned! {Span::mixed_site()=>
            #form
            match #settle {
                #rt::Result::Ok(value) => value,
                #rt::Result::Err((args, reason)) => {
                    let reply = #call;
                    #reply.await
                }
            }
        }
    }
}
