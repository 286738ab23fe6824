//! The attribute `#[circuit_breaker]`. Use it through `cb_runtime`, which documents it: its expansion
//! names that crate.
//!
//! A file per step: `args` (what is written in the parentheses) and `signature` (what it is written on),
//! `name` (which of its arguments the breaker's name is made of), `validate` (both together, into a plan), `expand` (the plan, into code; the only place with `quote!`).

mod args;
mod expand;
mod name;
mod signature;
#[cfg(test)]
mod tests;
mod validate;
mod value;

use proc_macro::TokenStream;

use signature::Item;

/// Guards an async function with a circuit breaker; see `cb_runtime::circuit_breaker`.
#[proc_macro_attribute]
pub fn circuit_breaker(args: TokenStream, item: TokenStream) -> TokenStream {
    guard(args.into(), item.into()).into()
}

/// Whatever is wrong, the item comes back: one error must not become ten, and an editor must be able to
/// complete inside a body that is half written.
fn guard(args: proc_macro2::TokenStream, item: proc_macro2::TokenStream) -> proc_macro2::TokenStream {
    match signature::parse(item.clone()) {
        Item::Unfit(error) => expand::untouched(item, &error),
        Item::Function(function) => {
            let (args, errors) = args::parse(args);
            match validate::plan(&args, errors, &function) {
                Ok(plan) => expand::guarded(&function, &plan),
                Err(error) => expand::untouched(item, &error),
            }
        }
    }
}
