//! Functions that are not `async` but return a future.

use std::collections::HashSet;

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    FnArg, GenericArgument, GenericParam, Generics, Lifetime, PathArguments, ReturnType, Signature, Type,
    TypeParamBound, WherePredicate,
};

use crate::tokens::{any, mentions};

/// The future that a function returns, such as the one that `#[async_trait]` makes of an `async fn`.
pub(crate) struct ReturnedFuture {
    /// The return type, unless it is `impl Future<…>`.
    pub(crate) boxed: Option<Type>,
    /// What the future returns, if the return type says so. It does not behind an alias such as
    /// `BoxFuture<'_, T>`.
    pub(crate) output: Option<Type>,
    /// The future cannot hold an argument, because it outlives or could not be sent with it: only code before
    /// the future can read that argument, so that code has to run when the function is called.
    pub(crate) leaves_arguments: bool,
}

/// What `#[tokio::test]` and `#[tokio::main]` make of an `async fn` if they stand above: `let body = async {
/// … };` and then, in a block at the end, `return Builder::….block_on(body);`. Only the inside of the first
/// block is the user's, and guarded.
pub(crate) struct TokioBody {
    pub(crate) before: TokenStream,
    pub(super) block: Group,
    pub(crate) after: TokenStream,
}

impl ReturnedFuture {
    pub(super) fn of(sig: &Signature) -> Option<Self> {
        let ReturnType::Type(_, written) = &sig.output else { return None };
        let (boxed, output) = match ungrouped(written) {
            Type::ImplTrait(opaque) => (None, Some(future_output(&opaque.bounds)?)),
            pinned => {
                let object = argument_of(pinned, "Pin").and_then(|pinned| argument_of(pinned, "Box"));
                let output = match object.map(ungrouped) {
                    Some(Type::TraitObject(object)) => Some(future_output(&object.bounds)?),
                    _ if is_known_value(pinned) => return None,
                    _ => None,
                };
                (Some(pinned.clone()), output)
            }
        };
        // An alias does not tell.
        let is_sent = output.is_none() || says_send(&written.to_token_stream());
        let leaves_arguments = outlives_arguments(sig, written) || (is_sent && has_unsendable(sig, written));
        Some(ReturnedFuture { boxed, output: output.cloned(), leaves_arguments })
    }
}

impl TokioBody {
    pub(super) fn of(body: &Group) -> Option<Self> {
        const BEFORE: [&str; 4] = ["let", "body", "=", "async"];
        let mut tokens = body.stream().into_iter();
        let before: Vec<TokenTree> = tokens.by_ref().take(BEFORE.len()).collect();
        let Some(TokenTree::Group(block)) = tokens.next() else { return None };
        let is_block = |group: &Group| group.delimiter() == Delimiter::Brace;
        let after: Vec<TokenTree> = tokens.collect();
        let runs_it = matches!(after.last(), Some(TokenTree::Group(last)) if is_block(last)
            && any(&last.stream(), &mut |token| matches!(token, TokenTree::Ident(name) if name == "block_on")));
        let is_tokio = before.iter().map(ToString::to_string).eq(BEFORE) && is_block(&block) && runs_it;
        is_tokio.then(|| TokioBody {
            before: before.into_iter().collect(),
            block,
            after: after.into_iter().collect(),
        })
    }
}

/// A type from behind the invisible delimiters that `$ty:ty` has in a `macro_rules!`.
pub(super) fn ungrouped(mut ty: &Type) -> &Type {
    while let Type::Group(group) = ty {
        ty = &group.elem;
    }
    ty
}

/// `T` of `path::to::Name<T>`.
fn argument_of<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = ungrouped(ty) else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == name)?;
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) => match arguments.args.first()? {
            GenericArgument::Type(argument) => Some(argument),
            _ => None,
        },
        _ => None,
    }
}

/// `R` of `Future<Output = R>`.
fn future_output<'a>(bounds: impl IntoIterator<Item = &'a TypeParamBound>) -> Option<&'a Type> {
    bounds.into_iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let last = bound.path.segments.last().filter(|last| last.ident == "Future")?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(assoc) if assoc.ident == "Output" => Some(&assoc.ty),
            _ => None,
        })
    })
}

/// A type that is certainly no future. Any other path may be an alias of one, which the compiler checks.
fn is_known_value(ty: &Type) -> bool {
    const VALUES: &[&str] = &[
        "Result", "Option", "String", "Vec", "Arc", "Rc", "Cow", "HashMap", "HashSet", "BTreeMap",
        "BTreeSet", "Duration", "Instant", "bool", "char", "str", "f32", "f64", "i8", "i16", "i32", "i64",
        "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize",
    ];
    match ty {
        Type::Path(path) => {
            path.path.segments.last().is_none_or(|last| VALUES.contains(&last.ident.to_string().as_str()))
        }
        Type::Macro(_) | Type::Verbatim(_) => false,
        _ => true,
    }
}

/// Whether a reference in the arguments has a lifetime that the return type does not have, nor one that it
/// outlives.
fn outlives_arguments(sig: &Signature, output: &Type) -> bool {
    let held: HashSet<Borrow> = borrows(output.to_token_stream()).into_iter().collect();
    let is_held = |borrow: &Borrow| match borrow {
        Borrow::Named(name) => {
            name == "static"
                || held.contains(borrow)
                || outlived_by(name, &sig.generics)
                    .any(|outlived| held.contains(&Borrow::Named(outlived.ident.to_string())))
        }
        Borrow::Elided => held.contains(&Borrow::Elided),
    };
    let receiver = sig.inputs.iter().find_map(|input| match input {
        FnArg::Receiver(receiver) => Some(borrows(receiver.to_token_stream())),
        FnArg::Typed(_) => None,
    });
    // An elided lifetime in the return type is that of `&self`, if there is one.
    let of_receiver = receiver.as_ref().is_some_and(|borrows| borrows.contains(&Borrow::Elided));
    receiver.into_iter().flatten().any(|borrow| !is_held(&borrow))
        || sig.inputs.iter().any(|input| match input {
            FnArg::Receiver(_) => false,
            FnArg::Typed(typed) => borrows(typed.ty.to_token_stream())
                .iter()
                .any(|borrow| !is_held(borrow) || (of_receiver && *borrow == Borrow::Elided)),
        })
}

/// Whether a generic argument need not be `Send`, as far as the signature tells. A type parameter that the
/// output mentions does not count, because the future may hold the argument to make its output of it.
fn has_unsendable(sig: &Signature, output: &Type) -> bool {
    let output = output.to_token_stream();
    let is_bound_by_where = |param: &Ident| {
        sig.generics.where_clause.iter().flat_map(|clause| &clause.predicates).any(|predicate| {
            let WherePredicate::Type(bound) = predicate else { return false };
            matches!(&bound.bounded_ty, Type::Path(bounded) if bounded.path.is_ident(param))
                && says_send(&bound.bounds.to_token_stream())
        })
    };
    let unsendable: Vec<&Ident> = sig
        .generics
        .type_params()
        .filter(|param| !says_send(&param.to_token_stream()) && !is_bound_by_where(&param.ident))
        .map(|param| &param.ident)
        .filter(|param| !mentions(&output, param))
        .collect();
    sig.inputs.iter().any(|input| {
        let FnArg::Typed(typed) = input else { return false };
        let ty = typed.ty.to_token_stream();
        let is_opaque = any(&ty, &mut |token| matches!(token, TokenTree::Ident(name) if name == "impl"));
        (is_opaque && !says_send(&ty)) || unsendable.iter().any(|param| mentions(&ty, param))
    })
}

/// Whether a bound makes values, or references to them, `Send`.
fn says_send(bounds: &TokenStream) -> bool {
    any(bounds, &mut |token| matches!(token, TokenTree::Ident(name) if name == "Send" || name == "Sync"))
}

#[derive(PartialEq, Eq, Hash)]
enum Borrow {
    Named(String),
    Elided,
}

/// The lifetimes that a type mentions, and those that its references leave out.
fn borrows(tokens: TokenStream) -> Vec<Borrow> {
    let mut found = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => found.extend(borrows(group.stream())),
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                if let Some(TokenTree::Ident(name)) = tokens.next() {
                    found.push(if name == "_" { Borrow::Elided } else { Borrow::Named(name.to_string()) });
                }
            }
            TokenTree::Punct(punct)
                if punct.as_char() == '&'
                    && !matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == '\'') =>
            {
                found.push(Borrow::Elided);
            }
            _ => {}
        }
    }
    found
}

/// `'b` of `'a: 'b`, for `'a`.
fn outlived_by<'a>(name: &'a str, generics: &'a Generics) -> impl Iterator<Item = &'a Lifetime> {
    let in_params = generics.params.iter().filter_map(|param| match param {
        GenericParam::Lifetime(param) => Some((&param.lifetime, &param.bounds)),
        _ => None,
    });
    let in_where =
        generics.where_clause.iter().flat_map(|clause| &clause.predicates).filter_map(|predicate| {
            match predicate {
                WherePredicate::Lifetime(predicate) => Some((&predicate.lifetime, &predicate.bounds)),
                _ => None,
            }
        });
    in_params
        .chain(in_where)
        .filter(move |(lifetime, _)| lifetime.ident == name)
        .flat_map(|(_, bounds)| bounds)
}
