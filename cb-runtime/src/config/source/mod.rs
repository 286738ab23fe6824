//! Reading a [`RegistryConfig`] from a file and the environment.
//!
//! The `config` crate parses and layers them, and records the origin of each value. Values are interpreted
//! and validated here.

mod names;
mod table;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use config::{Config, ConfigError, File, FileFormat, Source, Value};

use super::registry::{Folded, RegistryConfig};
use crate::error::{Error, ErrorKind, Misread};
use table::{Problems, entries, read_breaker, read_limits, read_text, read_timeout};
use variables::{NameTable, Variables};

/// The keys of a file.
const KEYS: [&str; 7] =
    ["redis", "namespace", "node", "response_timeout", "cache_limits", "defaults", "breakers"];

impl RegistryConfig {
    /// Reads a TOML or YAML file (`.toml`, `.yaml`, `.yml`). Environment variables take precedence over it;
    /// see [`from_env`](Self::from_env).
    ///
    /// ```toml
    /// redis = "redis://127.0.0.1:6379"
    /// namespace = "prod"
    ///
    /// [defaults]
    /// reset_timeout = "10s"
    ///
    /// [breakers.user-service]
    /// failure_threshold = 10
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read, or a key is unknown or a value invalid. The error names all of them, each
    /// with its file or variable and a valid value.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let shown = path.display().to_string();
        let whole = |problem: String| Error::new(ErrorKind::Outside(vec![misread(&shown, "", problem)]));
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => FileFormat::Toml,
            Some("yaml" | "yml") => FileFormat::Yaml,
            _ => {
                return Err(whole(
                    "ends neither in .toml nor in .yaml or .yml, so its format is not known".into(),
                ));
            }
        };
        super::environment::report_unknown();
        let text =
            std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
        read(Some((&shown, &text, format)), std::env::vars_os())
    }

    /// Reads the environment: `CB_REDIS_URL`, `CB_NAMESPACE`, `CB_INSTANCE`, `CB_RESPONSE_TIMEOUT=1s`,
    /// `CB_DEFAULTS__RESET_TIMEOUT=10s`, `CB_BREAKERS__USER_SERVICE__FAILURE_THRESHOLD=10`, and so on for
    /// every setting. The breaker may be "user-service" or "User.Service", because a variable has `_` for
    /// every character that is neither letter nor digit. A variable that matches two breakers is an error.
    ///
    /// # Errors
    /// If a setting is unknown or a value invalid. The error names each with its variable and a valid value.
    /// Other variables that begin with `CB_` are ignored, unless they are one or two letters away from a
    /// known one.
    pub fn from_env() -> Result<Self, Error> {
        super::environment::report_unknown();
        read(None, std::env::vars_os())
    }
}

fn misread(source: &str, key: &str, problem: String) -> Misread {
    Misread { source: source.to_owned(), key: key.to_owned(), field: None, problem }
}

/// `file`: its name, content and format.
fn read(
    file: Option<(&str, &str, FileFormat)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<RegistryConfig, Error> {
    let mut problems = Problems::new(file.map_or("", |(name, ..)| name));
    let variables = Variables::new(environment, &mut problems);
    let mut builder = Config::builder();
    let mut names = Vec::new();
    if let Some((name, text, format)) = file {
        let file = File::from_str(text, format);
        names = breakers_in(file.clone()).map_err(|error| unreadable(name, error))?;
        builder = builder.add_source(file);
    }
    let spelling = NameTable::new(&names, &variables, &mut problems);
    let merged = builder.add_source(variables.clone().spelled(spelling)).build();
    let merged = merged.map_err(|error| unreadable("the environment", error))?;
    let mut config = RegistryConfig::default();
    for (key, value) in entries(&merged.cache) {
        read_key(&mut config, key, value, &mut problems);
    }
    config.by_variable = by_variable(&variables, &mut config, &mut problems);
    problems.none()?;
    Ok(config)
}

/// The names of the breakers that the file has settings of.
fn breakers_in(file: impl Source + Send + Sync + 'static) -> Result<Vec<String>, ConfigError> {
    let parsed = Config::builder().add_source(file).build()?;
    let breakers = entries(&parsed.cache).into_iter().find(|(key, _)| *key == "breakers");
    let names = breakers.map_or_else(Vec::new, |(_, breakers)| entries(breakers));
    Ok(names.into_iter().map(|(name, _)| name.to_owned()).collect())
}

/// Reads a key of the registry into `config`.
fn read_key(config: &mut RegistryConfig, key: &str, value: &Value, problems: &mut Problems) {
    config.sources.note(key.to_owned(), &problems.source(value));
    match key {
        "redis" => config.redis = read_text("redis", value, problems),
        "namespace" => config.namespace = read_text("namespace", value, problems),
        "node" => config.node = read_text("node", value, problems),
        "response_timeout" => config.response_timeout = read_timeout("response_timeout", value, problems),
        "cache_limits" => config.cache_limits = read_limits("cache_limits", value, problems),
        "defaults" => config.defaults = read_breaker("defaults", value, &mut config.sources, problems),
        "breakers" => {
            problems.table("breakers", value);
            for (name, value) in entries(value) {
                let table = format!("breakers.{name}");
                let settings = read_breaker(&table, value, &mut config.sources, problems);
                config.breakers.insert(name.to_owned(), settings);
            }
        }
        unknown => problems.unknown("", unknown, value, &KEYS),
    }
}

/// The environment's settings of breakers that the file does not name.
fn by_variable(
    variables: &Variables,
    config: &mut RegistryConfig,
    problems: &mut Problems,
) -> BTreeMap<Folded, super::BreakerConfig> {
    let mut settings = BTreeMap::new();
    for (folded, table) in variables.by_breaker() {
        let named = config.breakers.keys().any(|name| Folded::new(name) == folded);
        let key = format!("breakers.{}", folded.0);
        // Problems of breakers that the file names are already reported.
        let mut known = Problems::new("");
        let problems = if named { &mut known } else { &mut *problems };
        settings.insert(folded, read_breaker(&key, &table, &mut config.sources, problems));
    }
    settings
}

fn unreadable(name: &str, error: ConfigError) -> Error {
    let problem = match error {
        ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    Error::new(ErrorKind::Outside(vec![misread(name, "", problem.trim_end().to_owned())]))
}

#[cfg(test)]
mod tests;
