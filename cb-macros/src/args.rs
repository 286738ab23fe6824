//! What is written in the attribute's parentheses: `argument = value, …`, as a table.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, Expr, Ident, Result, Token};

use crate::foreign;
use crate::value::{Limit, MOST_CALLS, MOST_INSTANCES, MOST_WINDOW_CALLS, ValueKind};

/// An argument that the attribute knows.
pub(crate) struct Argument {
    pub(crate) name: &'static str,
    pub(crate) kind: ValueKind,
    /// Whether it is a setting of the `BreakerConfig`, which has a method of that name.
    pub(crate) is_setting: bool,
}

const fn setting(name: &'static str, kind: ValueKind) -> Argument {
    Argument { name, kind, is_setting: true }
}

const fn other(name: &'static str, kind: ValueKind) -> Argument {
    Argument { name, kind, is_setting: false }
}

/// All arguments, in the order of the documentation.
pub(crate) const ARGUMENTS: &[Argument] = &[
    other("name", ValueKind::Name),
    other("fallback", ValueKind::Function),
    other("fallback_on", ValueKind::Word(&["any", "open", "error"])),
    setting("cache_ttl", ValueKind::Span(Limit::Milliseconds(1))),
    other("cache_key", ValueKind::Expression),
    other("cache_version", ValueKind::Version),
    setting("failure_threshold", ValueKind::Count(MOST_CALLS)),
    setting("failure_rate_threshold", ValueKind::Rate),
    setting("window", ValueKind::Span(Limit::Milliseconds(100))),
    setting("window_calls", ValueKind::Count(MOST_WINDOW_CALLS)),
    setting("minimum_calls", ValueKind::Count(MOST_CALLS)),
    setting("slow_call_duration", ValueKind::Span(Limit::Microseconds(1))),
    setting("slow_call_rate_threshold", ValueKind::Rate),
    setting("strategy", ValueKind::Expression),
    setting("min_failing_instances", ValueKind::Count(MOST_INSTANCES)),
    setting("reset_timeout", ValueKind::Span(Limit::Milliseconds(1))),
    setting("backoff", ValueKind::Expression),
    setting("half_open_max_calls", ValueKind::Count(MOST_CALLS)),
    setting("success_threshold", ValueKind::Count(MOST_CALLS)),
    setting("recovery_rate", ValueKind::Rate),
    setting("ramp_up", ValueKind::Span(Limit::Milliseconds(100))),
    setting("health_check", ValueKind::Function),
    setting("health_check_interval", ValueKind::Span(Limit::Milliseconds(10))),
    setting("idle_health_check_interval", ValueKind::Span(Limit::Milliseconds(10))),
    setting("call_timeout", ValueKind::Span(Limit::Microseconds(1))),
    other("is_failure", ValueKind::Function),
    other("open_for", ValueKind::Function),
    other("config", ValueKind::Expression),
    other("registry", ValueKind::Expression),
    other("crate", ValueKind::Path),
];

/// An argument as it is given.
pub(crate) struct Given {
    pub(crate) argument: &'static Argument,
    pub(crate) name: Ident,
    pub(crate) value: Expr,
}

/// The arguments that are given; no two have the same name.
pub(crate) struct Args(Vec<Given>);

impl Args {
    pub(crate) fn get(&self, name: &str) -> Option<&Given> {
        debug_assert!(ARGUMENTS.iter().any(|argument| argument.name == name), "{name}");
        self.0.iter().find(|given| given.argument.name == name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Expr> {
        self.get(name).map(|given| &given.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Given> {
        self.0.iter()
    }
}

/// Reads all arguments; on errors, goes on with the next one, so that all are reported at once.
pub(crate) fn parse(tokens: TokenStream) -> (Args, Errors) {
    let parser = |input: ParseStream<'_>| {
        let mut given: Vec<Given> = Vec::new();
        let mut errors = Errors::default();
        while !input.is_empty() {
            match one(input) {
                Ok(new) if given.iter().any(|old| old.argument.name == new.argument.name) => {
                    errors.push(Error::new(new.name.span(), format!("`{}` is given twice", new.name)));
                }
                Ok(new) => given.push(new),
                Err(error) => {
                    errors.push(error);
                    skip_to_next(input);
                }
            }
            if !input.is_empty() && !input.peek(Token![,]) {
                errors.push(input.error("expected a comma, and then the next argument"));
                skip_to_next(input);
            }
            input.parse::<Option<Token![,]>>()?;
        }
        Ok((Args(given), errors))
    };
    // The parser reads to the end in any case.
    parser.parse2(tokens).unwrap_or_else(|error| (Args(Vec::new()), Errors(Some(error))))
}

fn one(input: ParseStream<'_>) -> Result<Given> {
    if input.peek(syn::Lit) {
        return Err(input.error("arguments have names: write `name = \"…\"`"));
    }
    let name = input
        .call(Ident::parse_any)
        .map_err(|error| Error::new(error.span(), "expected an argument, such as `name = \"…\"`"))?;
    let Some(argument) = ARGUMENTS.iter().find(|argument| name == argument.name) else {
        if input.peek(Token![=]) {
            // Reads past its value: the commas in it do not begin the next argument.
            let _ = input.parse::<Token![=]>().and_then(|_| input.parse::<Expr>());
        }
        return Err(unknown(&name));
    };
    let is_assigned = input.parse::<Option<Token![=]>>()?.is_some();
    if !is_assigned || input.is_empty() || input.peek(Token![,]) {
        return Err(Error::new(
            name.span(),
            format!("`{name}` needs a value: `{name} = {}`", argument.kind.example()),
        ));
    }
    let value = value(input, &name)?;
    Ok(Given { argument, name, value })
}

fn value(input: ParseStream<'_>, name: &Ident) -> Result<Expr> {
    let begin = input.fork();
    input.parse().map_err(|error| {
        // A value that breaks off at the end is reported at its last token; the parser would report it at the
        // whole attribute.
        let tokens: TokenStream = begin.parse().unwrap_or_default();
        let ends_there = syn::parse2::<Complete>(tokens.clone())
            .is_err_and(|error| error.to_string().starts_with("unexpected end of input"));
        match tokens.into_iter().last() {
            Some(last) if ends_there => Error::new(
                last.span(),
                format!("the value of `{name}` breaks off here: an expression must follow"),
            ),
            _ => error,
        }
    })
}

/// An expression, and then anything.
struct Complete;

impl Parse for Complete {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        input.parse::<Expr>()?;
        input.parse::<TokenStream>()?;
        Ok(Complete)
    }
}

/// Moves to the comma before the next `argument =`, past what could not be read.
fn skip_to_next(input: ParseStream<'_>) {
    while !input.is_empty() {
        if input.peek(Token![,]) && (input.peek2(Ident::peek_any) || input.peek2(syn::Lit)) {
            return;
        }
        // A token tree can always be read where there is one.
        let _ = input.parse::<proc_macro2::TokenTree>();
    }
}

fn unknown(name: &Ident) -> Error {
    let text = name.to_string();
    let message = if let Some(answer) = foreign::answer(&text) {
        format!("unknown argument `{text}`; {answer}")
    } else if let Some(known) = nearest(&text) {
        format!("unknown argument `{text}`; did you mean `{known}`?")
    } else {
        let all: Vec<_> = ARGUMENTS.iter().map(|argument| argument.name).collect();
        format!("unknown argument `{text}`; there are {}", all.join(", "))
    };
    Error::new(name.span(), message)
}

/// The argument that was most probably meant: the one that begins or ends with the text, or the one with the
/// fewest letters to change, if they are few.
pub(crate) fn nearest(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let part = ARGUMENTS.iter().map(|argument| argument.name).find(|known| {
        known.len() > lower.len()
            && lower.len() >= 3
            && (known.ends_with(&format!("_{lower}")) || known.starts_with(&format!("{lower}_")))
    });
    let typo = ARGUMENTS
        .iter()
        .map(|argument| (distance(&lower, argument.name), argument.name))
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .min();
    match (typo, part) {
        (Some((distance, known)), part) if distance <= 2 || part.is_none() => Some(known),
        (_, part) => part,
    }
}

/// How many letters to insert, remove, replace or swap with the next one to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    table[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                replaced.min(swapped).min(table[i - 1][j] + 1).min(table[i][j - 1] + 1)
            };
        }
    }
    table[a.len()][b.len()]
}

/// Errors, in the order of their discovery.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            none => *none = Some(error),
        }
    }

    pub(crate) fn add(&mut self, span: Span, message: impl std::fmt::Display) {
        self.push(Error::new(span, message));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of a step that may have gone wrong.
    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn or<T>(self, value: T) -> Result<T> {
        match self.0 {
            Some(error) => Err(error),
            None => Ok(value),
        }
    }
}
