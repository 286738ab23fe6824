//! What the attribute is written on. The body is never parsed: it may be half written, and it is long.

mod arguments;
mod returned;

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, FnArg, GenericArgument, PathArguments, ReturnType, Signature, Token, Type, Visibility,
};

pub(crate) use arguments::{Arg, by_reference};
use returned::ungrouped;
pub(crate) use returned::{ReturnedFuture, TokioBody};

use crate::tokens::find;

/// An item, as far as the attribute can do something with it.
pub(crate) enum Item {
    Function(Box<Function>),
    /// Nothing that a breaker can guard.
    Unfit(Error),
}

/// An async function.
pub(crate) struct Function {
    /// Including the attributes inside of the body, which cannot stay there.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    /// Its arguments are `args`, named so that each can be mentioned.
    pub(crate) sig: Signature,
    /// If it is not an `async fn`, but returns a future.
    pub(crate) returned: Option<ReturnedFuture>,
    /// If it was an `async fn` before it got a runtime of its own.
    pub(crate) tokio: Option<TokioBody>,
    pub(crate) args: Vec<Arg>,
    pub(crate) body: Group,
}

/// What a function returns, as far as it can be written inside a body.
pub(crate) enum Output {
    Unit,
    Never,
    /// With `_` in the place of each `impl Trait`.
    Type(Box<Type>),
    /// What this boxed future returns.
    OfFuture(Box<Type>),
}

pub(crate) fn parse(tokens: TokenStream) -> Item {
    match Parsed::parse.parse2(tokens) {
        Ok(Parsed(item)) => item,
        // Reported even where the compiler reports it, too: a function must never go unguarded in silence.
        Err(error) => Item::Unfit(error),
    }
}

/// [`Item`], as something that can be parsed.
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
        let tokio = if sig.asyncness.is_none() { TokioBody::of(&body) } else { None };
        let returned =
            if sig.asyncness.is_none() && tokio.is_none() { ReturnedFuture::of(&sig) } else { None };
        if sig.asyncness.is_none() && returned.is_none() && tokio.is_none() {
            return unfit(
                sig.fn_token.span,
                "the attribute guards an `async fn`, or a function that returns a boxed future: make this one \
                 `async`, or guard the call inside it with `Breaker::call_blocking`",
            );
        }
        Ok(Parsed(Item::Function(Box::new(Function::new(attrs, vis, sig, returned, tokio, &body)?))))
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
        returned: Option<ReturnedFuture>,
        tokio: Option<TokioBody>,
        body: &Group,
    ) -> syn::Result<Self> {
        let body = tokio.as_ref().map_or(body, |tokio| &tokio.block);
        let args = sig.inputs.iter_mut().enumerate().map(|(index, input)| Arg::new(index, input)).collect();
        let (inner, body) = without_inner_attributes(body)?;
        attrs.extend(inner);
        Ok(Function { attrs, vis, sig, returned, tokio, args, body })
    }

    /// The receiver's `self`.
    pub(crate) fn receiver(&self) -> Option<&Arg> {
        self.args.first().filter(|arg| arg.is_receiver)
    }

    /// The type that the call returns, as it is written. `None` for `()` that is left out, and behind an
    /// alias of a future.
    fn written_output(&self) -> Option<&Type> {
        match (&self.returned, &self.sig.output) {
            (Some(returned), _) => returned.output.as_ref(),
            (None, ReturnType::Type(_, written)) => Some(written),
            (None, ReturnType::Default) => None,
        }
    }

    /// What the call returns, for the expansion.
    pub(crate) fn output(&self) -> Output {
        let alias = self.returned.as_ref().and_then(|returned| returned.boxed.as_ref());
        match (self.written_output(), alias) {
            (Some(written), _) if matches!(ungrouped(written), Type::Never(_)) => Output::Never,
            (Some(written), _) => {
                let mut output = written.clone();
                EraseOpaque.visit_type_mut(&mut output);
                Output::Type(Box::new(output))
            }
            (None, Some(alias)) => Output::OfFuture(Box::new(alias.clone())),
            (None, None) => Output::Unit,
        }
    }

    /// Where the type of what is returned begins, or else the function's name.
    pub(crate) fn output_span(&self) -> Span {
        match (self.written_output(), &self.sig.output) {
            (Some(written), _) => written.span(),
            (None, ReturnType::Type(_, alias)) => alias.span(),
            (None, ReturnType::Default) => self.sig.ident.span(),
        }
    }

    /// The first token in the type of what is returned that says it borrows or hides something.
    pub(crate) fn borrowed_or_opaque(&self) -> Option<Span> {
        match self.output() {
            Output::Unit | Output::Never => None,
            Output::Type(_) => find_borrow(&self.written_output()?.to_token_stream()),
            // The alias' own lifetime is the future's.
            Output::OfFuture(alias) => type_arguments(&alias).find_map(|ty| find_borrow(&ty)),
        }
    }

    /// The arguments' types, as far as their tokens tell, that iterate in another order in each process, or
    /// even in each of their values.
    pub(crate) fn unordered_types(&self) -> impl Iterator<Item = TokenTree> {
        self.sig.inputs.iter().filter_map(|input| match input {
            FnArg::Receiver(_) => None,
            FnArg::Typed(typed) => find(&typed.ty.to_token_stream(), &mut |token| {
                matches!(token, TokenTree::Ident(ident) if ident == "HashMap" || ident == "HashSet")
            }),
        })
    }
}

/// `'static` outside a reference borrows nothing that would end: `Cow<'static, str>` is read back as owned.
fn find_borrow(tokens: &TokenStream) -> Option<Span> {
    let mut tokens = tokens.clone().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_borrow = match &token {
            TokenTree::Group(group) => match find_borrow(&group.stream()) {
                Some(found) => return Some(found),
                None => false,
            },
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                !matches!(tokens.peek(), Some(TokenTree::Ident(name)) if name == "static")
            }
            TokenTree::Punct(punct) => punct.as_char() == '&',
            TokenTree::Ident(ident) => ident == "impl",
            TokenTree::Literal(_) => false,
        };
        if is_borrow {
            return Some(token.span());
        }
    }
    None
}

/// The types between the angle brackets of a path.
fn type_arguments(ty: &Type) -> impl Iterator<Item = TokenStream> {
    let last = match ty {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    };
    let arguments = match last.map(|last| &last.arguments) {
        Some(PathArguments::AngleBracketed(arguments)) => Some(&arguments.args),
        _ => None,
    };
    arguments.into_iter().flatten().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.to_token_stream()),
        _ => None,
    })
}

/// `#![allow(…)]` at the beginning of a body becomes an attribute of the function, because the body becomes a
/// block inside another one, where such an attribute cannot stand.
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
