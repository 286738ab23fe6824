//! Environment variables as a source of settings.

use std::collections::BTreeMap;
use std::ffi::OsString;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::names::nearest;
use super::table::Problems;
use crate::config::BreakerConfig;
use crate::config::registry::Folded;

const PREFIX: &str = "CB_";
const BETWEEN: &str = "__";

/// The variables of this crate, sorted.
#[derive(Clone, Debug)]
pub(super) struct Variables(Vec<Variable>);

#[derive(Clone, Debug)]
struct Variable {
    /// The name in the environment.
    name: String,
    part: Part,
    /// The keys of the setting, and within it.
    keys: Vec<String>,
    value: ValueKind,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// A key of the whole registry.
    Registry(&'static str),
    Defaults,
    Breaker(Folded),
}

impl Variables {
    pub(super) fn new(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        problems: &mut Problems,
    ) -> Self {
        let mut all = Vec::new();
        for (name, value) in environment {
            let Ok(name) = name.into_string() else { continue };
            let Some((part, keys)) = name.strip_prefix(PREFIX).and_then(|rest| parse(&name, rest, problems))
            else {
                continue;
            };
            let Ok(value) = value.into_string() else {
                problems.add(&name, "", None, "is not UTF-8".into());
                continue;
            };
            // An empty variable counts as unset.
            if !value.is_empty() {
                let value = if keys.is_empty() { ValueKind::String(value) } else { typed(value) };
                all.push(Variable { name, part, keys, value });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Variables(all)
    }

    /// The variables as a source with these breaker names.
    pub(super) fn spelled(self, spelling: NameTable) -> KnownName {
        KnownName { variables: self, spelling }
    }

    /// The settings of breakers, each as a table.
    pub(super) fn by_breaker(&self) -> BTreeMap<Folded, Value> {
        let mut tables = BTreeMap::new();
        for variable in &self.0 {
            if let Part::Breaker(folded) = &variable.part {
                let table = tables.entry(folded.clone()).or_insert_with(empty);
                variable.put(table, &variable.keys);
            }
        }
        tables
    }
}

impl Variable {
    /// Inserts the value under these keys.
    fn put(&self, table: &mut Value, keys: &[String]) {
        let [key, rest @ ..] = keys else {
            *table = Value::new(Some(&self.name), self.value.clone());
            return;
        };
        if !matches!(table.kind, ValueKind::Table(_)) {
            *table = empty();
        }
        if let ValueKind::Table(map) = &mut table.kind {
            self.put(map.entry(key.clone()).or_insert_with(empty), rest);
        }
    }
}

fn empty() -> Value {
    Value::new(None, Map::<String, Value>::new())
}

/// The part and the keys of the configuration that a variable sets. `None` for other variables.
fn parse(name: &str, rest: &str, problems: &mut Problems) -> Option<(Part, Vec<String>)> {
    let missing = |problems: &mut Problems, shape: &str| {
        problems.add(name, "", None, format!("names no setting; write {shape}"));
        None
    };
    match (rest, rest.split_once(BETWEEN)) {
        ("REDIS_URL", _) => Some((Part::Registry("redis"), Vec::new())),
        ("NAMESPACE", _) => Some((Part::Registry("namespace"), Vec::new())),
        ("INSTANCE", _) => Some((Part::Registry("node"), Vec::new())),
        ("RESPONSE_TIMEOUT", _) => Some((Part::Registry("response_timeout"), Vec::new())),
        (_, Some(("DEFAULTS", keys))) => {
            Some((Part::Defaults, keys.split(BETWEEN).map(str::to_lowercase).collect()))
        }
        (_, Some(("BREAKERS", rest))) => match split_breaker(rest) {
            Some((breaker, keys)) => Some((Part::Breaker(Folded::new(breaker)), keys)),
            None => missing(problems, "CB_BREAKERS__<NAME>__<SETTING>"),
        },
        ("DEFAULTS", _) => missing(problems, "CB_DEFAULTS__<SETTING>"),
        ("BREAKERS", _) => missing(problems, "CB_BREAKERS__<NAME>__<SETTING>"),
        (whole, table) => {
            let near = match table {
                Some((head, _)) => {
                    nearest(head, &["defaults", "breakers"]).map(|known| format!("{known}__…"))
                }
                None => nearest(whole, &["redis_url", "namespace", "instance", "response_timeout"])
                    .map(str::to_owned),
            };
            if let Some(near) = near {
                let problem =
                    format!("there is no such variable; did you mean {PREFIX}{}?", near.to_uppercase());
                problems.add(name, "", None, problem);
            }
            None
        }
    }
}

/// A breaker's name may contain `__`, so the setting is the last part.
fn split_breaker(rest: &str) -> Option<(&str, Vec<String>)> {
    let (before, last) =
        rest.rsplit_once(BETWEEN).filter(|(name, key)| !name.is_empty() && !key.is_empty())?;
    let last = last.to_lowercase();
    if !BreakerConfig::NAMES.contains(&&*last)
        && let Some((name, "BACKOFF")) = before.rsplit_once(BETWEEN)
        && !name.is_empty()
    {
        return Some((name, vec!["backoff".into(), last]));
    }
    Some((before, vec![last]))
}

/// Parses numbers, as a file's parser does.
fn typed(text: String) -> ValueKind {
    let trimmed = text.trim();
    if let Ok(number) = trimmed.parse::<i64>() {
        return ValueKind::I64(number);
    }
    // Excludes inf and nan, which Rust parses as numbers.
    let number = trimmed.parse::<f64>().ok().filter(|_| trimmed.contains(|c: char| c.is_ascii_digit()));
    number.map_or(ValueKind::String(text), ValueKind::Float)
}

/// The file's breakers that variables apply to.
#[derive(Clone, Debug)]
pub(super) struct NameTable(BTreeMap<Folded, String>);

impl NameTable {
    /// `names`: the breakers in the file.
    pub(super) fn new(names: &[String], variables: &Variables, problems: &mut Problems) -> Self {
        let mut spelled: BTreeMap<Folded, String> = BTreeMap::new();
        for name in names {
            let folded = Folded::new(name);
            let means_it = |variable: &&Variable| variable.part == Part::Breaker(folded.clone());
            let Some(variable) = variables.0.iter().find(means_it) else { continue };
            if let Some(other) = spelled.get(&folded) {
                let problem = format!(
                    "may mean the breakers \"{other}\" and \"{name}\"; say it in the file, where names can be told apart"
                );
                problems.add(&variable.name, "", None, problem);
            } else {
                spelled.insert(folded, name.clone());
            }
        }
        NameTable(spelled)
    }
}

/// The variables as a source beside a file, without breakers that the file does not name.
#[derive(Clone, Debug)]
pub(super) struct KnownName {
    variables: Variables,
    spelling: NameTable,
}

impl Source for KnownName {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let mut all = empty();
        for variable in &self.variables.0 {
            let mut keys = match &variable.part {
                Part::Registry(key) => vec![(*key).to_owned()],
                Part::Defaults => vec!["defaults".to_owned()],
                Part::Breaker(folded) => match self.spelling.0.get(folded) {
                    Some(name) => vec!["breakers".to_owned(), name.clone()],
                    None => continue,
                },
            };
            keys.extend(variable.keys.iter().cloned());
            variable.put(&mut all, &keys);
        }
        all.into_table()
    }
}
