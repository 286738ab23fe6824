//! Expressions that depend on the function's arguments, where there is only one value for all calls.

use std::collections::HashSet;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit_mut::{self, VisitMut};
use syn::{Error, Expr, ExprLit, Lit, Member, Token};

use crate::signature::Function;
use crate::tokens::{any, unwrapped};

/// Reports an argument of the function in an expression that is evaluated once for all calls.
pub(crate) fn check(argument: &Ident, expression: &Expr, function: &Function) -> Result<(), Error> {
    let Some(found) = find(expression, function) else { return Ok(()) };
    Err(Error::new_spanned(
        &found,
        format!(
            "`{argument}` is set once for all calls, so it cannot depend on `{}`: write a literal, a constant, or an \
             expression without the function's arguments",
            found.to_string().replace(" . ", "."),
        ),
    ))
}

/// The first mention of an argument: the argument with the fields after it.
fn find(expression: &Expr, function: &Function) -> Option<TokenStream> {
    let mut search = Search { names: names(function), bound: HashSet::new(), found: Vec::new() };
    search.visit_expr_mut(&mut expression.clone());
    let Search { found, bound, .. } = search;
    found.into_iter().find(|(name, _)| !bound.contains(name)).map(|(_, tokens)| tokens)
}

fn names(function: &Function) -> HashSet<String> {
    function.args.iter().flat_map(crate::signature::Arg::names).map(|name| name.unraw().to_string()).collect()
}

struct Search {
    names: HashSet<String>,
    /// Names that the expression binds itself, such as a closure's parameters.
    bound: HashSet<String>,
    found: Vec<(String, TokenStream)>,
}

impl Search {
    fn root(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::Path(path) => {
                let name = path.path.get_ident()?.unraw().to_string();
                self.names.contains(&name).then_some(name)
            }
            Expr::Field(field) => self.root(&field.base),
            Expr::Paren(inner) => self.root(&inner.expr),
            _ => None,
        }
    }
}

impl VisitMut for Search {
    fn visit_expr_mut(&mut self, expression: &mut Expr) {
        match self.root(expression) {
            Some(name) => self.found.push((name, expression.to_token_stream())),
            None => visit_mut::visit_expr_mut(self, expression),
        }
    }

    fn visit_pat_ident_mut(&mut self, name: &mut syn::PatIdent) {
        self.bound.insert(name.ident.unraw().to_string());
        visit_mut::visit_pat_ident_mut(self, name);
    }

    fn visit_macro_mut(&mut self, call: &mut syn::Macro) {
        let mut name = None;
        any(&call.tokens, &mut |token| match token {
            TokenTree::Ident(ident) if self.names.contains(&ident.unraw().to_string()) => {
                name = Some(ident.clone());
                true
            }
            _ => false,
        });
        if let Some(name) = name {
            self.found.push((name.unraw().to_string(), name.to_token_stream()));
        }
    }
}

/// What to write instead of a name that depends on arguments without being a literal: `name = tenant`,
/// `name = self.name.clone()`, `name = format!("tenant-{}", tenant)`. `None` for a name that does not.
pub(crate) fn pattern_for(name: &Expr, function: &Function) -> Option<String> {
    let found = find(name, function);
    let pattern = placeholders(name, &names(function));
    if found.is_none() && !is_format(name) {
        return None;
    }
    let example = pattern.unwrap_or_else(|| {
        let argument = found.map(|found| found.to_string().replace(' ', ""));
        format!("{{{}}}", argument.as_deref().unwrap_or("id"))
    });
    Some(format!("a name that depends on the arguments has them in braces: write `name = \"{example}\"`"))
}

fn is_format(name: &Expr) -> bool {
    matches!(unwrapped(name), Expr::Macro(call) if call.mac.path.segments.last().is_some_and(|last| last.ident == "format"))
        || matches!(unwrapped(name), Expr::Reference(reference) if is_format(&reference.expr))
}

/// The name with placeholders that means what the expression does, where that is easy to say.
fn placeholders(name: &Expr, arguments: &HashSet<String>) -> Option<String> {
    match unwrapped(name) {
        Expr::Reference(reference) => placeholders(&reference.expr, arguments),
        Expr::MethodCall(call)
            if matches!(
                call.method.to_string().as_str(),
                "clone" | "as_str" | "as_ref" | "to_string" | "to_owned" | "into"
            ) =>
        {
            placeholders(&call.receiver, arguments)
        }
        Expr::Macro(call) if is_format(name) => {
            let parts =
                Punctuated::<Expr, Token![,]>::parse_terminated.parse2(call.mac.tokens.clone()).ok()?;
            let mut parts = parts.iter();
            let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = parts.next()? else { return None };
            let mut text = text.value();
            for part in parts {
                let path = placeholder(part, arguments)?;
                let at = text.find("{}").into_iter().chain(text.find("{:")).min()?;
                text.insert_str(at + 1, &path);
            }
            (!text.contains("{}") && !text.contains("{:")).then_some(text)
        }
        other => placeholder(other, arguments).map(|path| format!("{{{path}}}")),
    }
}

/// `id` or `self.region`.
fn placeholder(expression: &Expr, arguments: &HashSet<String>) -> Option<String> {
    match expression {
        Expr::Path(path) => {
            let name = path.path.get_ident()?.unraw().to_string();
            arguments.contains(&name).then_some(name)
        }
        Expr::Field(field) => {
            let base = placeholder(&field.base, arguments)?;
            match &field.member {
                Member::Named(name) => Some(format!("{base}.{}", name.unraw())),
                Member::Unnamed(index) => Some(format!("{base}.{}", index.index)),
            }
        }
        Expr::Reference(reference) => placeholder(&reference.expr, arguments),
        Expr::Paren(inner) => placeholder(&inner.expr, arguments),
        Expr::MethodCall(call) if call.args.is_empty() => placeholder(&call.receiver, arguments),
        _ => None,
    }
}
