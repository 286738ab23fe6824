//! How a registry is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Registry;
use crate::breakers::MAX_KEYED;
use crate::cache::CacheLimits;
use crate::clock::Clock;
use crate::config::{BreakerConfig, Code, Layers, RegistryConfig};
use crate::error::{Error, ErrorKind};
use crate::event::OnError;
use crate::store::Retention;
use crate::store::memory::MemoryStore;

/// Sets up a [`Registry`]: where the shared state lives, and the operator's settings of breakers.
///
/// Made by [`Registry::builder`], finished by [`install`](Self::install) or [`build`](Self::build).
#[must_use = "a builder does nothing until it is built or installed"]
pub struct RegistryBuilder {
    target: StoreTarget,
    pub(super) namespace: String,
    pub(super) code: Code,
    pub(super) config: RegistryConfig,
    pub(super) on_error: Option<OnError>,
    pub(super) clock: Clock,
    pub(super) max_breakers: usize,
    pub(super) cache_limits: CacheLimits,
    pub(super) node: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) retention: Retention,
}

/// Where the shared state lives.
enum StoreTarget {
    Memory,
    #[cfg(feature = "redis")]
    Redis(crate::store::redis::Target),
}

impl Default for RegistryBuilder {
    fn default() -> Self {
        RegistryBuilder {
            target: StoreTarget::Memory,
            namespace: "default".into(),
            code: Code::default(),
            config: RegistryConfig::default(),
            on_error: None,
            clock: Clock::system(),
            max_breakers: MAX_KEYED,
            cache_limits: CacheLimits::default(),
            node: None,
            connect_timeout: None,
            retention: Retention::default(),
        }
    }
}

impl RegistryBuilder {
    /// Shares state through this Redis: `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS
    /// (feature `tls`), `unix:///path/to/socket`. Without one, state lives in this process alone.
    ///
    /// With TLS, `?cacert=/path/to/ca.pem` names the authorities to trust in place of the platform's, and
    /// `cert=…&key=…` the client's certificate: PEM files, read by [`build`](Self::build). The cryptography
    /// is the one that the process has installed for rustls by then; if there is none, `build` installs
    /// ring's.
    #[cfg(feature = "redis")]
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.target = StoreTarget::Redis(crate::store::redis::Target::Single(url.into()));
        self
    }

    /// Shares state through a Redis Cluster, found by any of these nodes. User, password and certificates of
    /// the first address are used for all nodes.
    #[cfg(feature = "cluster")]
    pub fn redis_cluster(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let urls = urls.into_iter().map(Into::into).collect();
        self.target = StoreTarget::Redis(crate::store::redis::Target::Cluster(urls));
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
        self.target =
            StoreTarget::Redis(crate::store::redis::Target::Sentinel { urls, master: master.into() });
        self
    }

    /// Separates fleets that use one Redis: breakers of different namespaces share nothing. Default
    /// `"default"`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Settings of every breaker that neither its attribute nor the operator gives.
    pub fn defaults(mut self, defaults: BreakerConfig) -> Self {
        self.code.defaults = defaults;
        self
    }

    /// The operator's settings of one breaker: they take precedence over the attribute's arguments.
    pub fn configure(
        mut self,
        breaker: impl Into<String>,
        change: impl FnOnce(BreakerConfig) -> BreakerConfig,
    ) -> Self {
        let config = self.code.operator.entry(breaker.into()).or_default();
        *config = change(std::mem::take(config));
        self
    }

    /// How many [keyed breakers](macro@crate::circuit_breaker#name) there may be in this process at once;
    /// others are not limited. Default 10,000, at three kilobytes per breaker on a small machine and up to
    /// ten on one with many cores.
    ///
    /// Room for new ones is made in time, by evicting breakers that nothing refers to and that the store
    /// knows all of: the least recently used first, closed ones before open ones, and those that have not
    /// been used for ten minutes anyway. One that is called again starts from the fleet's state; only
    /// [`Snapshot::outcomes`](crate::Snapshot::outcomes) begins anew. If no room can be made (all are in use,
    /// or the store is away), a call under a new name is made without a breaker's guard, with its timeout,
    /// cache and fallback. That is reported as an error, at most once a minute.
    pub fn max_breakers(mut self, breakers: usize) -> Self {
        self.max_breakers = breakers;
        self
    }

    /// How many cached results this process holds, and how large they may be.
    pub fn cache_limits(mut self, limits: CacheLimits) -> Self {
        self.cache_limits = limits;
        self
    }

    /// Settings from outside the code. They take precedence over those given to this builder by
    /// [`redis`](Self::redis), [`namespace`](Self::namespace), [`node`](Self::node),
    /// [`defaults`](Self::defaults) and [`configure`](Self::configure), whichever comes first.
    pub fn config(mut self, config: RegistryConfig) -> Self {
        self.config = config;
        self
    }

    /// Calls `callback` for every failure in the background, on a thread of its own. `tracing` reports them,
    /// too.
    pub fn on_error(mut self, callback: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(callback));
        self
    }

    /// Measures time with this clock; for tests. With Redis, what instances share runs on Redis' clock all
    /// the same.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The name of the node that this instance runs on: one that stays the same when the instance is started
    /// again. Default the environment's `CB_INSTANCE`, else the host's name.
    ///
    /// [Quorums](BreakerConfig::min_failing_instances) count nodes, so that one bad instance that restarts
    /// again and again is not taken for several. Two instances on one host that are to count as two need two
    /// names.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Makes [`build`](Self::build) and [`install`](Self::install) fail if the store has not answered within
    /// this time: for programs that must not start with a wrong password, port or database. Without it, the
    /// registry serves by itself until the store is there.
    pub fn connect_timeout(mut self, span: Duration) -> Self {
        self.connect_timeout = Some(span);
        self
    }

    /// How much of the fleet's [history](Registry::history) the store keeps: at least this many transitions
    /// (a hundred more where Redis frees memory by whole blocks), for this long after the latest of them.
    /// Default 1,000 transitions and an hour. A transition takes Redis about 300 bytes. Give all instances of
    /// a namespace the same.
    pub fn retain_history(mut self, transitions: usize, age: Duration) -> Self {
        self.retention = Retention { events: transitions, age };
        self
    }

    /// Builds a registry that is not the global one.
    ///
    /// Asks the store for the fleet's states before it returns, and waits at most half a second for them. A
    /// store that does not answer is no error, unless there is a [`connect_timeout`](Self::connect_timeout):
    /// the registry serves by itself and joins the fleet when the store is there.
    ///
    /// # Errors
    /// If the address or a setting is invalid; if a `connect_timeout` has elapsed.
    pub fn build(mut self) -> Result<Registry, Error> {
        let layers = Layers::new(&self.code, &self.config)?;
        if let Some(namespace) = &self.config.namespace {
            self.namespace.clone_from(namespace);
        }
        #[cfg(feature = "redis")]
        if let Some(url) = &self.config.redis {
            self.target = StoreTarget::Redis(crate::store::redis::Target::Single(url.clone()));
        }
        #[cfg(not(feature = "redis"))]
        if self.config.redis.is_some() {
            return Err(Error::config("redis", "needs the feature `redis` of cb-runtime"));
        }
        if self.namespace.is_empty() {
            return Err(Error::config("namespace", "is empty; it must have at least one character"));
        }
        self.cache_limits = self.config.cache_limits.unwrap_or(self.cache_limits);
        self.cache_limits.validate()?;
        if self.max_breakers == 0 {
            return Err(Error::config("max_breakers", "0 would guard nothing; it must be at least 1"));
        }
        if self.retention.events == 0 || self.retention.age < Duration::from_secs(1) {
            let problem =
                "must be at least one transition and one second, which instances need to follow each other";
            return Err(Error::config("retain_history", problem));
        }
        if self.connect_timeout.is_some_and(|span| span.is_zero()) {
            return Err(Error::config("connect_timeout", "0 is not a span of time; it must be longer"));
        }
        match &self.target {
            StoreTarget::Memory => {
                let store = Arc::new(MemoryStore::new(self.clock.clone()).retaining(self.retention));
                Registry::start(self, layers, store.clone(), store, false)
            }
            #[cfg(feature = "redis")]
            StoreTarget::Redis(target) => {
                let store = crate::store::redis::RedisStore::new(target.clone(), &self.namespace)?;
                let store = Arc::new(store.retaining(self.retention));
                Registry::start(self, layers, store.clone(), store, true)
            }
        }
    }

    /// Builds the registry that all attributes use unless they name another; see [`build`](Self::build).
    ///
    /// # Errors
    /// As [`build`](Self::build); and if there is a global registry already, because this is the second
    /// `install` or a guarded call came first.
    pub fn install(self) -> Result<&'static Registry, Error> {
        let mut fresh = false;
        let registry = super::GLOBAL.get_or_try_init(|| {
            fresh = true;
            self.build()
        })?;
        if fresh { Ok(registry) } else { Err(Error::new(ErrorKind::Installed)) }
    }
}

/// See [`crate::feature`].
#[cfg(not(all(feature = "redis", feature = "cluster", feature = "sentinel")))]
#[doc(hidden)]
impl RegistryBuilder {
    #[cfg(not(feature = "redis"))]
    pub fn redis<Url: crate::feature::Redis>(self, _url: Url) -> Self {
        self
    }

    #[cfg(not(feature = "cluster"))]
    pub fn redis_cluster<Urls: crate::feature::Cluster>(self, _urls: Urls) -> Self {
        self
    }

    #[cfg(not(feature = "sentinel"))]
    pub fn redis_sentinel<Urls: crate::feature::Sentinel>(
        self,
        _urls: Urls,
        _master: impl Into<String>,
    ) -> Self {
        self
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
