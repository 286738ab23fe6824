//! What one annotated function keeps: its breaker, looked up once.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::breaker::Core;
use crate::breaker::permit::CallPermit;
use crate::call::{self, Ended, Guarded, Judge};
use crate::config::BreakerConfig;
use crate::error::BreakerError;
use crate::registry::Registry;

/// The static beside an annotated function.
pub struct Site {
    name: &'static str,
    /// The breaker in the first registry that this function was called with, mostly the only one.
    first: OnceLock<(u64, SiteBreaker)>,
}

/// A breaker as one annotated function sees it: functions may share a breaker and differ in these spans.
pub struct SiteBreaker {
    core: Arc<Core>,
    call_timeout: Option<Duration>,
    cache_ttl: Option<Duration>,
}

/// The settings of an attribute without `config`.
pub fn settings() -> BreakerConfig {
    BreakerConfig::default()
}

/// The settings of one with `config`.
pub fn base(config: BreakerConfig) -> BreakerConfig {
    config
}

impl Site {
    /// # Panics
    /// While compiling, if the name is empty.
    pub const fn new(name: &'static str) -> Self {
        assert!(!name.is_empty(), "the breaker's name is empty");
        Site { name, first: OnceLock::new() }
    }

    /// This function's breaker in the global registry. `settings` is what the attribute says; it is
    /// asked for once.
    #[inline]
    pub fn global(&'static self, settings: fn() -> BreakerConfig) -> &'static SiteBreaker {
        match self.first.get() {
            Some((_, breaker)) => breaker,
            None => self.first(Registry::global(), settings),
        }
    }

    /// This function's breaker in a registry that its attribute names, at every call anew.
    #[inline]
    pub fn within(&'static self, registry: &Registry, settings: fn() -> BreakerConfig) -> Found {
        match self.first.get() {
            Some((id, breaker)) if *id == registry.id() => Found::First(breaker),
            None => {
                self.first(registry, settings);
                // Another thread may have been first, with another registry.
                self.within(registry, settings)
            }
            Some(_) => Found::Other(Box::new(SiteBreaker::new(self.name, registry, settings))),
        }
    }

    #[cold]
    fn first(&'static self, registry: &Registry, settings: fn() -> BreakerConfig) -> &'static SiteBreaker {
        let (_, breaker) =
            self.first.get_or_init(|| (registry.id(), SiteBreaker::new(self.name, registry, settings)));
        breaker
    }
}

impl SiteBreaker {
    fn new(name: &str, registry: &Registry, settings: fn() -> BreakerConfig) -> Self {
        let settings = settings();
        let core = registry.core(name, &settings);
        // The registry reports settings that contradict themselves and leaves them out; so do we.
        let usable = if settings.validate().is_ok() { settings } else { BreakerConfig::default() };
        SiteBreaker::of(core, &usable)
    }

    pub(super) fn of(core: Arc<Core>, settings: &BreakerConfig) -> Self {
        SiteBreaker { core, call_timeout: settings.call_timeout, cache_ttl: settings.cache_ttl }
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) fn cache_ttl(&self) -> Option<Duration> {
        self.core.cache_ttl(self.cache_ttl)
    }

    /// Asks for leave and makes the call.
    #[inline]
    pub fn run<'a, F: Future>(
        &'a self,
        body: Pin<&'a mut F>,
        judge: impl Judge<F::Output>,
    ) -> impl Future<Output = Ended<F::Output>> {
        Guarded::new(&self.core, self.call_timeout, body, judge)
    }

    /// Asks for leave, for a body that can be made only once there is leave.
    #[inline]
    pub fn admitted(&self) -> impl Future<Output = Result<CallPermit<'_>, BreakerError>> {
        call::admitted(&self.core)
    }

    /// Makes the call that there is leave for.
    #[inline]
    pub fn permitted<'a, F: Future>(
        &'a self,
        permit: CallPermit<'a>,
        body: Pin<&'a mut F>,
        judge: impl Judge<F::Output>,
    ) -> impl Future<Output = Ended<F::Output>> {
        Guarded::permitted(permit, self.call_timeout, body, judge)
    }
}

/// A breaker in the registry that was asked for.
pub enum Found {
    /// The one that the site keeps.
    First(&'static SiteBreaker),
    /// Looked up for this call.
    Other(Box<SiteBreaker>),
}

impl Deref for Found {
    type Target = SiteBreaker;

    #[inline]
    fn deref(&self) -> &SiteBreaker {
        match self {
            Found::First(breaker) => breaker,
            Found::Other(breaker) => breaker,
        }
    }
}
