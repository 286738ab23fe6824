//! The layers above and below the attribute, for all breakers of a registry.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::registry::{Folded, Sources};
use super::{BreakerConfig, PerFunction, RegistryConfig, Settings};
use crate::error::Error;
use crate::snapshot::{Origin, Setting};
use crate::sync::lock;

/// The layers from the code that builds a registry, without a file and the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    pub(crate) defaults: BreakerConfig,
    pub(crate) operator: HashMap<String, BreakerConfig>,
}

/// The operator's settings and the defaults. For every name, they resolve without an attribute's layer.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    defaults: BreakerConfig,
    operator: HashMap<String, BreakerConfig>,
    by_variable: BTreeMap<Folded, BreakerConfig>,
    /// The breakers that variables apply to: the first with a matching name; see [`claim`](Self::claim).
    claimed: Mutex<HashMap<Folded, String>>,
    sources: Sources,
}

impl Layers {
    /// # Errors
    /// If a setting is invalid, or a variable matches two breakers.
    pub(crate) fn new(code: &Code, outside: &RegistryConfig) -> Result<Layers, Error> {
        code.defaults.validate()?;
        let mut layers = Layers {
            defaults: outside.defaults.over(&code.defaults),
            operator: code.operator.clone(),
            by_variable: outside.by_variable.clone(),
            claimed: Mutex::default(),
            sources: outside.sources.clone(),
        };
        let none = BreakerConfig::default();
        layers
            .together(&none, &none)
            .resolve()
            .map_err(|error| layers.sources.locate(error, &["defaults"]))?;
        for (name, config) in &outside.breakers {
            let own = layers.operator.entry(name.clone()).or_default();
            *own = config.over(own);
        }
        let mut names: Vec<_> = layers.operator.keys().cloned().collect();
        names.sort();
        for name in names {
            layers.claim(&name)?;
            layers.resolve(&name, &none)?;
        }
        for (folded, config) in &layers.by_variable {
            let settings = layers.together(config, &none).resolve();
            settings.map_err(|error| layers.locate(error, &folded.0))?;
        }
        Ok(layers)
    }

    /// Registers a breaker's name: a variable that matches it applies to this breaker only.
    ///
    /// # Errors
    /// If the variable already applies to another breaker.
    pub(crate) fn claim(&self, name: &str) -> Result<(), Error> {
        if self.by_variable.is_empty() {
            return Ok(());
        }
        let folded = Folded::new(name);
        if !self.by_variable.contains_key(&folded) {
            return Ok(());
        }
        let variable = folded.variable();
        let mut claimed = lock(&self.claimed);
        let first = claimed.entry(folded).or_insert_with(|| name.to_owned());
        if first == name {
            return Ok(());
        }
        let problem = format!(
            "may mean the breakers \"{first}\" and \"{name}\", so it holds for the first of them only; \
             say it in a file, where names can be told apart"
        );
        Err(Error::config("name", problem).at(&variable, ""))
    }

    /// The breakers that the operator has settings for. One that only variables name is spelled as they do,
    /// until it is registered.
    pub(crate) fn configured(&self) -> Vec<String> {
        let claimed = lock(&self.claimed);
        let by_variable = self.by_variable.keys().filter(|folded| !claimed.contains_key(folded));
        self.operator.keys().cloned().chain(by_variable.map(|folded| folded.0.clone())).collect()
    }

    /// Whether the operator has settings for this breaker.
    pub(crate) fn configures(&self, name: &str) -> bool {
        self.operator.contains_key(name) || self.of_variables(name).is_some()
    }

    /// The settings that variables give this breaker.
    fn of_variables(&self, name: &str) -> Option<&BreakerConfig> {
        if self.by_variable.is_empty() {
            return None;
        }
        let folded = Folded::new(name);
        let is_meant = lock(&self.claimed).get(&folded).is_some_and(|first| first == name);
        self.by_variable.get(&folded).filter(|_| is_meant)
    }

    /// The operator's settings of this breaker.
    pub(crate) fn operator(&self, name: &str) -> BreakerConfig {
        let own = self.operator.get(name).cloned().unwrap_or_default();
        match self.of_variables(name) {
            Some(variables) => variables.over(&own),
            None => own,
        }
    }

    /// Resolves all settings of a breaker with this attribute layer.
    ///
    /// # Errors
    /// If the layers contradict each other.
    pub(crate) fn resolve(&self, name: &str, attribute: &BreakerConfig) -> Result<Settings, Error> {
        let settings = self.together(&self.operator(name), attribute).resolve();
        settings.map_err(|error| self.locate(error, name))
    }

    /// As [`resolve`](Self::resolve), without the attribute's settings that are invalid: each is left out
    /// with an error, all others stay in force.
    pub(crate) fn resolve_leniently(
        &self,
        name: &str,
        attribute: &BreakerConfig,
    ) -> (BreakerConfig, Settings, Vec<Error>) {
        let (mut attribute, mut errors) = (attribute.clone(), Vec::new());
        loop {
            match self.resolve(name, &attribute) {
                Ok(settings) => return (attribute, settings, errors),
                Err(error) => {
                    // The invalid field is left out, or all fields: the other layers resolve without the
                    // attribute.
                    let rest = error.field().and_then(|field| attribute.without(field));
                    attribute = rest.unwrap_or_default();
                    errors.push(error);
                }
            }
        }
    }

    /// Drops `slow_call_rate_threshold` when no layer sets `slow_call_duration`: an attribute may set it
    /// later, and a default threshold applies only to breakers that have a duration.
    fn together(&self, operator: &BreakerConfig, attribute: &BreakerConfig) -> BreakerConfig {
        let mut all = operator.over(&attribute.over(&self.defaults));
        let is_default = operator.slow_call_rate_threshold.or(attribute.slow_call_rate_threshold).is_none();
        if all.slow_call_duration.is_none() && (is_default || !attribute.is_about_the_breaker()) {
            all.slow_call_rate_threshold = None;
        }
        all
    }

    fn locate(&self, error: Error, name: &str) -> Error {
        let tables = [name, &Folded::new(name).0].map(|name| format!("breakers.{name}"));
        self.sources.locate(error, &[&tables[0], &tables[1], "defaults"])
    }

    pub(crate) fn per_function(&self, name: &str) -> PerFunction {
        PerFunction::new(&self.operator(name), &self.defaults)
    }

    /// Every setting with its value and origin. `in_force`: the breaker's current settings.
    pub(crate) fn shown(&self, name: &str, attribute: &BreakerConfig, in_force: &Settings) -> Vec<Setting> {
        let operator = self.operator(name);
        let given = self.together(&operator, attribute).given();
        let names =
            |layer: &BreakerConfig| layer.given().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let (operator, attribute) = (names(&operator), names(attribute));
        let shown = |(name, built_in): (&'static str, String)| match given.iter().find(|(n, _)| *n == name) {
            None => Setting { name, value: built_in, origin: Origin::BuiltIn },
            Some((_, value)) => {
                let origin = if operator.contains(&name) {
                    Origin::Operator
                } else if attribute.contains(&name) {
                    Origin::Attribute
                } else {
                    Origin::Defaults
                };
                Setting { name, value: value.clone(), origin }
            }
        };
        let per_function = ["call_timeout", "cache_ttl"].map(|name| (name, OFF.to_owned()));
        in_force.written().into_iter().chain(per_function).map(shown).collect()
    }
}

/// The value of a setting that is not set and has no default.
pub(super) const OFF: &str = "off";
