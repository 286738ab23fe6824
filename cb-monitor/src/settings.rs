//! The settings of the fleet's instances: a breaker's limits, and the instances that differ.

use std::collections::BTreeMap;

use cb_runtime::InstanceSettings;
use serde::Serialize;

/// Built-in values, which instances leave out of their settings.
const FAILURE_THRESHOLD: &str = "5";
const HALF_OPEN_MAX_CALLS: u32 = 3;

/// All breakers' settings in all instances.
#[derive(Debug, Default)]
pub(crate) struct FleetSettings {
    by_breaker: BTreeMap<String, Vec<InstanceSettings>>,
    /// Those of keyed breakers, with the parts of their names between the keys.
    patterns: Vec<(Vec<String>, String)>,
}

/// A breaker's limits in most instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Limits {
    /// The active rules, in one line.
    pub(crate) text: String,
    pub(crate) failure_rate: Option<f64>,
    /// The number of concurrent probes.
    pub(crate) probes: u32,
}

impl FleetSettings {
    pub(crate) fn new(by_breaker: BTreeMap<String, Vec<InstanceSettings>>) -> FleetSettings {
        let patterns = by_breaker.keys().filter_map(|name| Some((parts_of(name)?, name.clone()))).collect();
        FleetSettings { by_breaker, patterns }
    }

    /// The breakers whose settings differ between instances.
    pub(crate) fn drifting(&self) -> Vec<String> {
        let differs = |(_, instances): &(&String, &Vec<InstanceSettings>)| {
            instances.iter().any(|instance| instance.drift)
        };
        self.by_breaker.iter().filter(differs).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, Vec<InstanceSettings>> {
        &self.by_breaker
    }

    /// A breaker's settings by instance. Those of a keyed breaker have the name in its attribute.
    pub(crate) fn of(&self, name: &str) -> &[InstanceSettings] {
        let label = match self.by_breaker.get(name) {
            Some(instances) => return instances,
            None => self.patterns.iter().find(|(parts, _)| fits(parts, name)).map(|(_, label)| label),
        };
        label.and_then(|label| self.by_breaker.get(label)).map_or(&[], Vec::as_slice)
    }

    /// `None` if no instance has published its settings.
    pub(crate) fn limits(&self, name: &str) -> Option<Limits> {
        let usual = self.of(name).iter().find(|instance| !instance.drift)?;
        let setting =
            |name: &str| usual.settings.get(name).map(String::as_str).filter(|value| *value != "off");
        let mut rules = Vec::new();
        let streak = usual.settings.get("failure_threshold").map_or(FAILURE_THRESHOLD, String::as_str);
        if streak != "off" {
            rules.push(format!("{streak} failures in a row"));
        }
        if let Some(rate) = setting("failure_rate_threshold") {
            let window = setting("window").or(setting("window_calls"));
            let within = window.map_or_else(String::new, |window| match window.parse::<u32>() {
                Ok(calls) => format!(" in the last {calls} calls"),
                Err(_) => format!(" in {window}"),
            });
            rules.push(format!("{} failures{within}", percent(rate)));
        }
        if let Some(rate) = setting("slow_call_rate_threshold") {
            rules.push(format!("{} slow calls", percent(rate)));
        }
        if setting("strategy").is_some() {
            rules.push("a strategy of its own".into());
        }
        let number = |name: &str| setting(name).and_then(|value| value.parse().ok());
        Some(Limits {
            text: rules.join(" or "),
            failure_rate: setting("failure_rate_threshold").and_then(|value| value.parse().ok()),
            probes: number("half_open_max_calls").unwrap_or(HALF_OPEN_MAX_CALLS),
        })
    }
}

fn percent(value: &str) -> String {
    value.parse::<f64>().map_or_else(|_| value.into(), |rate| format!("{:.0} %", rate * 100.0))
}

/// The text around the keys of a keyed breaker's name: of `tenant-{id}`, `tenant-` and nothing. `None` for a
/// name without keys.
fn parts_of(name: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('{') {
        let (_key, after) = after.split_once('}')?;
        parts.push(before.to_owned());
        rest = after;
    }
    parts.push(rest.to_owned());
    (parts.len() > 1).then_some(parts)
}

fn fits(parts: &[String], name: &str) -> bool {
    let [first, between @ .., last] = parts else { return false };
    let inner = name.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last));
    let Some(mut rest) = inner else { return false };
    between.iter().all(|part| match rest.split_once(&**part) {
        Some((_key, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use cb_runtime::{BreakerConfig, Registry};

    use super::*;

    #[test]
    fn keyed_names_fit_their_pattern_and_no_other() {
        let fits = |pattern: &str, name: &str| fits(&parts_of(pattern).unwrap(), name);
        assert!(fits("tenant-{id}", "tenant-7") && fits("{region}/{id}", "eu/7"));
        assert!(fits("a-{x}-{y}-z", "a-1-2-z") && fits("{id}", ""));
        assert!(!fits("tenant-{id}", "tenan-7") && !fits("{region}/{id}", "eu7") && !fits("a{x}a", "a"));
        assert_eq!((parts_of("orders"), parts_of("orders-{"), parts_of("a}b")), (None, None, None));
    }

    #[tokio::test]
    async fn values_that_are_not_told_are_the_built_in_ones() {
        let registry = Registry::builder().build().unwrap();
        let breaker = registry.get_or_create("orders", BreakerConfig::default());
        let built_in = |name: &str| {
            let settings = breaker.snapshot().settings;
            settings.iter().find(|setting| setting.name == name).unwrap().value.clone()
        };
        assert_eq!(built_in("failure_threshold"), FAILURE_THRESHOLD);
        assert_eq!(built_in("half_open_max_calls"), HALF_OPEN_MAX_CALLS.to_string());
    }
}
