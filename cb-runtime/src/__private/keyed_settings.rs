//! The settings of an annotated function whose breaker's name contains arguments.

use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};

use super::site::MakeSettings;
use crate::breakers::KeyedSite;
use crate::config::BreakerConfig;
use crate::registry::Registry;

/// The attribute's settings. A generic function has one for each of its types.
pub(super) struct KeyedSettings {
    pub(super) made_by: MakeSettings,
    /// Distinguishes it from all others; given in the order of first calls.
    number: u32,
    pub(super) config: BreakerConfig,
    pub(super) site: KeyedSite,
}

impl KeyedSettings {
    #[cfg(test)]
    #[track_caller]
    pub(super) fn of_test() -> &'static Self {
        let site = KeyedSite { bit: 1, pattern: "tenant-{id}", at: Location::caller() };
        Box::leak(Box::new(KeyedSettings {
            made_by: super::settings,
            number: 0,
            config: BreakerConfig::default(),
            site,
        }))
    }

    #[inline]
    pub(super) fn number(&self) -> u64 {
        self.number.into()
    }

    pub(super) fn new(
        pattern: &'static str,
        at: &'static Location<'static>,
        registry: &Registry,
        made_by: MakeSettings,
    ) -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let (config, errors) = made_by().valid_part();
        for error in errors {
            registry.report(error);
        }
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let bit = 1 << (number % 64);
        KeyedSettings { made_by, number, config, site: KeyedSite { bit, pattern, at } }
    }
}
