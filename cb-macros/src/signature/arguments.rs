//! A function's arguments, each with a name that the expansion can mention.

use proc_macro2::{Ident, Span};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, FnArg, Pat, ReceiverKind, Type};

/// An argument of the function.
pub(crate) struct Arg {
    /// Its name outside of the body.
    pub(crate) ident: Ident,
    /// The pattern by which the body takes it apart, where that is more than a name.
    pub(crate) pattern: Option<Pat>,
    /// Where to report that the argument's type is at fault.
    pub(crate) type_span: Span,
    /// Whether there is an argument at all.
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) is_receiver: bool,
    /// A second copy of it would not matter: it has a few bytes, or cannot be copied. As far as its tokens
    /// tell.
    pub(crate) is_small: bool,
}

impl Arg {
    /// Replaces a pattern in the signature by a name.
    pub(super) fn new(index: usize, input: &mut FnArg) -> Self {
        let cfgs = |attrs: &[Attribute]| {
            attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect::<Vec<_>>()
        };
        match input {
            FnArg::Receiver(receiver) => Arg {
                ident: Ident::new("self", receiver.self_token.span),
                pattern: None,
                type_span: receiver.self_token.span,
                cfgs: cfgs(&receiver.attrs),
                is_receiver: true,
                is_small: matches!(receiver.kind, ReceiverKind::Reference(..)),
            },
            FnArg::Typed(typed) => {
                let (ident, pattern) = match &*typed.pat {
                    Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => {
                        (name.ident.clone(), None)
                    }
                    pattern => {
                        let ident = name_for(pattern, index);
                        let name = Pat::Ident(syn::PatIdent {
                            attrs: Vec::new(),
                            by_ref: None,
                            mutability: None,
                            ident: ident.clone(),
                            subpat: None,
                        });
                        (ident, Some(std::mem::replace(&mut *typed.pat, name)))
                    }
                };
                Arg {
                    ident,
                    pattern,
                    type_span: typed.ty.span(),
                    cfgs: cfgs(&typed.attrs),
                    is_receiver: false,
                    is_small: is_small(&typed.ty),
                }
            }
        }
    }

    /// The names that the attribute's expressions and the body know it by.
    pub(crate) fn names(&self) -> Vec<Ident> {
        self.pattern.as_ref().map_or_else(|| vec![self.ident.clone()], bound_names)
    }
}

fn is_small(ty: &Type) -> bool {
    const SMALL: [&str; 21] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128",
        "isize", "f32", "f64", "String", "Vec", "Box", "Arc", "Rc",
    ];
    match ty {
        Type::Reference(_) => true,
        Type::Group(group) => is_small(&group.elem),
        Type::Path(path) => {
            path.path.segments.last().is_some_and(|last| SMALL.iter().any(|name| last.ident == name))
        }
        _ => false,
    }
}

/// A name that documentation shows and nobody can mention: the one that the pattern binds, if it binds only
/// one.
fn name_for(pattern: &Pat, index: usize) -> Ident {
    let span = Span::mixed_site().located_at(pattern.span());
    match &bound_names(pattern)[..] {
        [name] => {
            let mut copy = name.clone();
            copy.set_span(span);
            copy
        }
        _ => Ident::new(&format!("arg{index}"), span),
    }
}

/// The names that a pattern binds.
fn bound_names(pattern: &Pat) -> Vec<Ident> {
    struct Names(Vec<Ident>);
    impl VisitMut for Names {
        fn visit_pat_ident_mut(&mut self, name: &mut syn::PatIdent) {
            self.0.push(name.ident.clone());
            visit_mut::visit_pat_ident_mut(self, name);
        }
    }
    let mut names = Names(Vec::new());
    names.visit_pat_mut(&mut pattern.clone());
    names.0
}

/// A pattern that, matched against a reference to the argument, binds the names to references.
///
/// Matching through a reference makes every binding a reference. In edition 2024 such a pattern may have no
/// `&`, `ref` or `mut` of its own, so they are left out.
pub(crate) fn by_reference(pattern: &Pat) -> Pat {
    struct ByReference;
    impl VisitMut for ByReference {
        fn visit_pat_mut(&mut self, pattern: &mut Pat) {
            while let Pat::Reference(reference) = pattern {
                *pattern = (*reference.pat).clone();
            }
            visit_mut::visit_pat_mut(self, pattern);
        }

        fn visit_pat_ident_mut(&mut self, name: &mut syn::PatIdent) {
            (name.mutability, name.by_ref) = (None, None);
            visit_mut::visit_pat_ident_mut(self, name);
        }
    }
    let mut pattern = pattern.clone();
    ByReference.visit_pat_mut(&mut pattern);
    pattern
}
