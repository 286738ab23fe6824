//! What the attribute is written on. The body is never parsed: it may be half written, and it is long.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, FnArg, GenericArgument, Pat, PathArguments, ReturnType, Signature, Token, Type,
    TypeParamBound, Visibility,
};

/// An item, as far as the attribute can do something with it.
pub(crate) enum Item {
    Function(Box<Function>),
    /// Nothing that a breaker can guard.
    Unfit(Error),
}

/// An async function.
pub(crate) struct Function {
    /// With the attributes inside of the body, which cannot stay there.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    /// Its arguments are `args`, named so that each can be mentioned.
    pub(crate) sig: Signature,
    /// If it is not an `async fn`, but returns a future.
    pub(crate) later: Option<Later>,
    /// If it is not an `async fn`, but was one before it got a runtime of its own.
    pub(crate) driven: Option<Driven>,
    pub(crate) args: Vec<Arg>,
    pub(crate) body: Group,
}

/// The future that a function returns, such as what `#[async_trait]` makes of an `async fn`.
pub(crate) struct Later {
    /// The return type, if it is `Pin<Box<dyn Future<…>>>` and not `impl Future<…>`.
    pub(crate) boxed: Option<Type>,
    /// What the future returns.
    output: ReturnType,
}

/// What `#[tokio::test]` and `#[tokio::main]` make of an `async fn` if they stand above: `let body = async { … };` and
/// then a runtime that runs it. Only the inside of that block is the user's, and to be guarded.
pub(crate) struct Driven {
    pub(crate) before: TokenStream,
    block: Group,
    pub(crate) after: TokenStream,
}

/// What a function returns, as far as it can be written inside a body.
pub(crate) enum Output {
    Unit,
    Never,
    /// With `_` in the place of each `impl Trait`.
    Type(Box<Type>),
}

/// An argument of the function.
pub(crate) struct Arg {
    /// What it is called outside of the body.
    pub(crate) ident: Ident,
    /// What the body takes it apart with, where that is not just a name.
    pub(crate) pattern: Option<Pat>,
    /// What to point at when the argument's type is at fault.
    pub(crate) type_span: Span,
    /// Whether there is an argument at all.
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) is_receiver: bool,
}

pub(crate) fn parse(tokens: TokenStream) -> Item {
    match Parsed::parse.parse2(tokens) {
        Ok(Parsed(item)) => item,
        // Said even where the compiler has said it before: a function must never go unguarded in silence.
        Err(error) => Item::Unfit(error),
    }
}

/// [`Item`], for the parser's sake.
struct Parsed(Item);

impl Parse for Parsed {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        if let Some(error) = not_a_function(input) {
            input.parse::<TokenStream>()?;
            return Ok(Parsed(Item::Unfit(error)));
        }
        let sig: Signature = input.parse()?;
        let unfit = |span, message: &str| Ok(Parsed(Item::Unfit(Error::new(span, message))));
        if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            return unfit(
                sig.ident.span(),
                "a function without a body has nothing to guard: put the attribute on the implementations",
            );
        }
        let body = body(input)?;
        if let Some(token) = sig.constness {
            return unfit(token.span, "a const function makes no calls that could fail: guard an `async fn`");
        }
        let (later, driven) = match sig.asyncness {
            Some(_) => (None, None),
            None => (Later::of(&sig.output), Driven::by_tokio(&body)),
        };
        if sig.asyncness.is_none() && later.is_none() && driven.is_none() {
            return unfit(
                sig.fn_token.span,
                "only an `async fn`, or a function that returns a boxed future, can be guarded: a call may \
                 have to wait, and to be cancelled",
            );
        }
        Ok(Parsed(Item::Function(Box::new(Function::new(attrs, vis, sig, later, driven, &body)?))))
    }
}

/// The body's braces, from behind the invisible delimiters that `$body:block` has in a `macro_rules!`.
fn body(input: ParseStream<'_>) -> syn::Result<Group> {
    let Some(TokenTree::Group(group)) = input.parse()? else {
        return Err(input.error("expected a body"));
    };
    match group.delimiter() {
        Delimiter::Brace if input.is_empty() => Ok(group),
        Delimiter::None if input.is_empty() => body.parse2(group.stream()),
        _ => Err(input.error("expected a body")),
    }
}

fn not_a_function(input: ParseStream<'_>) -> Option<Error> {
    let what = if input.peek(Token![struct]) || input.peek(Token![enum]) || input.peek(Token![type]) {
        "a type makes no calls"
    } else if input.peek(Token![impl]) || (input.peek(Token![unsafe]) && input.peek2(Token![impl])) {
        "an impl is guarded method by method"
    } else if input.peek(Token![mod]) {
        "a module is guarded function by function"
    } else if input.peek(Token![trait]) {
        "a trait is guarded in its implementations, method by method"
    } else if input.peek(Token![static])
        || (input.peek(Token![const]) && input.peek2(syn::Ident) && input.peek3(Token![:]))
    {
        "a value makes no calls"
    } else if input.peek(Token![use]) || input.peek(Token![extern]) && input.peek2(Token![crate]) {
        "nothing here makes calls"
    } else {
        return None;
    };
    Some(input.error(format!("{what}: put `#[circuit_breaker(…)]` on an `async fn`")))
}

impl Function {
    fn new(
        mut attrs: Vec<Attribute>,
        vis: Visibility,
        mut sig: Signature,
        later: Option<Later>,
        driven: Option<Driven>,
        body: &Group,
    ) -> syn::Result<Self> {
        let body = driven.as_ref().map_or(body, |driven| &driven.block);
        let args = sig.inputs.iter_mut().enumerate().map(|(index, input)| Arg::new(index, input)).collect();
        let (inner, body) = without_inner_attributes(body)?;
        attrs.extend(inner);
        Ok(Function { attrs, vis, sig, later, driven, args, body })
    }

    /// The receiver's `self`.
    pub(crate) fn receiver(&self) -> Option<&Arg> {
        self.args.first().filter(|arg| arg.is_receiver)
    }

    /// The return type as it is written; of a future, what that returns.
    pub(crate) fn written_output(&self) -> &ReturnType {
        self.later.as_ref().map_or(&self.sig.output, |later| &later.output)
    }

    /// What the return type is, for the expansion.
    pub(crate) fn output(&self) -> Output {
        match self.written_output() {
            ReturnType::Default => Output::Unit,
            ReturnType::Type(_, written) if matches!(ungrouped(written), Type::Never(_)) => Output::Never,
            ReturnType::Type(_, written) => {
                let mut output = written.clone();
                EraseOpaque.visit_type_mut(&mut output);
                Output::Type(output)
            }
        }
    }

    /// Where the return type begins, or else the function's name.
    pub(crate) fn output_span(&self) -> Span {
        match self.written_output() {
            ReturnType::Default => self.sig.ident.span(),
            ReturnType::Type(_, written) => written.span(),
        }
    }
}

impl Later {
    fn of(output: &ReturnType) -> Option<Self> {
        let ReturnType::Type(arrow, written) = output else { return None };
        let (bounds, boxed) = match ungrouped(written) {
            Type::ImplTrait(opaque) => (&opaque.bounds, None),
            pinned => match ungrouped(argument_of(argument_of(pinned, "Pin")?, "Box")?) {
                Type::TraitObject(object) => (&object.bounds, Some(pinned.clone())),
                _ => return None,
            },
        };
        let output = bounds.iter().find_map(|bound| match bound {
            TypeParamBound::Trait(bound) => future_output(&bound.path),
            _ => None,
        })?;
        Some(Later { boxed, output: ReturnType::Type(*arrow, Box::new(output.clone())) })
    }
}

impl Driven {
    fn by_tokio(body: &Group) -> Option<Self> {
        const BEFORE: [&str; 4] = ["let", "body", "=", "async"];
        let mut tokens = body.stream().into_iter();
        let before: Vec<TokenTree> = tokens.by_ref().take(BEFORE.len()).collect();
        let Some(TokenTree::Group(block)) = tokens.next() else { return None };
        let is_tokio =
            before.iter().map(ToString::to_string).eq(BEFORE) && block.delimiter() == Delimiter::Brace;
        is_tokio.then(|| Driven { before: before.into_iter().collect(), block, after: tokens.collect() })
    }
}

/// A type from behind the invisible delimiters that `$ty:ty` has in a `macro_rules!`.
fn ungrouped(mut ty: &Type) -> &Type {
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
fn future_output(path: &syn::Path) -> Option<&Type> {
    let last = path.segments.last().filter(|last| last.ident == "Future")?;
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::AssocType(assoc) if assoc.ident == "Output" => Some(&assoc.ty),
                _ => None,
            })
        }
        _ => None,
    }
}

impl Arg {
    /// Leaves a name in the place of a pattern.
    fn new(index: usize, input: &mut FnArg) -> Self {
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
}

/// A name that documentation shows and nobody can mention: what the pattern binds, if that is one name.
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
pub(crate) fn bound_names(pattern: &Pat) -> Vec<Ident> {
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

/// A pattern that binds the same names to references, and so takes nothing away.
pub(crate) fn by_reference(pattern: &Pat) -> Pat {
    struct ByReference;
    impl VisitMut for ByReference {
        fn visit_pat_ident_mut(&mut self, name: &mut syn::PatIdent) {
            name.mutability = None;
            name.by_ref.get_or_insert_with(Default::default);
            visit_mut::visit_pat_ident_mut(self, name);
        }
    }
    let mut pattern = pattern.clone();
    ByReference.visit_pat_mut(&mut pattern);
    pattern
}

/// Whether code mentions a name, or a text in it does as format strings do: `"{name}"`.
pub(crate) fn mentions(code: &TokenStream, name: &Ident) -> bool {
    let plain = name.unraw().to_string();
    let in_text = format!("{{{plain}");
    code.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions(&group.stream(), name),
        TokenTree::Ident(ident) => ident == *name,
        TokenTree::Literal(literal) => literal.to_string().contains(&in_text),
        TokenTree::Punct(_) => false,
    })
}

/// `#![allow(…)]` at the beginning of a body becomes an attribute of the function: where the body goes, inside a
/// block of ours, it could not stand.
fn without_inner_attributes(body: &Group) -> syn::Result<(Vec<Attribute>, Group)> {
    let parser = |input: ParseStream<'_>| Ok((input.call(Attribute::parse_inner)?, input.parse()?));
    let (mut attrs, rest): (Vec<Attribute>, TokenStream) = parser.parse2(body.stream())?;
    if attrs.is_empty() {
        // The very braces that the user wrote.
        return Ok((attrs, body.clone()));
    }
    for attr in &mut attrs {
        attr.style = syn::AttrStyle::Outer;
    }
    let mut stripped = Group::new(Delimiter::Brace, rest);
    stripped.set_span(body.span());
    Ok((attrs, stripped))
}

/// Puts `_` in the place of each `impl Trait`.
struct EraseOpaque;

impl VisitMut for EraseOpaque {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if matches!(ty, Type::ImplTrait(_)) {
            *ty = Type::Infer(syn::TypeInfer { attrs: Vec::new(), underscore_token: Token![_](ty.span()) });
        } else {
            visit_mut::visit_type_mut(self, ty);
        }
    }
}

/// The first token in a return type that says it borrows or hides something.
pub(crate) fn borrowed_or_opaque(output: &ReturnType) -> Option<Span> {
    fn find(tokens: TokenStream) -> Option<Span> {
        tokens.into_iter().find_map(|token| match token {
            TokenTree::Group(group) => find(group.stream()),
            TokenTree::Punct(punct) if punct.as_char() == '&' || punct.as_char() == '\'' => {
                Some(punct.span())
            }
            TokenTree::Ident(ident) if ident == "impl" => Some(ident.span()),
            _ => None,
        })
    }
    match output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => find(ty.to_token_stream()),
    }
}
