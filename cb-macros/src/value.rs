//! The kinds of values that arguments take, and what can be checked while compiling.

use std::time::Duration;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ExprUnary, Lit, LitFloat, Result, UnOp};

use crate::tokens::unwrapped;

/// The longest span that any setting may have: ten years, as in `BreakerConfig`.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The largest counts, as in `BreakerConfig`.
pub(crate) const MOST_CALLS: u64 = 1_000_000;
pub(crate) const MOST_WINDOW_CALLS: u64 = 10_000;
pub(crate) const MOST_INSTANCES: u64 = 32;

/// What an argument takes.
#[derive(Clone, Copy)]
pub(crate) enum ValueKind {
    /// The name of a breaker.
    Name,
    /// A path or a closure.
    Function,
    /// One of these, in quotes.
    Word(&'static [&'static str]),
    /// A whole number, at least 1 and at most this.
    Count(u64),
    /// Greater than 0, at most 1.
    Rate,
    /// A span of time, no shorter than the limit.
    Span(Limit),
    /// A text or a number, or a `&str` expression.
    Version,
    /// Anything.
    Expression,
    /// A path to a module.
    Path,
}

#[derive(Clone, Copy)]
pub(crate) enum Limit {
    Milliseconds(u64),
    Microseconds(u64),
}

/// A checked value, as the expansion needs it.
pub(crate) enum Value {
    /// The expression itself.
    Written(Expr),
    /// A rate that is written as a whole number.
    Float(LitFloat),
    Span(Duration, Span),
    Text(String, Span),
}

impl ValueKind {
    /// For "`x` needs a value: `x = …`".
    pub(crate) fn example(self) -> &'static str {
        match self {
            ValueKind::Name => "\"user-service\"",
            ValueKind::Function => "path_or_closure",
            ValueKind::Word(words) => words[0],
            ValueKind::Count(_) => "5",
            ValueKind::Rate => "0.5",
            ValueKind::Span(_) => "\"30s\"",
            ValueKind::Version => "\"2\"",
            ValueKind::Expression => "expression",
            ValueKind::Path => "path::to::cb_runtime",
        }
    }

    pub(crate) fn check(self, value: &Expr) -> Result<Value> {
        match self {
            ValueKind::Name => name(value),
            ValueKind::Function => function(value),
            ValueKind::Word(words) => word(value, words),
            ValueKind::Count(most) => count(value, most),
            ValueKind::Rate => rate(value),
            ValueKind::Span(limit) => span(value, limit),
            ValueKind::Version => Ok(version(value)),
            ValueKind::Expression => Ok(Value::Written(value.clone())),
            ValueKind::Path => path(value),
        }
    }
}

/// A count that is written as a number.
pub(crate) fn literal_count(value: &Expr) -> Option<u64> {
    match literal(value) {
        Some((false, Lit::Int(number))) => number.base10_parse().ok(),
        _ => None,
    }
}

/// A literal with its sign.
fn literal(value: &Expr) -> Option<(bool, &Lit)> {
    match unwrapped(value) {
        Expr::Lit(ExprLit { lit, .. }) => Some((false, lit)),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => match unwrapped(expr) {
            Expr::Lit(ExprLit { lit, .. }) => Some((true, lit)),
            _ => None,
        },
        _ => None,
    }
}

fn wrong<T>(at: &impl quote::ToTokens, message: impl std::fmt::Display) -> Result<T> {
    Err(Error::new_spanned(at, message))
}

fn name(value: &Expr) -> Result<Value> {
    match literal(value) {
        Some((false, Lit::Str(text))) if text.value().trim().is_empty() => {
            wrong(value, "a breaker needs a name; functions with one name share a breaker")
        }
        Some((false, Lit::Str(_))) | None => Ok(Value::Written(value.clone())),
        Some(_) => wrong(value, "a name is a text: `name = \"user-service\"`"),
    }
}

fn function(value: &Expr) -> Result<Value> {
    match unwrapped(value) {
        Expr::Path(_) | Expr::Closure(_) => Ok(Value::Written(value.clone())),
        Expr::Call(_) => wrong(value, "give the function itself, without calling it: a path or a closure"),
        Expr::Lit(ExprLit { lit: Lit::Str(_), .. }) => {
            wrong(value, "give the function itself, without quotes: a path or a closure")
        }
        _ => wrong(value, "not a function: give a path or a closure"),
    }
}

fn word(value: &Expr, words: &[&str]) -> Result<Value> {
    let all: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match literal(value) {
        Some((false, Lit::Str(text))) if words.contains(&text.value().as_str()) => {
            Ok(Value::Text(text.value(), text.span()))
        }
        _ => wrong(value, format!("expected one of {}", all.join(", "))),
    }
}

fn count(value: &Expr, most: u64) -> Result<Value> {
    match literal(value) {
        None => Ok(Value::Written(value.clone())),
        Some((false, Lit::Int(number))) => match number.base10_parse::<u64>() {
            Ok(0) => wrong(value, "0 would never let it act; it must be at least 1"),
            Ok(n) if n <= most => Ok(Value::Written(value.clone())),
            _ => wrong(value, format!("out of range; it must be at most {most}")),
        },
        Some((true, Lit::Int(_))) => wrong(value, "a count of calls; it must be at least 1"),
        Some(_) => wrong(value, "a count of calls is a whole number, such as 5"),
    }
}

fn rate(value: &Expr) -> Result<Value> {
    let (negative, number, as_float) = match literal(value) {
        None => return Ok(Value::Written(value.clone())),
        Some((negative, Lit::Float(number))) => (negative, number.base10_parse::<f64>().ok(), None),
        Some((negative, Lit::Int(number))) => {
            let float = LitFloat::new(&format!("{}.0", number.base10_digits()), number.span());
            (negative, number.base10_parse::<f64>().ok(), Some(float))
        }
        Some(_) => return wrong(value, "a rate is a number greater than 0 and at most 1, such as 0.5"),
    };
    match number {
        Some(rate) if !negative && rate > 0.0 && rate <= 1.0 => {
            Ok(as_float.map_or_else(|| Value::Written(value.clone()), Value::Float))
        }
        Some(rate) if !negative && rate > 1.0 && rate <= 100.0 => wrong(
            value,
            format!(
                "not a rate; it must be greater than 0 and at most 1: for {rate} % write {}",
                rate / 100.0
            ),
        ),
        _ => wrong(value, "not a rate; it must be greater than 0 and at most 1"),
    }
}

fn span(value: &Expr, limit: Limit) -> Result<Value> {
    const HOW: &str = "not a duration: write 300 (seconds), \"5m\" or a Duration expression";
    let span = match literal(value) {
        None => return Ok(Value::Written(value.clone())),
        Some((true, _)) => return wrong(value, HOW),
        Some((false, Lit::Int(seconds))) if seconds.suffix().is_empty() => {
            seconds.base10_parse().ok().map(Duration::from_secs)
        }
        Some((false, Lit::Float(seconds))) if seconds.suffix().is_empty() => {
            seconds.base10_parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        }
        Some((false, Lit::Str(text))) => match text.value().trim().parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Err(_) => humantime::parse_duration(text.value().trim()).ok(),
        },
        Some(_) => None,
    };
    let least = match limit {
        Limit::Milliseconds(n) => Duration::from_millis(n),
        Limit::Microseconds(n) => Duration::from_micros(n),
    };
    match span {
        None => wrong(value, HOW),
        Some(span) if span.is_zero() => wrong(value, "0 is not a span of time; it must be longer"),
        Some(span) if span < least => wrong(value, format!("too short; it must be at least {least:?}")),
        Some(span) if span > LONGEST => wrong(value, "longer than ten years; is the unit right?"),
        Some(span) => Ok(Value::Span(span, value.span())),
    }
}

fn version(value: &Expr) -> Value {
    match literal(value) {
        Some((false, Lit::Int(number))) => Value::Text(number.to_string(), number.span()),
        _ => Value::Written(value.clone()),
    }
}

fn path(value: &Expr) -> Result<Value> {
    match value {
        Expr::Path(path) if path.qself.is_none() => Ok(Value::Written(value.clone())),
        Expr::Lit(ExprLit { lit: Lit::Str(_), .. }) => {
            wrong(value, "give the path without quotes: `crate = path::to::cb_runtime`")
        }
        _ => wrong(value, "not a path: `crate = path::to::cb_runtime`"),
    }
}
