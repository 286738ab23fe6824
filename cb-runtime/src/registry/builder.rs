//! How a registry is set up.

use std::fmt;
use std::sync::Arc;

use super::Registry;
use crate::breakers::MAX_KEYED;
use crate::clock::Clock;
use crate::config::{BreakerConfig, Code, Layers, RegistryConfig};
use crate::error::{Error, ErrorKind};
use crate::event::OnError;
use crate::store::Store;
use crate::store::memory::MemoryStore;

/// Sets up a [`Registry`]: where the shared state lives, what the operator says about breakers.
///
/// Made by [`Registry::builder`], ended by [`install`](Self::install) or [`build`](Self::build).
#[must_use = "a builder does nothing until it is built or installed"]
pub struct RegistryBuilder {
    target: Target,
    pub(super) namespace: String,
    pub(super) code: Code,
    pub(super) config: RegistryConfig,
    pub(super) on_error: Option<OnError>,
    pub(super) clock: Clock,
    pub(super) max_breakers: usize,
}

/// Where the shared state lives.
enum Target {
    Memory,
    #[cfg(feature = "redis")]
    Redis(crate::store::redis::Target),
}

impl Default for RegistryBuilder {
    fn default() -> Self {
        RegistryBuilder {
            target: Target::Memory,
            namespace: "default".into(),
            code: Code::default(),
            config: RegistryConfig::default(),
            on_error: None,
            clock: Clock::system(),
            max_breakers: MAX_KEYED,
        }
    }
}

impl RegistryBuilder {
    /// Shares state through this Redis: `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS (feature
    /// `tls`), `unix:///path/to/socket`. Without any, state lives in this process alone.
    ///
    /// With TLS, `?cacert=/path/to/ca.pem` names the authorities to trust in place of the platform's, and
    /// `cert=…&key=…` what to show to a server that asks who comes: PEM files, read by [`build`](Self::build). The cryptography is the
    /// one that the process has installed for rustls by then; where there is none, `build` installs ring's.
    #[cfg(feature = "redis")]
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.target = Target::Redis(crate::store::redis::Target::Single(url.into()));
        self
    }

    /// Shares state through a Redis Cluster, found by any of these nodes. The first address says for all nodes what
    /// to log in with and, with TLS, which certificates.
    #[cfg(feature = "cluster")]
    pub fn redis_cluster(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let urls = urls.into_iter().map(Into::into).collect();
        self.target = Target::Redis(crate::store::redis::Target::Cluster(urls));
        self
    }

    /// Shares state through the master that these Sentinels know under the name `master`.
    #[cfg(feature = "sentinel")]
    pub fn redis_sentinel(
        mut self,
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> Self {
        let urls = urls.into_iter().map(Into::into).collect();
        self.target = Target::Redis(crate::store::redis::Target::Sentinel { urls, master: master.into() });
        self
    }

    /// Separates fleets that use one Redis: breakers of different namespaces have nothing to do with each
    /// other. Default `"default"`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// What holds for every breaker unless the attribute or the operator says otherwise.
    pub fn defaults(mut self, defaults: BreakerConfig) -> Self {
        self.code.defaults = defaults;
        self
    }

    /// The operator's word about one breaker: it wins over the attribute's arguments.
    pub fn configure(
        mut self,
        breaker: impl Into<String>,
        change: impl FnOnce(BreakerConfig) -> BreakerConfig,
    ) -> Self {
        let config = self.code.operator.entry(breaker.into()).or_default();
        *config = change(std::mem::take(config));
        self
    }

    /// How many breakers whose [names are made of arguments](macro@crate::circuit_breaker#name) there may be in this
    /// process at once; others are not counted. Default 10,000, at three kilobytes per breaker on a small machine
    /// and up to ten on one with many cores.
    ///
    /// Room for new ones is made in time, by letting go of those that are closed, idle and told to the store: the
    /// least recently used first, and whatever has not been used for ten minutes. When they are called again they are where
    /// the fleet is; only [`Snapshot::outcomes`](crate::Snapshot::outcomes) begins anew. Where no room can be made (all are
    /// in use, or not closed, or the store is away), a call under a new name is made without a breaker's guard, with
    /// its timeout, cache and fallback. That is reported as an error, at most once a minute.
    pub fn max_breakers(mut self, breakers: usize) -> Self {
        self.max_breakers = breakers;
        self
    }

    /// What is said from outside the code: it wins over what this builder is told by [`redis`](Self::redis),
    /// [`namespace`](Self::namespace), [`defaults`](Self::defaults) and [`configure`](Self::configure), whichever comes first.
    pub fn config(mut self, config: RegistryConfig) -> Self {
        self.config = config;
        self
    }

    /// Called for every failure in the background, on a thread of its own. (`tracing` has them, too.)
    pub fn on_error(mut self, callback: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(callback));
        self
    }

    /// Measures time with this clock; for tests. With Redis, what instances share runs on Redis' clock all the same.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds a registry that is not the global one.
    ///
    /// Asks the store for the fleet's states before it returns, for half a second at most; a store that
    /// does not answer is no error: the registry serves by itself and joins when the store is there.
    ///
    /// # Errors
    /// A wrong URL; a configuration value that cannot be meant.
    pub fn build(mut self) -> Result<Registry, Error> {
        let layers = Layers::new(&self.code, &self.config)?;
        if let Some(namespace) = &self.config.namespace {
            self.namespace.clone_from(namespace);
        }
        #[cfg(feature = "redis")]
        if let Some(url) = &self.config.redis {
            self.target = Target::Redis(crate::store::redis::Target::Single(url.clone()));
        }
        #[cfg(not(feature = "redis"))]
        if self.config.redis.is_some() {
            return Err(Error::config("redis", "needs the feature `redis` of cb-runtime"));
        }
        if self.namespace.is_empty() {
            return Err(Error::config("namespace", "is empty; it must have at least one character"));
        }
        if self.max_breakers == 0 {
            return Err(Error::config("max_breakers", "0 would guard nothing; it must be at least 1"));
        }
        let (store, shared): (Arc<dyn Store>, bool) = match &self.target {
            Target::Memory => (Arc::new(MemoryStore::new(self.clock.clone())), false),
            #[cfg(feature = "redis")]
            Target::Redis(target) => {
                (Arc::new(crate::store::redis::RedisStore::new(target.clone(), &self.namespace)?), true)
            }
        };
        Registry::start(self, layers, store, shared)
    }

    /// Builds the registry that all attributes use unless they name another; see [`build`](Self::build).
    ///
    /// # Errors
    /// As `build`; and if there is a global registry already, because this is the second `install` or a guarded call came first.
    pub fn install(self) -> Result<&'static Registry, Error> {
        let mut fresh = false;
        let registry = super::GLOBAL.get_or_try_init(|| {
            fresh = true;
            self.build()
        })?;
        if fresh { Ok(registry) } else { Err(Error::new(ErrorKind::Installed)) }
    }
}

impl fmt::Debug for RegistryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the target: its address may carry a password.
        f.debug_struct("RegistryBuilder")
            .field("namespace", &self.namespace)
            .field("code", &self.code)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
