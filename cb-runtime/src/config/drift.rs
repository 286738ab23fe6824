//! A summary of a breaker's settings for the fleet, and the difference between two summaries.

use std::sync::Arc;

use super::{BreakerConfig, Settings};
use crate::store::MAX_SETTINGS;

/// The summary of settings that are all built in.
const BUILT_IN: &str = "built-in";
const BETWEEN: &str = "; ";
/// The key of a digest, which replaces values beyond the length limit.
const DIGEST: &str = "digest";

impl Settings {
    /// The settings that differ from the built-in ones: `failure_threshold=3; reset_timeout=1m`. Equal
    /// settings have equal summaries. Settings of functions (`call_timeout`, `cache_ttl`) are left out.
    pub(crate) fn line(&self) -> Arc<str> {
        let mine = self.written().into_iter().zip(built_in());
        let given = mine.filter(|(mine, built_in)| mine != built_in);
        let parts: Vec<_> = given.map(|((name, value), _)| format!("{name}={}", one_line(&value))).collect();
        let line = parts.join(BETWEEN);
        match line.len() {
            0 => BUILT_IN.into(),
            length if length <= MAX_SETTINGS => line.into(),
            _ => {
                let digest = format!("{DIGEST}={:.16}", blake3::hash(line.as_bytes()).to_hex());
                let mut room = MAX_SETTINGS - digest.len();
                let fits = |part: &&String| {
                    let fits = part.len() + BETWEEN.len() <= room;
                    room -= if fits { part.len() + BETWEEN.len() } else { 0 };
                    fits
                };
                let mut kept: Vec<_> = parts.iter().filter(fits).map(String::as_str).collect();
                kept.push(&digest);
                kept.join(BETWEEN).into()
            }
        }
    }
}

/// The settings that differ, with both values. Empty if none differs.
pub(crate) fn differences(here: &str, elsewhere: &str) -> String {
    let mut names: Vec<_> = built_in().into_iter().map(|(name, _)| name).collect();
    names.push(DIGEST);
    let of_each = names.into_iter().filter_map(|name| {
        let (here, elsewhere) = (value(here, name), value(elsewhere, name));
        (here != elsewhere).then(|| format!("{name} is {here} here and {elsewhere} there"))
    });
    let known: Vec<_> = of_each.collect();
    if known.is_empty() && here != elsewhere {
        // The other summary is from another version, or not a summary.
        return format!("\"{here}\" here and \"{}\" there", one_line(elsewhere));
    }
    known.join(", ")
}

/// The settings of a line, by name; those that are built in are not in it.
pub(crate) fn parsed(line: &str) -> std::collections::BTreeMap<String, String> {
    let parts = line.split(BETWEEN).filter_map(|part| part.split_once('='));
    parts.map(|(name, value)| (one_line(name), one_line(value))).collect()
}

fn value(line: &str, name: &str) -> String {
    let mut given = line.split(BETWEEN).filter_map(|part| part.split_once('='));
    match given.find(|(given, _)| *given == name) {
        Some((_, value)) => one_line(value),
        None => {
            built_in().into_iter().find(|(n, _)| *n == name).map_or_else(|| "none".into(), |(_, value)| value)
        }
    }
}

fn built_in() -> Vec<(&'static str, String)> {
    BreakerConfig::default().resolve().expect("the built-in settings are valid").written()
}

/// Removes control characters and separators, which type names and foreign summaries may contain.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ").replace(BETWEEN, ", ")
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;
    use std::time::Duration;

    use super::*;
    use crate::strategy::{TripStrategy, WindowCounts};

    fn line(config: BreakerConfig) -> Arc<str> {
        config.resolve().unwrap().line()
    }

    #[test]
    fn summary_has_only_settings_that_differ_from_the_built_in_ones() {
        let config = BreakerConfig::default();
        assert_eq!(&*line(config.clone()), "built-in");
        assert_eq!(
            &*line(config.clone().failure_threshold(5).call_timeout(Duration::from_secs(1))),
            "built-in"
        );
        assert_eq!(
            &*line(config.clone().failure_threshold(3).reset_timeout(Duration::from_secs(90))),
            "failure_threshold=3; reset_timeout=1m 30s"
        );
        assert_eq!(
            &*line(config.failure_rate_threshold(0.5)),
            "failure_threshold=off; failure_rate_threshold=0.5; window=1m"
        );
    }

    #[test]
    fn differences_have_both_values_even_if_one_is_built_in() {
        let here = line(BreakerConfig::default().failure_threshold(3).success_threshold(2));
        let there = line(BreakerConfig::default().success_threshold(2).half_open_max_calls(1));
        assert_eq!(
            differences(&here, &there),
            "failure_threshold is 3 here and 5 there, half_open_max_calls is 3 here and 1 there"
        );
        assert_eq!(differences(&here, &here), "");
        assert_eq!(
            differences(&here, "what\nis this"),
            "failure_threshold is 3 here and 5 there, success_threshold is 2 here and 3 there"
        );
        assert_eq!(differences("built-in", "depth=3"), "\"built-in\" here and \"depth=3\" there");
    }

    #[test]
    fn digest_distinguishes_summaries_that_are_too_long() {
        struct Named<T>(PhantomData<T>);
        impl<T: Send + Sync + 'static> TripStrategy for Named<T> {
            fn trip(&self, _: &WindowCounts<'_>) -> Option<String> {
                None
            }
        }
        fn named<T: Send + Sync + 'static>() -> Arc<str> {
            line(BreakerConfig::default().failure_threshold(3).strategy(Named::<T>(PhantomData)))
        }
        type Pair<T> = (T, T);
        type Long = Pair<Pair<Pair<Pair<Pair<Pair<String>>>>>>;
        let (one, other) = (named::<(Long, u8)>(), named::<(Long, u16)>());
        assert!(
            one.len() <= MAX_SETTINGS
                && one.starts_with("failure_threshold=3; ")
                && one.contains("; digest="),
            "{one}"
        );
        assert!(differences(&one, &other).starts_with("digest is "));
    }
}
