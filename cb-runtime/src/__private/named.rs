//! What an annotated function keeps whose breaker's name is made of its arguments: all but the breaker.

use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::SiteBreaker;
use crate::breakers::KeyedSite;
use crate::config::BreakerConfig;
use crate::registry::Registry;

/// The static beside such a function. Its breaker is looked up at every call.
pub struct NamedSite {
    /// The name as it stands in the attribute.
    pattern: &'static str,
    said: OnceLock<Said>,
}

/// What the attribute says.
struct Said {
    config: BreakerConfig,
    site: KeyedSite,
}

impl NamedSite {
    pub const fn new(pattern: &'static str) -> Self {
        NamedSite { pattern, said: OnceLock::new() }
    }

    /// The breaker of that name in the global registry. `settings` is what the attribute says; it is asked for once.
    #[inline]
    pub fn global(&self, name: fmt::Arguments<'_>, settings: fn() -> BreakerConfig) -> SiteBreaker {
        self.within(Registry::global(), name, settings)
    }

    /// The breaker of that name in a registry that the attribute names.
    pub fn within(
        &self,
        registry: &Registry,
        name: fmt::Arguments<'_>,
        settings: fn() -> BreakerConfig,
    ) -> SiteBreaker {
        let Said { config, site } = match self.said.get() {
            Some(said) => said,
            None => self.ask(registry, settings),
        };
        let core = Name::of(name).with(|name| registry.keyed(name, config, *site));
        SiteBreaker::of(core, config)
    }

    #[cold]
    fn ask(&self, registry: &Registry, settings: fn() -> BreakerConfig) -> &Said {
        static SITES: AtomicU32 = AtomicU32::new(0);
        self.said.get_or_init(|| {
            let mut config = settings();
            if let Err(error) = config.validate() {
                registry.report(error);
                config = BreakerConfig::default();
            }
            let bit = 1 << (SITES.fetch_add(1, Ordering::Relaxed) % 64);
            Said { config, site: KeyedSite { bit, pattern: self.pattern } }
        })
    }
}

/// Names up to this length are made on the stack, and are used as they are.
const SHORT: usize = 200;

/// A name as it is made: on the stack while it is short.
struct Name {
    bytes: [u8; SHORT],
    len: usize,
    /// All of it, once it is longer.
    long: String,
}

impl Name {
    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut name = Name { bytes: [0; SHORT], len: 0, long: String::new() };
        // An argument that cannot be printed ends the name; there is nobody here to tell.
        let _ = name.write_fmt(text);
        name
    }

    /// A name that is longer becomes its beginning and a digest of all of it. That is longer than any short
    /// name, so that nobody can choose an argument for which it comes out as another's.
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
            assert_ne!(name(&one), one, "whoever asks for that name gets another breaker");
        }
    }
}
