//! The attribute `#[circuit_breaker]`. Use it through `cb_runtime`, which documents it: its expansion names that crate.
//!
//! A file per step: `args` reads what stands in the parentheses (by the kinds of `value`), `signature` what the attribute
//! stands on, `validate` makes a plan of both (with `name` and `captures`), and `expand` makes code of the plan.

mod args;
mod captures;
mod expand;
mod foreign;
mod manifest;
mod name;
mod signature;
#[cfg(test)]
mod tests;
mod tokens;
mod validate;
mod value;

use proc_macro::TokenStream;

use signature::Item;

/// Guards an async function with a circuit breaker; see `cb_runtime::circuit_breaker`.
#[proc_macro_attribute]
pub fn circuit_breaker(args: TokenStream, item: TokenStream) -> TokenStream {
    guard(args.into(), item.into()).into()
}

/// On any error the item comes back unchanged: one error must not cause others, and an editor must be able to complete
/// inside a body that is half written.
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
