//! Reads the tables and values of a file or the environment.

use std::time::Duration;

use config::{Value, ValueKind};
use serde_json::json;

use super::names::advice;
use super::{Error, ErrorKind, Misread};
use crate::config::registry::Sources;
use crate::config::{BreakerConfig, CacheLimits};
use crate::timeouts::Timeouts;

/// Settings that only code can provide.
const IN_CODE_ONLY: [&str; 2] = ["strategy", "health_check"];

/// All problems, in the order in which they were found.
pub(super) struct Problems {
    /// The source of values without an origin.
    file: String,
    all: Vec<Misread>,
}

impl Problems {
    pub(super) fn new(file: &str) -> Self {
        Problems { file: file.to_owned(), all: Vec::new() }
    }

    pub(super) fn add(&mut self, source: &str, key: &str, field: Option<&'static str>, problem: String) {
        self.all.push(Misread { source: source.to_owned(), key: key.to_owned(), field, problem });
    }

    fn at(&mut self, key: &str, value: &Value, field: Option<&'static str>, problem: String) {
        let source = self.source(value);
        self.add(&source, key, field, problem);
    }

    /// The file or the variable. For a table with values from both, the variable, which takes precedence.
    pub(super) fn source(&self, value: &Value) -> String {
        let own = value.origin().map(str::to_owned);
        let inner = || entries(value).into_iter().find_map(|(_, value)| value.origin().map(str::to_owned));
        own.or_else(inner).unwrap_or_else(|| self.file.clone())
    }

    pub(super) fn unknown(&mut self, table: &str, key: &str, value: &Value, known: &[&str]) {
        let place = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        self.at(&place, value, None, format!("there is no such key; {}", advice(key, known)));
    }

    /// Reports a value that must be a table and is not.
    pub(super) fn table(&mut self, key: &str, value: &Value) {
        if !matches!(value.kind, ValueKind::Table(_) | ValueKind::Nil) {
            self.at(key, value, None, format!("{} is no table of settings", written(value)));
        }
    }

    pub(super) fn none(self) -> Result<(), Error> {
        if self.all.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Outside(self.all))) }
    }

    fn len(&self) -> usize {
        self.all.len()
    }
}

/// A table's entries by name. Empty if the value is not a table.
pub(super) fn entries(table: &Value) -> Vec<(&str, &Value)> {
    let ValueKind::Table(map) = &table.kind else { return Vec::new() };
    let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

pub(super) fn read_text(key: &str, value: &Value, problems: &mut Problems) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => return Some(text.clone()),
        // The message leaves the value out, which may contain a password.
        _ => problems.at(key, value, None, "must be a text".into()),
    }
    None
}

/// Reads the time limit of the store's answers.
pub(super) fn read_timeout(key: &'static str, value: &Value, problems: &mut Problems) -> Option<Duration> {
    let read = match plain(value).map(crate::config::span) {
        None => Err(format!("{} is no number", written(value))),
        Some(Err(problem)) => Err(in_words(&problem.to_string())),
        Some(Ok(None)) => return None,
        Some(Ok(Some(span))) => Timeouts::new(span).map(|_| span).map_err(|error| error.problem()),
    };
    read.map_err(|problem| problems.at(key, value, Some(key), problem)).ok()
}

/// Reads the limits of cached results.
pub(super) fn read_limits(key: &'static str, value: &Value, problems: &mut Problems) -> Option<CacheLimits> {
    let read = match plain(value).map(serde_path_to_error::deserialize::<_, Option<CacheLimits>>) {
        None => Err(format!("{} is no number", written(value))),
        Some(Err(problem)) => Err(in_words(&problem.to_string())),
        Some(Ok(None)) => return None,
        Some(Ok(Some(limits))) => limits.validate().map(|()| limits).map_err(|error| error.problem()),
    };
    read.map_err(|problem| problems.at(key, value, Some(key), problem)).ok()
}

/// Reads the settings of a breaker or the defaults from the table `name`.
pub(super) fn read_breaker(
    name: &str,
    table: &Value,
    sources: &mut Sources,
    problems: &mut Problems,
) -> BreakerConfig {
    let before = problems.len();
    problems.table(name, table);
    let readable: Vec<_> =
        BreakerConfig::NAMES.iter().copied().filter(|name| !IN_CODE_ONLY.contains(name)).collect();
    let (mut of_file, mut of_variables) = (BreakerConfig::default(), BreakerConfig::default());
    for (key, value) in entries(table) {
        let place = format!("{name}.{key}");
        let Some(field) = BreakerConfig::NAMES.iter().copied().find(|known| *known == key) else {
            problems.unknown(name, key, value, &readable);
            continue;
        };
        if IN_CODE_ONLY.contains(&field) {
            let problem = "is a piece of code; only an attribute or a builder can give it".into();
            problems.at(&place, value, Some(field), problem);
            continue;
        }
        sources.note(place.clone(), &problems.source(value));
        match plain(value).map(|value| BreakerConfig::of_one(field, value)) {
            Some(Ok(one)) => {
                let layer = if value.origin().is_some() { &mut of_variables } else { &mut of_file };
                *layer = one.or(std::mem::take(layer));
            }
            Some(Err(problem)) => problems.at(&place, value, Some(field), in_words(&problem)),
            None => problems.at(&place, value, Some(field), format!("{} is no number", written(value))),
        }
    }
    // A window of calls replaces one of time.
    let config = of_variables.over(&of_file);
    if problems.len() == before
        && let Err(error) = config.validate()
    {
        let field = error.field().unwrap_or_default();
        let value =
            entries(table).into_iter().find(|(key, _)| *key == field).map_or(table, |(_, value)| value);
        problems.at(&format!("{name}.{field}"), value, Some(field), error.problem());
    }
    config
}

/// The value without its origin, so that it is read as strictly as JSON. `None` if a number is out of range.
fn plain(value: &Value) -> Option<serde_json::Value> {
    Some(match &value.kind {
        ValueKind::Nil => serde_json::Value::Null,
        ValueKind::Boolean(value) => json!(value),
        ValueKind::I64(value) => json!(value),
        ValueKind::U64(value) => json!(value),
        ValueKind::I128(value) => json!(i64::try_from(*value).ok()?),
        ValueKind::U128(value) => json!(u64::try_from(*value).ok()?),
        ValueKind::Float(value) => serde_json::Value::Number(serde_json::Number::from_f64(*value)?),
        ValueKind::String(value) => json!(value),
        ValueKind::Table(table) => {
            let plain = table.iter().map(|(key, value)| Some((key.clone(), plain(value)?)));
            serde_json::Value::Object(plain.collect::<Option<_>>()?)
        }
        ValueKind::Array(array) => serde_json::Value::Array(array.iter().map(plain).collect::<Option<_>>()?),
    })
}

fn written(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    }
}

/// Replaces Rust's types in `serde`'s messages.
fn in_words(problem: &str) -> String {
    [
        ("expected u32", "expected a whole number, at least 1"),
        ("expected usize", "expected a whole number, at least 1"),
        ("expected f64", "expected a number"),
        ("expected struct CacheLimits", "expected a table with entries, bytes and result_bytes"),
        ("expected struct Backoff", "expected a table with factor, cap and jitter"),
        (
            "data did not match any variant of untagged enum Span",
            "must be a span of time: seconds (30) or units (\"1m 30s\", \"250ms\")",
        ),
    ]
    .into_iter()
    .fold(problem.to_owned(), |text, (types, words)| text.replace(types, words))
}
