//! Arguments and function together: what is wrong with them, and the plan for the expansion.

use std::collections::HashMap;

use proc_macro2::{Span, TokenStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, Result};

use crate::args::{Args, Errors};
use crate::name::{self, Name};
use crate::signature::Function;
use crate::tokens::unwrapped;
use crate::value::{Value, literal_count};
use crate::{captures, manifest};

/// As many arguments as `cb_runtime::attribute::Callable` is implemented for.
const MOST_FALLBACK_ARGS: usize = 12;

/// What the expansion is to do. It is valid, as far as its tokens can tell.
pub(crate) struct Plan {
    pub(crate) name: Name,
    /// `crate = …`
    pub(crate) runtime: Option<Expr>,
    pub(crate) registry: Option<Expr>,
    /// `config = …`
    pub(crate) base: Option<Expr>,
    /// Methods of `BreakerConfig` and what they are called with.
    pub(crate) settings: Vec<(Ident, Value)>,
    pub(crate) is_failure: Option<Expr>,
    pub(crate) open_for: Option<Expr>,
    /// Nothing but an `Err` can count as a failure.
    pub(crate) must_be_result: bool,
    pub(crate) cache: Option<Cache>,
    pub(crate) fallback: Option<Fallback>,
}

pub(crate) struct Cache {
    pub(crate) key: Option<Expr>,
    pub(crate) version: Option<Value>,
}

pub(crate) struct Fallback {
    pub(crate) function: Callee,
    pub(crate) on: On,
}

pub(crate) enum Callee {
    Path(Expr),
    /// `arity`: how many arguments of the function it takes, which is all of them.
    Closure {
        closure: Expr,
        arity: usize,
        takes_reason: bool,
    },
}

impl Callee {
    pub(crate) fn span(&self) -> Span {
        match self {
            Callee::Path(function) | Callee::Closure { closure: function, .. } => function.span(),
        }
    }
}

/// `fallback_on`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Any,
    Open,
    Error,
}

/// `errors` are those of reading the arguments. If there are any, missing arguments are not reported: they
/// may be there, misspelled.
pub(crate) fn plan(args: &Args, mut errors: Errors, function: &Function) -> Result<Plan> {
    let all_read = errors.is_empty();
    let mut values: HashMap<&str, Value> = HashMap::new();
    for given in args.iter() {
        if let Some(value) = errors.take(given.argument.kind.check(&given.value)) {
            values.insert(given.argument.name, value);
        }
    }
    if all_read {
        inconsistent(args, &values, function, &mut errors);
    }
    for given in args.iter().filter(|given| given.argument.is_setting || given.argument.name == "config") {
        errors.take(captures::check(&given.name, &given.value, function));
    }
    // Without a name there is an error, and no plan.
    let name = args.value("name").and_then(|name| errors.take(name::parse(name, function)));
    let name = name.unwrap_or_else(|| Name::Fixed(Expr::Verbatim(TokenStream::new())));
    let expression = |name| args.value(name).cloned();
    let settings = args
        .iter()
        .filter(|given| given.argument.is_setting)
        .filter_map(|given| Some((given.name.clone(), values.remove(given.argument.name)?)))
        .collect();
    let fallback = args.value("fallback").map(|given| Fallback {
        function: match errors.take(fallback_shape(unwrapped(given), function)).flatten() {
            Some(takes_reason) => {
                Callee::Closure { closure: given.clone(), arity: function.args.len(), takes_reason }
            }
            None => Callee::Path(given.clone()),
        },
        on: match values.get("fallback_on") {
            Some(Value::Text(word, _)) if word == "open" => On::Open,
            Some(Value::Text(word, _)) if word == "error" => On::Error,
            _ => On::Any,
        },
    });
    errors.or(Plan {
        name,
        runtime: expression("crate"),
        registry: expression("registry"),
        base: expression("config"),
        settings,
        is_failure: expression("is_failure"),
        open_for: expression("open_for"),
        must_be_result: !["is_failure", "open_for", "call_timeout", "config"]
            .iter()
            .any(|name| args.get(name).is_some()),
        cache: caches(args)
            .then(|| Cache { key: expression("cache_key"), version: values.remove("cache_version") }),
        fallback,
    })
}

/// Reports arguments that are missing, have no effect, or contradict each other.
fn inconsistent(args: &Args, valid: &HashMap<&str, Value>, function: &Function, errors: &mut Errors) {
    if args.get("name").is_none() {
        errors.add(
            Span::call_site(),
            "`name` is missing: which breaker guards this function? `name = \"user-service\"`",
        );
    }
    lonely(args, valid, errors);
    contradictory(args, errors);
    if caches(args) {
        cacheable(args, function, errors);
    }
    if args.get("crate").is_none()
        && let Some(problem) = manifest::problem()
    {
        errors.add(Span::call_site(), problem);
    }
}

/// Whether any argument of the cache is given; `config` may bring the TTL.
fn caches(args: &Args) -> bool {
    ["cache_ttl", "cache_key", "cache_version"].iter().any(|name| args.get(name).is_some())
}

/// The rules that judge a window.
const RULES_OF_A_WINDOW: &[&str] = &["failure_rate_threshold", "slow_call_rate_threshold", "strategy"];
/// The settings of a window.
const WINDOW: &[&str] = &["window", "window_calls", "minimum_calls"];

/// Reports arguments that have no effect without another one. If several arguments lack the same one, only
/// the first of them is reported.
fn lonely(args: &Args, valid: &HashMap<&str, Value>, errors: &mut Errors) {
    let mut needs = |names: &[&str], others: &[&str], how: &str, config_may_bring_it: bool| {
        let brought = config_may_bring_it && args.get("config").is_some();
        if let Some(given) = args.iter().find(|given| names.contains(&given.argument.name))
            // An invalid value has been reported already.
            && valid.contains_key(given.argument.name)
            && others.iter().all(|other| args.get(other).is_none())
            && !brought
        {
            let others: Vec<_> = others.iter().map(|other| format!("`{other}`")).collect();
            let (name, others) = (given.argument.name, others.join(" or "));
            errors.add(given.name.span(), format!("`{name}` means nothing without {others}: {how}"));
        }
    };
    needs(&["cache_key", "cache_version"], &["cache_ttl"], "add `cache_ttl = \"5m\"`", true);
    needs(&["fallback_on"], &["fallback"], "add `fallback = path_or_closure`", false);
    if !has_two_windows(args) {
        needs(WINDOW, RULES_OF_A_WINDOW, "add `failure_rate_threshold = 0.5`", true);
    }
    let how = "add `slow_call_duration = \"2s\"`";
    needs(&["slow_call_rate_threshold"], &["slow_call_duration"], how, true);
    let intervals = ["health_check_interval", "idle_health_check_interval"];
    needs(&intervals, &["health_check"], "add `health_check = path_or_closure`", true);
}

fn has_two_windows(args: &Args) -> bool {
    args.get("window").is_some() && args.get("window_calls").is_some()
}

/// Arguments that cannot both be in force.
fn contradictory(args: &Args, errors: &mut Errors) {
    if has_two_windows(args)
        && let Some(given) = args.get("window_calls")
    {
        let has_rule = RULES_OF_A_WINDOW.iter().chain(&["config"]).any(|rule| args.get(rule).is_some());
        let rule = if has_rule { "" } else { ", and add `failure_rate_threshold = 0.5`, which judges it" };
        errors.add(
            given.name.span(),
            format!(
                "the window is a span of time or a number of calls: leave out `window` or `window_calls`{rule}"
            ),
        );
    }
    let count = |name| args.value(name).and_then(literal_count);
    if let (Some(minimum), Some(calls)) = (count("minimum_calls"), count("window_calls"))
        && minimum > calls
        && let Some(value) = args.value("minimum_calls")
    {
        errors.push(Error::new_spanned(
            value,
            format!("the window never holds {minimum} calls, so the circuit could never open: `window_calls` is {calls}"),
        ));
    }
}

fn cacheable(args: &Args, function: &Function, errors: &mut Errors) {
    if args.get("cache_key").is_none() {
        if let Some(receiver) = function.receiver() {
            errors.add(
                receiver.type_span,
                "what of `self` tells one result from another? say so: `cache_key = expression`, such as \
                 `cache_key = (self.id, user_id)`",
            );
        } else {
            for unordered in function.unordered_types() {
                let ordered = unordered.to_string().replace("Hash", "BTree");
                errors.add(
                    unordered.span(),
                    format!(
                        "a `{unordered}` iterates in a random order, so equal arguments would get different keys: say \
                         what tells one result from another, `cache_key = expression`, or use a `{ordered}`"
                    ),
                );
            }
        }
    }
    if let Some(span) = function.borrowed_or_opaque() {
        errors.add(
            span,
            "a borrowed or opaque result cannot be cached, because it could not be read back: return an owned one, or \
             leave `cache_ttl` out",
        );
    }
}

/// Whether a closure takes the reason; `None` for a path, where the compiler finds that out.
fn fallback_shape(fallback: &Expr, function: &Function) -> Result<Option<bool>> {
    if let Some(beyond) = function.args.get(MOST_FALLBACK_ARGS) {
        return Err(Error::new(
            beyond.ident.span(),
            format!(
                "a function with a fallback may have {MOST_FALLBACK_ARGS} arguments: put some into a struct"
            ),
        ));
    }
    if let Some(arg) = function.args.iter().find(|arg| !arg.cfgs.is_empty()) {
        return Err(Error::new(
            arg.cfgs[0].span(),
            "a function with a fallback cannot have an argument that is only there at times: put the `cfg` on \
             two functions",
        ));
    }
    let Expr::Closure(closure) = fallback else { return Ok(None) };
    let (takes, given) = (closure.inputs.len(), function.args.len());
    if takes == given || takes == given + 1 {
        return Ok(Some(takes > given));
    }
    let plural = if given == 1 { "" } else { "s" };
    let this = if function.receiver().is_some() { ", the first of them `self`" } else { "" };
    Err(Error::new_spanned(
        fallback,
        format!(
            "this fallback takes {takes}, but it is given the function's {given} argument{plural}{this}, and may take \
             the reason after them"
        ),
    ))
}
