//! A function's arguments, each with a name that the expansion can mention.

use proc_macro2::{Ident, Span};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, FnArg, Pat};

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
                }
            }
        }
    }

    /// The names that the attribute's expressions and the body know it by.
    pub(crate) fn names(&self) -> Vec<Ident> {
        self.pattern.as_ref().map_or_else(|| vec![self.ident.clone()], bound_names)
    }
}

/// A name that documentation shows and nobody can mention: the one that the pattern binds, if it binds only one.
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
/// Matching through a reference makes every binding a reference. In edition 2024 such a pattern may have no `&`, `ref` or
/// `mut` of its own, so they are left out.
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
