//! The breaker of the function: its static, its settings, its name.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::Expr;
use syn::spanned::Spanned;

use super::{Guarded, call_at, ours_at, runtime};
use crate::name::{Name, Pattern};
use crate::tokens::any;
use crate::value::Value;

/// Where a function keeps its breaker. Items are not hygienic: the attribute's own expressions could see it.
const SITE: &str = "__CIRCUIT_BREAKER_SITE";

impl Guarded<'_> {
    /// `let breaker`: this function's.
    pub(super) fn breaker(&self) -> TokenStream {
        let Guarded { plan, .. } = self;
        let rt = runtime(Span::mixed_site());
        let (kind, new, name) = match &plan.name {
            Name::Fixed(name) => ("Site", call_at(name.span(), "Site::new", &quote!(#name)), None),
            Name::Pattern(pattern) => {
                let written = pattern.written.to_token_stream();
                let new = call_at(Span::mixed_site(), "PatternSite::new", &written);
                ("PatternSite", new, Some(name_of_call(pattern)))
            }
        };
        let base = match &plan.base {
            // In a variable, whose type the compiler names if it is another one.
            Some(base) => {
                let (at, rt) = (ours_at(base.span()), runtime(base.span()));
                quote_spanned!(at=> { let config: #rt::BreakerConfig = #base; config })
            }
            None => call_at(Span::mixed_site(), "settings", &TokenStream::new()),
        };
        let settings = plan.settings.iter().map(|(name, value)| {
            let value = value_tokens(value);
            quote_spanned!(Span::mixed_site()=> .#name(#value))
        });
        let site = Ident::new(SITE, Span::mixed_site());
        let bindings = {
            let (registry, name) = (&plan.registry, plan.name.parts());
            self.bindings_for(&quote!(#registry #name))
        };
        let (bind_parts, name) = name.unzip();
        let name = name.map(|name: TokenStream| quote_spanned!(Span::mixed_site()=> #name,));
        let find = if let Some(registry) = &plan.registry {
            // In a variable, as above.
            let (at, rt) = (ours_at(registry.span()), runtime(registry.span()));
            let args = quote_spanned!(at=> &#site, registry, #name settings);
            let within = call_at(at, &format!("{kind}::within"), &args);
            quote_spanned!(at=> let registry: &#rt::Registry = &(#registry); #within)
        } else {
            let by_type = matches!(plan.name, Name::Fixed(_)) && self.settings_may_depend_on_types();
            let global = if by_type { "global_by_type" } else { "global" };
            let args = quote_spanned!(Span::mixed_site()=> &#site, #name settings);
            call_at(Span::mixed_site(), &format!("{kind}::{global}"), &args)
        };
        let kind = Ident::new(kind, Span::mixed_site());
        let has_none = plan.base.is_none() && plan.settings.is_empty();
        // A closure would be two functions more to compile.
        let make = if has_none {
            quote_spanned!(Span::mixed_site()=> #rt::settings)
        } else {
            quote_spanned!(Span::mixed_site()=> || #base #(#settings)*)
        };
        quote_spanned! {Span::mixed_site()=>
            let breaker = {
                static #site: #rt::#kind = #new;
                let settings: #rt::MakeSettings = #make;
                #bindings
                #bind_parts
                #find
            };
        }
    }

    /// `breaker`, as a reference to what a call needs of it.
    pub(super) fn breaker_ref(&self) -> TokenStream {
        let is_reference = matches!(self.plan.name, Name::Fixed(_)) && self.plan.registry.is_none();
        let and = if is_reference { None } else { Some(quote_spanned!(Span::mixed_site()=> &)) };
        quote_spanned!(Span::mixed_site()=> #and breaker)
    }

    /// Whether a setting may be another one for another type of a generic function: `T::TIMEOUT`. The types
    /// of an `impl` are not known here, so any expression may.
    fn settings_may_depend_on_types(&self) -> bool {
        let names_something = |expression: &Expr| {
            any(&expression.to_token_stream(), &mut |token| matches!(token, TokenTree::Ident(_)))
        };
        self.plan.base.iter().any(names_something)
            || self.plan.settings.iter().any(|(_, value)| match value {
                Value::Written(expression) => names_something(expression),
                Value::Float(_) | Value::Span(..) | Value::Text(..) => false,
            })
    }
}

/// The name of this call's breaker: a binding of each part, so that the compiler reports a mistake in one
/// only once; then what finds the breaker, and the text of its name, which is written only for a new breaker.
fn name_of_call(Pattern { format, parts, is_plain, .. }: &Pattern) -> (TokenStream, TokenStream) {
    let rt = runtime(format.span());
    let names: Vec<_> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| Ident::new(&format!("part_{index}"), ours_at(part.span())))
        .collect();
    let bind = quote_spanned!(Span::mixed_site()=> #(let #names = &#parts;)*);
    let found_by = if *is_plain {
        quote_spanned! {Span::mixed_site()=>
            &{
                #[allow(unused_imports)]
                use #rt::{IsKnownPart as _, IsOtherPart as _};
                [#((&#rt::PartOf(#names)).circuit_breaker_name_part()),*]
            }
        }
    } else {
        quote_spanned!(Span::mixed_site()=> &[#rt::NamePart::Other])
    };
    let text = quote_spanned!(ours_at(format.span())=> #rt::format_args!(#format, #(*#names),*));
    (bind, quote!(#found_by, #text))
}

pub(super) fn value_tokens(value: &Value) -> TokenStream {
    match value {
        Value::Written(expr) => expr.to_token_stream(),
        Value::Float(float) => float.to_token_stream(),
        Value::Text(text, span) => quote_spanned!(*span=> #text),
        Value::Span(value, span) => {
            let (seconds, nanos) = (value.as_secs(), value.subsec_nanos());
            call_at(*span, "Duration::new", &quote!(#seconds, #nanos))
        }
    }
}
