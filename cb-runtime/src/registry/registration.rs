//! Finds a breaker by its name, or registers it.

use std::panic::Location;
use std::sync::{Arc, RwLockReadGuard};

use super::Registry;
use crate::breaker::{Blueprint, Breaker, Core};
use crate::breakers::{BreakerKind, KeyedBreaker, KeyedSite, SiteBreaker, Steered};
use crate::config::{BreakerConfig, Layers};
use crate::error::{Error, ErrorKind};

impl Registry {
    /// The breaker of an annotated function, created with the attribute's `config` at the first call. It
    /// never fails: an invalid setting is reported and ignored.
    pub(crate) fn core(
        &self,
        name: &str,
        config: &BreakerConfig,
        at: &'static Location<'static>,
    ) -> Arc<Core> {
        if let Some(core) = self.breakers.pin(name) {
            return self.registered_again(core, config, at);
        }
        let (blueprint, layers) = self.blueprint(name, config, Some(at));
        let mut entry = self.breakers.entry(name);
        match entry.pin() {
            // Another thread has just asked for it, or looked at it.
            Some(core) => {
                drop((entry, layers));
                self.registered_again(core, config, at)
            }
            None => entry.insert(BreakerKind::Pinned, |name, held| blueprint.build(name, held)),
        }
    }

    /// The breaker of an annotated function whose name is made of its arguments, for calls of this thread.
    /// `Err`: only for this one, as it is not registered.
    #[cold]
    pub(crate) fn keyed(
        &self,
        name: &str,
        config: &BreakerConfig,
        site: KeyedSite,
    ) -> Result<Arc<SiteBreaker>, Arc<SiteBreaker>> {
        if let Some(breaker) = self.registered_keyed(name, config, site) {
            return Ok(breaker);
        }
        let core = self.new_keyed(name, config, site);
        // It is not evicted meanwhile, as `core` refers to it.
        self.registered_keyed(name, config, site).ok_or_else(|| Arc::new(SiteBreaker::of(core, config)))
    }

    /// The keyed breaker of that name, if it is registered: by this function, or by another one or a reader.
    fn registered_keyed(
        &self,
        name: &str,
        config: &BreakerConfig,
        site: KeyedSite,
    ) -> Option<Arc<SiteBreaker>> {
        let KeyedBreaker { breaker, core, first } = self.breakers.get_keyed(name, config, site)?;
        if first {
            self.registered_again(core, config, site.at);
        }
        Some(breaker)
    }

    /// Notes that a call uses a keyed breaker.
    #[inline]
    pub(crate) fn used(&self, breaker: &SiteBreaker) {
        self.breakers.used(breaker);
    }

    fn new_keyed(&self, name: &str, config: &BreakerConfig, site: KeyedSite) -> Arc<Core> {
        let (blueprint, _layers) = self.blueprint(name, config, Some(site.at));
        if !name.is_empty() {
            let entry = self.breakers.entry(name);
            if let Some(core) = entry.get() {
                return core;
            }
            if entry.has_room() {
                return entry.insert(BreakerKind::Keyed(site), |name, held| blueprint.build(name, held));
            }
        }
        if self.shared.unguarded.take(self.context.clock.now()).is_some() {
            let (breaker, places) = (name.into(), self.breakers.places());
            self.report(Error::new(ErrorKind::Unguarded { breaker, places }));
        }
        blueprint.detached(name.into())
    }

    /// The breaker of that name for a caller that only reads it.
    pub(super) fn observed(&self, name: &str) -> Arc<Core> {
        let (blueprint, _layers) = self.blueprint(name, &BreakerConfig::default(), None);
        let entry = self.breakers.entry(name);
        match entry.get() {
            Some(core) => core,
            None => entry.insert(BreakerKind::Observed, |name, held| blueprint.observed(name, held)),
        }
    }

    /// The breaker of that name for an override, and a guard that keeps it in the map if it is not
    /// registered here.
    pub(super) fn steered(&self, name: &str) -> (Breaker, Option<Steered>) {
        if let Some(core) = self.breakers.get(name) {
            return (Breaker::new(core), None);
        }
        let (blueprint, _layers) = self.blueprint(name, &BreakerConfig::default(), None);
        let core = blueprint.observed(name.into(), self.breakers.held_state(name));
        let steered = self.breakers.steer(core);
        (Breaker::new(steered.core().clone()), Some(steered))
    }

    fn registered_again(
        &self,
        core: Arc<Core>,
        config: &BreakerConfig,
        at: &'static Location<'static>,
    ) -> Arc<Core> {
        if config.is_about_the_breaker() {
            let layers = self.context.layers();
            let (given, settings, errors) = layers.resolve_leniently(core.name(), config);
            // Those of the attribute that made it were reported then.
            if !core.was_given_at(at) {
                for error in errors {
                    self.report(error);
                }
            }
            core.registered_again(&given, &settings, at);
        }
        core.registered();
        core
    }

    /// The parts of a new breaker of that name, and the lock under which it is inserted: no reload can begin
    /// meanwhile, so a reload either finds the breaker in the map or has ended before.
    fn blueprint(
        &self,
        name: &str,
        config: &BreakerConfig,
        given_at: Option<&'static Location<'static>>,
    ) -> (Blueprint, RwLockReadGuard<'_, Layers>) {
        let layers = self.context.layers();
        if let Err(error) = layers.claim(name) {
            self.report(error);
        }
        let (given, settings, errors) = layers.resolve_leniently(name, config);
        for error in errors {
            self.report(error);
        }
        let per_function = layers.per_function(name);
        (Blueprint { given, given_at, settings, per_function, context: self.context.clone() }, layers)
    }
}
