//! The breaker's name: fixed, or made of the function's arguments.

use proc_macro2::{Ident, Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Expr, ExprLit, Lit, LitStr, Member, Result, Token};

use crate::captures;
use crate::signature::Function;
use crate::tokens::unwrapped;

pub(crate) enum Name {
    /// One for all calls: a string literal, a constant, any expression of type `&'static str` that is known
    /// while compiling.
    Fixed(Expr),
    Pattern(Pattern),
}

/// A name with `{argument}` in it, as `format_args!` takes it.
pub(crate) struct Pattern {
    /// The name as it stands in the attribute, for the registry.
    pub(crate) written: LitStr,
    /// With `{}` in the places of the arguments.
    pub(crate) format: LitStr,
    /// What goes there, in this order.
    pub(crate) parts: Vec<TokenStream>,
    /// All of it goes there as it is, without a format: the parts tell the name from others.
    pub(crate) is_plain: bool,
}

impl Name {
    /// What the name mentions of the arguments.
    pub(crate) fn parts(&self) -> TokenStream {
        match self {
            Name::Fixed(_) => TokenStream::new(),
            Name::Pattern(pattern) => pattern.parts.iter().cloned().collect(),
        }
    }
}

/// Reads a name. Only a literal can have placeholders: what a constant holds is not known here.
pub(crate) fn parse(name: &Expr, function: &Function) -> Result<Name> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = unwrapped(name) else {
        return match captures::pattern_for(name, function) {
            Some(message) => Err(Error::new_spanned(name, message)),
            None => Ok(Name::Fixed(name.clone())),
        };
    };
    let written = text.value();
    if !written.contains(['{', '}']) {
        return Ok(Name::Fixed(name.clone()));
    }
    let mut reader = Reader {
        text,
        function,
        fixed: String::new(),
        format: String::new(),
        parts: Vec::new(),
        is_plain: true,
    };
    reader.read(&written)?;
    let Reader { fixed, format, parts, is_plain, .. } = reader;
    let literal = |value: &str| LitStr::new(value, text.span());
    if parts.is_empty() {
        let lit = Lit::Str(literal(&fixed));
        return Ok(Name::Fixed(Expr::Lit(ExprLit { attrs: Vec::new(), lit })));
    }
    // With a span of the expansion's, so that no lint on the user's code takes it for a forgotten `format!`.
    let written = LitStr::new(&written, Span::mixed_site());
    Ok(Name::Pattern(Pattern { written, format: literal(&format), parts, is_plain }))
}

struct Reader<'a> {
    text: &'a LitStr,
    function: &'a Function,
    /// What stands outside of placeholders, with one brace for two.
    fixed: String,
    format: String,
    parts: Vec<TokenStream>,
    is_plain: bool,
}

impl Reader<'_> {
    fn read(&mut self, mut rest: &str) -> Result<()> {
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            let brace = &from[..1];
            self.plain(before);
            rest = &from[1..];
            if let Some(after) = rest.strip_prefix(brace) {
                self.fixed.push_str(brace);
                self.format.push_str(brace);
                self.format.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return self.wrong("a `}` that nothing has opened; for a brace in the name write `}}`");
            } else {
                let Some((placeholder, after)) = rest.split_once('}') else {
                    return self.wrong("a `{` that nothing closes; for a brace in the name write `{{`");
                };
                self.placeholder(placeholder)?;
                rest = after;
            }
        }
        self.plain(rest);
        Ok(())
    }

    fn plain(&mut self, text: &str) {
        self.fixed.push_str(text);
        self.format.push_str(text);
    }

    /// `argument`, `self.field`, each perhaps with `:format` after it.
    fn placeholder(&mut self, placeholder: &str) -> Result<()> {
        let (argument, format) = match placeholder.split_once(':') {
            Some((argument, format)) => (argument.trim(), Some(format.trim_end())),
            None => (placeholder.trim(), None),
        };
        let part = self.part(argument)?;
        self.parts.push(part);
        self.format.push('{');
        if let Some(format) = format {
            if format.contains('$') {
                return self.wrong("a width or precision in the name is a number, not an argument");
            }
            self.is_plain = false;
            self.format.push(':');
            self.format.push_str(format);
        }
        self.format.push('}');
        Ok(())
    }

    /// An argument, or a field of one.
    fn part(&self, argument: &str) -> Result<TokenStream> {
        if argument.is_empty() || argument.bytes().all(|byte| byte.is_ascii_digit()) {
            return self
                .wrong(format_args!("`{{{argument}}}` does not say which argument; {}", self.there_are()));
        }
        let Ok((first, fields)) = path.parse_str(argument) else {
            return self.wrong(format_args!(
                "`{{{argument}}}` is neither an argument nor a field of one, such as `{{id}}` or `{{self.region}}`"
            ));
        };
        let Some(mut root) = self.arguments().find(|known| known.unraw() == first.unraw()) else {
            return self.wrong(format_args!("there is no argument `{first}`; {}", self.there_are()));
        };
        root.set_span(root.span().located_at(self.text.span()));
        let mut part = root.into_token_stream();
        part.extend(fields.into_iter().map(|mut token| {
            token.set_span(self.text.span());
            token
        }));
        Ok(part)
    }

    fn arguments(&self) -> impl Iterator<Item = Ident> {
        self.function.args.iter().flat_map(crate::signature::Arg::names)
    }

    fn there_are(&self) -> String {
        let all: Vec<_> = self.arguments().map(|name| format!("`{{{}}}`", name.unraw())).collect();
        match &all[..] {
            [] => "this function has no arguments".into(),
            [one] => format!("there is {one}"),
            _ => format!("there are {}", all.join(", ")),
        }
    }

    fn wrong<T>(&self, message: impl std::fmt::Display) -> Result<T> {
        Err(Error::new(self.text.span(), message))
    }
}

/// `name`, and `.field.0` after it.
fn path(input: ParseStream<'_>) -> Result<(Ident, TokenStream)> {
    let first = input.call(Ident::parse_any)?;
    let mut fields = TokenStream::new();
    while !input.is_empty() {
        input.parse::<Token![.]>()?.to_tokens(&mut fields);
        // The lexer takes `0.1` of `pair.0.1` for one number.
        if input.peek(syn::LitFloat) {
            input.parse::<syn::LitFloat>()?.to_tokens(&mut fields);
        } else if input.peek(syn::Lit) {
            input.parse::<Member>()?.to_tokens(&mut fields);
        } else {
            raw(input.call(Ident::parse_any)?).to_tokens(&mut fields);
        }
    }
    Ok((first, fields))
}

/// A field of a keyword's name as it has to be written in code: `self.r#type` for `{self.type}`.
fn raw(field: Ident) -> Ident {
    let text = field.to_string();
    let can_be_raw =
        !matches!(text.as_str(), "self" | "Self" | "super" | "crate" | "_") && !text.starts_with("r#");
    if can_be_raw && syn::parse_str::<Ident>(&text).is_err() {
        Ident::new_raw(&text, field.span())
    } else {
        field
    }
}
