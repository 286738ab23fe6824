//! What a whole registry is told from outside the code.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::BreakerConfig;
use crate::error::Error;

/// What an operator says about a registry and its breakers: readable by `serde` from any format, and by
/// `RegistryConfig::load` and `RegistryConfig::from_env` (feature `config`) from a TOML or YAML file and the
/// environment.
///
/// Given to [`RegistryBuilder::config`](crate::RegistryBuilder::config), and while it runs to
/// [`Registry::reload`](crate::Registry::reload). What it says wins over what the code says in the same place: `defaults` over
/// the builder's `defaults`, `breakers` over its `configure`. A breaker's settings are, field by field, the first of:
/// the operator's word (`breakers`, `configure`), the attribute's (or `get_or_create`'s), `defaults`, what is built in.
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
    /// The Redis that the fleet shares; see [`RegistryBuilder::redis`](crate::RegistryBuilder::redis). Read when the registry is built.
    pub redis: Option<String>,
    /// See [`RegistryBuilder::namespace`](crate::RegistryBuilder::namespace). Read when the registry is built.
    pub namespace: Option<String>,
    /// What holds for every breaker unless the attribute or the operator says otherwise.
    pub defaults: BreakerConfig,
    /// The operator's word about breakers, by name.
    pub breakers: BTreeMap<String, BreakerConfig>,
    /// What environment variables say about breakers, whose names they cannot spell.
    #[serde(skip)]
    pub(super) by_variable: BTreeMap<Folded, BreakerConfig>,
    #[serde(skip)]
    pub(super) sources: Sources,
}

/// A breaker's name as an environment variable can spell it: in lower case, `_` for everything that is not alphanumeric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Folded(pub(super) String);

impl Folded {
    pub(super) fn new(name: &str) -> Self {
        let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
        Folded(name.chars().map(plain).flat_map(char::to_lowercase).collect())
    }

    /// How the variables begin that speak of it.
    pub(super) fn variable(&self) -> String {
        format!("CB_BREAKERS__{}__…", self.0.to_uppercase())
    }
}

/// From which file or variable a key was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(BTreeMap<String, String>);

impl Sources {
    #[cfg(feature = "config")]
    pub(super) fn note(&mut self, key: String, source: &str) {
        self.0.insert(key, source.to_owned());
    }

    /// Says where the value stands that is wrong. `tables`: those that it may stand in, the strongest first.
    pub(super) fn locate(&self, error: Error, tables: &[&str]) -> Error {
        let Some(field) = error.field() else { return error };
        let keys = tables.iter().map(|table| format!("{table}.{field}"));
        match keys.filter_map(|key| self.0.get_key_value(&key)).next() {
            Some((key, source)) => error.at(source, key),
            None => error,
        }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: it may carry a password.
        f.debug_struct("RegistryConfig")
            .field("namespace", &self.namespace)
            .field("defaults", &self.defaults)
            .field("breakers", &self.breakers)
            .field("by_variable", &self.by_variable)
            .finish_non_exhaustive()
    }
}
