//! Environment variables: those that name the store, and those that begin as this crate's do and are none of
//! them.

use std::sync::Once;

use super::RegistryConfig;
use crate::error::Error;

const PREFIX: &str = "CB_";
const KNOWN: &[&str] = &["CB_REDIS_URL", "CB_NAMESPACE", "CB_INSTANCE"];
/// These are read with the feature `config`; the first two are prefixes.
const SETTINGS: &[&str] = &["CB_DEFAULTS__", "CB_BREAKERS__", "CB_RESPONSE_TIMEOUT"];
/// Read by cb-monitor.
const OTHERS: &[&str] = &["CB_MONITOR_", "CB_ACTOR"];

/// Warns of such variables, once per process: a misspelled one would otherwise have no effect in silence.
pub(crate) fn report_unknown() {
    static REPORTED: Once = Once::new();
    REPORTED.call_once(|| {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for problem in unknown(names, cfg!(feature = "config")) {
            tracing::warn!(target: "cb_runtime", "{problem}");
        }
    });
}

/// The address and the namespace, which are in force without the feature `config`, too, and beside settings
/// that are invalid.
///
/// # Errors
/// If one of them is not UTF-8: without its namespace, an instance would join another fleet.
pub(crate) fn read_store(config: &mut RegistryConfig) -> Result<(), Error> {
    let sources = &mut config.sources;
    let mut variable = |name, key: &str| match std::env::var_os(name).unwrap_or_default().into_string() {
        Ok(value) => {
            sources.note(key.into(), name);
            Ok(Some(value).filter(|value| !value.is_empty()))
        }
        Err(_) => Err(Error::config(name, "is not UTF-8")),
    };
    config.namespace = variable("CB_NAMESPACE", "namespace")?;
    config.redis = variable("CB_REDIS_URL", "redis")?;
    Ok(())
}

/// What to say about those among these variables. `has_settings`: whether this build reads breakers' settings
/// from variables.
fn unknown(names: impl Iterator<Item = String>, has_settings: bool) -> Vec<String> {
    let begins_with = |name: &str, known: &[&str]| known.iter().any(|known| name.starts_with(known));
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(&&**name) && !begins_with(name, OTHERS))
        .filter(|name| !(has_settings && begins_with(name, SETTINGS)))
        .collect();
    unknown.sort();
    let problem = |name: String| {
        if begins_with(&name, SETTINGS) {
            return format!(
                "the environment variable {name} is not read: that needs the feature `config` of cb-runtime"
            );
        }
        // The names are few, and differ in their first letters.
        match KNOWN.iter().find(|known| name.len() > PREFIX.len() && known.starts_with(&name)) {
            Some(known) => format!("the environment variable {name} is not read; did you mean {known}?"),
            None => format!(
                "the environment variable {name} is not read; cb-runtime reads {}, {}, {}… and {}…",
                KNOWN.join(", "),
                SETTINGS[2],
                SETTINGS[0],
                SETTINGS[1]
            ),
        }
    };
    unknown.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn unknown_variables_are_named_with_what_would_be_right() {
        let known =
            ["CB_REDIS_URL", "CB_NAMESPACE", "CB_INSTANCE", "CB_MONITOR_TOKEN", "CB_ACTOR", "PATH", "CBX"];
        let settings = ["CB_RESPONSE_TIMEOUT", "CB_DEFAULTS__WINDOW", "CB_BREAKERS__USERS__WINDOW"];
        let all = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter();
        assert!(unknown(all(&known), false).is_empty());
        assert!(unknown(all(&settings), true).is_empty());
        for (problem, name) in unknown(all(&settings), false).iter().zip(settings.iter().rev()) {
            let expected = format!(
                "the environment variable {name} is not read: that needs the feature `config` of cb-runtime"
            );
            assert_eq!(*problem, expected);
        }
        assert_eq!(
            unknown(all(&["CB_TIMEOUT", "CB_REDIS"]), true),
            [
                "the environment variable CB_REDIS is not read; did you mean CB_REDIS_URL?",
                "the environment variable CB_TIMEOUT is not read; cb-runtime reads CB_REDIS_URL, CB_NAMESPACE, CB_INSTANCE, \
                 CB_RESPONSE_TIMEOUT, CB_DEFAULTS__… and CB_BREAKERS__…",
            ]
        );
    }
}
