//! Settings of a registry from outside the code.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::{BreakerConfig, CacheLimits};
use crate::error::Error;

/// An operator's settings of a registry and its breakers: readable by `serde` from any format, and by
/// `RegistryConfig::load` and `RegistryConfig::from_env` (feature `config`) from a TOML or YAML file and the
/// environment.
///
/// Given to [`RegistryBuilder::config`](crate::RegistryBuilder::config), and while it runs to
/// [`Registry::reload`](crate::Registry::reload). It takes precedence over the code's settings of the same
/// kind: `defaults` over the builder's `defaults`, `breakers` over its `configure`. A breaker's settings are,
/// field by field, the first of: the operator's (`breakers`, `configure`), the attribute's (or
/// `get_or_create`'s), `defaults`, the built-in one.
///
/// ```
/// use cb_runtime::{Registry, RegistryConfig};
///
/// let config: RegistryConfig = serde_json::from_str(r#"{
///     "defaults": {"reset_timeout": "10s"},
///     "breakers": {"user-service": {"failure_threshold": 10}}
/// }"#)?;
/// let registry = Registry::builder().config(config).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// The Redis that the fleet shares; see [`RegistryBuilder::redis`](crate::RegistryBuilder::redis). Read
    /// when the registry is built.
    pub redis: Option<String>,
    /// See [`RegistryBuilder::namespace`](crate::RegistryBuilder::namespace). Read when the registry is
    /// built.
    pub namespace: Option<String>,
    /// See [`RegistryBuilder::node`](crate::RegistryBuilder::node). Read when the registry is built.
    pub node: Option<String>,
    /// See [`RegistryBuilder::response_timeout`](crate::RegistryBuilder::response_timeout). Read when the
    /// registry is built.
    #[serde(deserialize_with = "super::span")]
    pub response_timeout: Option<Duration>,
    /// See [`RegistryBuilder::cache_limits`](crate::RegistryBuilder::cache_limits). Read when the registry is
    /// built.
    pub cache_limits: Option<CacheLimits>,
    /// Settings of every breaker that neither its attribute nor the operator sets.
    pub defaults: BreakerConfig,
    /// The operator's settings of breakers, by name.
    pub breakers: BTreeMap<String, BreakerConfig>,
    /// Settings from environment variables, in which not every breaker's name can be spelled.
    #[serde(skip)]
    pub(super) by_variable: BTreeMap<Folded, BreakerConfig>,
    #[serde(skip)]
    pub(super) sources: Sources,
}

impl RegistryConfig {
    /// Adds the file or variable that this key was read from to an error about its value.
    pub(crate) fn locate(&self, error: Error, key: &str) -> Error {
        match self.sources.0.get(key) {
            Some(source) => error.at(source, key),
            None => error,
        }
    }
}

/// See [`crate::feature`].
#[cfg(not(feature = "config"))]
#[doc(hidden)]
impl RegistryConfig {
    pub fn load<Path: crate::feature::Config>(_path: Path) -> Result<Self, Error> {
        Ok(Self::default())
    }

    pub fn from_env() -> Result<Self, Error>
    where
        // With `for`, the compiler reports the missing implementation at a call instead of here.
        for<'a> Self: crate::feature::Config,
    {
        Ok(Self::default())
    }
}

/// A breaker's name as spelled in environment variables: in lower case, with `_` for characters that are not
/// alphanumeric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Folded(pub(super) String);

impl Folded {
    pub(super) fn new(name: &str) -> Self {
        let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
        Folded(name.chars().map(plain).flat_map(char::to_lowercase).collect())
    }

    /// The prefix of its variables.
    pub(super) fn variable(&self) -> String {
        format!("CB_BREAKERS__{}__…", self.0.to_uppercase())
    }
}

/// The file or variable that each key was read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(BTreeMap<String, String>);

impl Sources {
    pub(super) fn note(&mut self, key: String, source: &str) {
        self.0.insert(key, source.to_owned());
    }

    /// Adds the source of the invalid value to an error. `tables`: the tables that may have it, in order of
    /// precedence.
    pub(super) fn locate(&self, error: Error, tables: &[&str]) -> Error {
        let Some(field) = error.field() else { return error };
        let mut keys = tables.iter().map(|table| format!("{table}.{field}"));
        match keys.find_map(|key| self.0.get_key_value(&key)) {
            Some((key, source)) => error.at(source, key),
            None => error,
        }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address is left out, because it may contain a password.
        f.debug_struct("RegistryConfig")
            .field("namespace", &self.namespace)
            .field("node", &self.node)
            .field("response_timeout", &self.response_timeout)
            .field("defaults", &self.defaults)
            .field("breakers", &self.breakers)
            .field("by_variable", &self.by_variable)
            .finish_non_exhaustive()
    }
}
