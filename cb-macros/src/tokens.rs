//! Questions about tokens that more than one step asks.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::Expr;
use syn::ext::IdentExt;

/// An expression without the parentheses and the invisible groups around it.
pub(crate) fn unwrapped(mut expr: &Expr) -> &Expr {
    loop {
        match expr {
            Expr::Paren(inner) => expr = &inner.expr,
            Expr::Group(inner) => expr = &inner.expr,
            other => return other,
        }
    }
}

/// Whether code mentions a name, or a string literal in it does as format strings do: `"{name}"`.
pub(crate) fn mentions(code: &TokenStream, name: &Ident) -> bool {
    let in_text = format!("{{{}", name.unraw());
    any(code, &mut |token| match token {
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Literal(literal) => literal.to_string().contains(&in_text),
        TokenTree::Group(_) | TokenTree::Punct(_) => false,
    })
}

/// Whether a token of the code, at any depth, is one of these.
pub(crate) fn any(code: &TokenStream, is_it: &mut impl FnMut(&TokenTree) -> bool) -> bool {
    find(code, is_it).is_some()
}

/// The first token of the code, at any depth, that is one of these.
pub(crate) fn find(code: &TokenStream, is_it: &mut impl FnMut(&TokenTree) -> bool) -> Option<TokenTree> {
    code.clone().into_iter().find_map(|token| match &token {
        _ if is_it(&token) => Some(token),
        TokenTree::Group(group) => find(&group.stream(), is_it),
        _ => None,
    })
}
