//! The static of an annotated function: its breaker, looked up once.

use std::ops::Deref;
use std::panic::Location;
use std::ptr::fn_addr_eq;
use std::sync::{Mutex, OnceLock};

use crate::breakers::SiteBreaker;
use crate::config::BreakerConfig;
use crate::name;
use crate::registry::Registry;
use crate::sync::lock;

/// The function that makes the attribute's settings. A generic function has one static for all its types,
/// but one settings function for each of them.
pub type MakeSettings = fn() -> BreakerConfig;

/// Where an attribute stands.
type AttributePlace = &'static Location<'static>;

/// The static in an annotated function whose breaker has a fixed name.
pub struct Site {
    name: &'static str,
    at: AttributePlace,
    /// The breaker of the first call. Most sites have no other.
    first: OnceLock<SiteEntry>,
    /// The breakers of a generic function's other types, in the registry of the first call. Like the static,
    /// they are never dropped. Their number is limited by the types that the program is compiled for.
    others: Mutex<Vec<&'static SiteEntry>>,
}

/// A breaker, with the registry and the settings that it was looked up by.
struct SiteEntry {
    registry: u64,
    settings: MakeSettings,
    breaker: SiteBreaker,
}

/// The settings of an attribute without `config`.
pub fn settings() -> BreakerConfig {
    BreakerConfig::default()
}

impl Site {
    /// # Panics
    /// While compiling, if the name is empty.
    #[track_caller]
    pub const fn new(name: &'static str) -> Self {
        assert!(!name.is_empty(), "the breaker's name is empty");
        Site { name, at: Location::caller(), first: OnceLock::new(), others: Mutex::new(Vec::new()) }
    }

    /// This function's breaker in the global registry. `settings` is called once.
    #[inline]
    pub fn global(&'static self, settings: MakeSettings) -> &'static SiteBreaker {
        #[cfg(feature = "test-util")]
        if let Some(scoped) = self.scoped(settings) {
            return scoped;
        }
        match self.first.get() {
            Some(entry) => &entry.breaker,
            None => &self.first(Registry::global(), settings).breaker,
        }
    }

    /// This function's breaker in the global registry, where the settings may depend on the types that the
    /// function is called with. `settings` is called once for each type.
    #[inline]
    pub fn global_by_type(&'static self, settings: MakeSettings) -> &'static SiteBreaker {
        #[cfg(feature = "test-util")]
        if let Some(scoped) = self.scoped(settings) {
            return scoped;
        }
        match self.first.get() {
            Some(entry) if fn_addr_eq(entry.settings, settings) => &entry.breaker,
            _ => self.other(Registry::global(), settings),
        }
    }

    /// This function's breaker in a registry that its attribute names. Each call may name another registry.
    #[inline]
    pub fn within(&'static self, registry: &Registry, settings: MakeSettings) -> SiteBreakerRef {
        let entry = match self.first.get() {
            Some(entry) => entry,
            None => self.first(registry, settings),
        };
        if entry.registry != registry.id() {
            SiteBreakerRef::Owned(Box::new(site_breaker(self.name, registry, settings, self.at)))
        } else if fn_addr_eq(entry.settings, settings) {
            SiteBreakerRef::Static(&entry.breaker)
        } else {
            SiteBreakerRef::Static(self.other(registry, settings))
        }
    }

    #[cold]
    fn first(&'static self, registry: &Registry, settings: MakeSettings) -> &'static SiteEntry {
        self.first.get_or_init(|| SiteEntry::new(self, registry, settings))
    }

    #[cold]
    fn other(&'static self, registry: &Registry, settings: MakeSettings) -> &'static SiteBreaker {
        let first = self.first(registry, settings);
        if first.is_of(registry, settings) {
            return &first.breaker;
        }
        self.find_or_leak(registry, settings)
    }

    /// This function's breaker in the registry of the current test.
    #[cfg(feature = "test-util")]
    fn scoped(&'static self, settings: MakeSettings) -> Option<&'static SiteBreaker> {
        crate::testing::scoped().map(|registry| self.find_or_leak(&registry, settings))
    }

    fn find_or_leak(&'static self, registry: &Registry, settings: MakeSettings) -> &'static SiteBreaker {
        let mut others = lock(&self.others);
        if let Some(found) = others.iter().find(|entry| entry.is_of(registry, settings)) {
            return &found.breaker;
        }
        let entry: &'static SiteEntry = Box::leak(Box::new(SiteEntry::new(self, registry, settings)));
        others.push(entry);
        &entry.breaker
    }
}

impl SiteEntry {
    fn is_of(&self, registry: &Registry, settings: MakeSettings) -> bool {
        self.registry == registry.id() && fn_addr_eq(self.settings, settings)
    }

    fn new(site: &Site, registry: &Registry, settings: MakeSettings) -> Self {
        let breaker = site_breaker(site.name, registry, settings, site.at);
        SiteEntry { registry: registry.id(), settings, breaker }
    }
}

fn site_breaker(
    name: &'static str,
    registry: &Registry,
    settings: MakeSettings,
    at: AttributePlace,
) -> SiteBreaker {
    // This comes first, because the core takes its name for the errors of rejected calls.
    name::keep(name);
    let settings = settings();
    let core = registry.core(name, &settings, at);
    // The registry has reported and dropped invalid settings.
    let (valid, _) = settings.valid_part();
    SiteBreaker::of(core, &valid)
}

/// A breaker in the requested registry.
pub enum SiteBreakerRef {
    /// The breaker that the site keeps.
    Static(&'static SiteBreaker),
    /// Looked up for this call.
    Owned(Box<SiteBreaker>),
}

impl Deref for SiteBreakerRef {
    type Target = SiteBreaker;

    #[inline]
    fn deref(&self) -> &SiteBreaker {
        match self {
            SiteBreakerRef::Static(breaker) => breaker,
            SiteBreakerRef::Owned(breaker) => breaker,
        }
    }
}
