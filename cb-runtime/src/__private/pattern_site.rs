//! What an annotated function keeps whose breaker's name is made of its arguments: everything but the breaker.

use std::fmt::{self, Write};
use std::ptr::fn_addr_eq;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::SiteBreaker;
use super::site::MakeSettings;
use crate::breakers::KeyedSite;
use crate::config::BreakerConfig;
use crate::registry::Registry;

/// The static beside an annotated function whose breaker's name is made of its arguments. The breaker is looked up at
/// every call.
pub struct PatternSite {
    /// The name as it stands in the attribute.
    pattern: &'static str,
    first: OnceLock<KeyedSettings>,
    /// The settings of a generic function's other types; see `Site::others`.
    others: Mutex<Vec<&'static KeyedSettings>>,
}

/// What the attribute says, for one of a generic function's types.
struct KeyedSettings {
    made_by: MakeSettings,
    config: BreakerConfig,
    site: KeyedSite,
}

impl PatternSite {
    /// The site of a function with that name in its attribute.
    pub const fn new(pattern: &'static str) -> Self {
        PatternSite { pattern, first: OnceLock::new(), others: Mutex::new(Vec::new()) }
    }

    /// The breaker of that name in the global registry. `settings` is called once for each type of a generic function.
    #[inline]
    pub fn global(&'static self, name: fmt::Arguments<'_>, settings: MakeSettings) -> SiteBreaker {
        self.within(Registry::global(), name, settings)
    }

    /// The breaker of that name in a registry that the attribute names.
    pub fn within(
        &'static self,
        registry: &Registry,
        name: fmt::Arguments<'_>,
        settings: MakeSettings,
    ) -> SiteBreaker {
        let KeyedSettings { config, site, .. } = match self.first.get() {
            Some(first) if fn_addr_eq(first.made_by, settings) => first,
            _ => self.make(registry, settings),
        };
        let core = Name::of(name).with(|name| registry.keyed(name, config, *site));
        SiteBreaker::of(core, config)
    }

    #[cold]
    fn make(&'static self, registry: &Registry, settings: MakeSettings) -> &'static KeyedSettings {
        let new = || KeyedSettings::new(self.pattern, registry, settings);
        let first = self.first.get_or_init(new);
        if fn_addr_eq(first.made_by, settings) {
            return first;
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = others.iter().find(|other| fn_addr_eq(other.made_by, settings)) {
            return found;
        }
        let other: &'static KeyedSettings = Box::leak(Box::new(new()));
        others.push(other);
        other
    }
}

impl KeyedSettings {
    fn new(pattern: &'static str, registry: &Registry, made_by: MakeSettings) -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let mut config = made_by();
        if let Err(error) = config.validate() {
            registry.report(error);
            config = BreakerConfig::default();
        }
        let bit = 1 << (SITES.fetch_add(1, Ordering::Relaxed) % 64);
        KeyedSettings { made_by, config, site: KeyedSite { bit, pattern } }
    }
}

/// Names up to this length are made on the stack and used unchanged.
const SHORT: usize = 200;

/// A name while it is made: on the stack as long as it is short.
struct Name {
    bytes: [u8; SHORT],
    len: usize,
    /// All of it, once it is longer.
    long: String,
}

impl Name {
    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut name = Name { bytes: [0; SHORT], len: 0, long: String::new() };
        // An argument whose `Display` fails ends the name: a call must not fail for it.
        let _ = name.write_fmt(text);
        name
    }

    /// Shortens a longer name to its beginning and a digest of the whole. The result is longer than any short name, so no
    /// argument can be chosen for which one name collides with another.
    fn with<T>(self, then: impl FnOnce(&str) -> T) -> T {
        if self.long.is_empty() {
            let text = std::str::from_utf8(&self.bytes[..self.len]);
            return then(text.expect("whole texts have been put together"));
        }
        let digest = blake3::hash(self.long.as_bytes()).to_hex();
        let end =
            (SHORT..=self.long.len()).find(|at| self.long.is_char_boundary(*at)).expect("its end is one");
        let beginning = &self.long[..end];
        then(&format!("{beginning}~{digest}"))
    }
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        if self.long.is_empty() {
            if let Some(free) = self.bytes.get_mut(self.len..end) {
                free.copy_from_slice(text.as_bytes());
                self.len = end;
                return Ok(());
            }
            self.long.push_str(std::str::from_utf8(&self.bytes[..self.len]).expect("as above"));
        }
        self.long.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> String {
        // In pieces, as it comes from arguments.
        let middle = (text.len() / 2..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap();
        let (first, second) = text.split_at(middle);
        Name::of(format_args!("{first}{second}")).with(ToOwned::to_owned)
    }

    #[test]
    fn a_name_is_what_format_makes() {
        for text in ["", "tenant-1", "größe", &"x".repeat(SHORT)] {
            assert_eq!(name(text), text);
        }
    }

    #[test]
    fn a_long_name_is_bounded_and_still_its_own() {
        for filling in ["x", "ß", "🦀"] {
            let long = filling.repeat(100_000);
            let [one, other] = [format!("{long}1"), format!("{long}2")].map(|text| name(&text));
            assert_ne!(one, other);
            assert!(one.len() > SHORT && one.len() < 300, "{one}");
            assert_ne!(name(&one), one, "the shortened name is a name of its own");
        }
    }
}
