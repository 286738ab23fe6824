//! The builder of a registry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Registry;
use crate::breakers::MAX_KEYED;
use crate::clock::Clock;
use crate::config::{BreakerConfig, CacheLimits, Code, Layers, RegistryConfig};
use crate::error::{Error, ErrorKind};
use crate::event::OnError;
use crate::store::Retention;
use crate::store::memory::MemoryStore;
#[cfg(feature = "redis")]
use crate::store::redis::{RedisStore, Target};
use crate::timeouts::Timeouts;

/// Builds a [`Registry`]: the store, and the operator's settings of breakers.
///
/// Made by [`Registry::builder`], finished by [`install`](Self::install) or [`build`](Self::build).
#[must_use = "a builder does nothing until it is built or installed"]
pub struct RegistryBuilder {
    target: StoreTarget,
    /// Two setters of the target that were both called.
    #[cfg(feature = "redis")]
    conflict: Option<(&'static str, &'static str)>,
    pub(super) namespace: String,
    pub(super) code: Code,
    pub(super) config: RegistryConfig,
    pub(super) on_error: Option<OnError>,
    pub(super) clock: Clock,
    pub(super) max_breakers: usize,
    pub(super) cache_limits: CacheLimits,
    pub(super) node: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
    /// `None`: as other programs have set it.
    pub(super) retention: Option<Retention>,
    #[cfg(feature = "metrics")]
    pub(super) measures_calls: bool,
}

/// Where the shared state lives.
enum StoreTarget {
    Memory,
    #[cfg(feature = "redis")]
    Redis(Target),
}

impl Default for RegistryBuilder {
    fn default() -> Self {
        RegistryBuilder {
            target: StoreTarget::Memory,
            #[cfg(feature = "redis")]
            conflict: None,
            namespace: "default".into(),
            code: Code::default(),
            config: RegistryConfig::default(),
            on_error: None,
            clock: Clock::system(),
            max_breakers: MAX_KEYED,
            cache_limits: CacheLimits::default(),
            node: None,
            connect_timeout: None,
            response_timeout: None,
            retention: None,
            #[cfg(feature = "metrics")]
            measures_calls: false,
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
    pub fn redis(self, url: impl Into<String>) -> Self {
        self.target(Target::Single(url.into()))
    }

    /// Shares state through a Redis Cluster, found by any of these nodes. User, password and certificates of
    /// the first address are used for all nodes.
    #[cfg(feature = "cluster")]
    pub fn redis_cluster(self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.target(Target::Cluster(urls.into_iter().map(Into::into).collect()))
    }

    /// Shares state through the master that these Sentinels know under the name `master`.
    #[cfg(feature = "sentinel")]
    pub fn redis_sentinel(
        self,
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> Self {
        let urls = urls.into_iter().map(Into::into).collect();
        self.target(Target::Sentinel { urls, master: master.into() })
    }

    #[cfg(feature = "redis")]
    fn target(mut self, target: Target) -> Self {
        if let StoreTarget::Redis(before) = &self.target
            && before.setter() != target.setter()
        {
            self.conflict = Some((before.setter(), target.setter()));
        }
        self.target = StoreTarget::Redis(target);
        self
    }

    /// Separates fleets that use one Redis: breakers of different namespaces share nothing. Default
    /// `"default"`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets defaults for all breakers. Attributes and the operator's settings take precedence.
    pub fn defaults(mut self, defaults: BreakerConfig) -> Self {
        self.code.defaults = defaults;
        self
    }

    /// Changes the operator's settings of one breaker, which take precedence over the attribute's arguments.
    pub fn configure(
        mut self,
        breaker: impl Into<String>,
        change: impl FnOnce(BreakerConfig) -> BreakerConfig,
    ) -> Self {
        let config = self.code.operator.entry(breaker.into()).or_default();
        *config = change(std::mem::take(config));
        self
    }

    /// Sets the maximum number of [keyed breakers](macro@crate::circuit_breaker#name) in this process;
    /// other breakers are not limited. Default 10,000. A breaker takes three kilobytes on a small machine
    /// and up to ten on one with many cores.
    ///
    /// Breakers are evicted before the limit is reached, if they are unreferenced and fully reported to the
    /// store: the least recently used first, and closed ones before open ones. A breaker that was not used
    /// for ten minutes is evicted in any case. A breaker that is called again starts from the fleet's
    /// state; only [`Snapshot::outcomes`](crate::Snapshot::outcomes) restarts at zero. If no breaker can be
    /// evicted (all are in use, or the store is away), a call under a new name is made unguarded, but with
    /// its timeout, cache and fallback. This is reported as an error, at most once a minute.
    pub fn max_breakers(mut self, breakers: usize) -> Self {
        self.max_breakers = breakers;
        self
    }

    /// Sets the limits of the cached results in this process.
    pub fn cache_limits(mut self, limits: CacheLimits) -> Self {
        self.cache_limits = limits;
        self
    }

    /// Sets external settings. They take precedence over those of [`redis`](Self::redis), `redis_cluster` and
    /// `redis_sentinel`, of [`namespace`](Self::namespace), [`node`](Self::node),
    /// [`response_timeout`](Self::response_timeout), [`cache_limits`](Self::cache_limits),
    /// [`defaults`](Self::defaults) and [`configure`](Self::configure), in any order of the calls.
    pub fn config(mut self, config: RegistryConfig) -> Self {
        self.config = config;
        self
    }

    /// Calls `callback` for every background error, on a thread that the registries of a process share with
    /// their log. `tracing` reports them, too. A callback must not block: errors that come while 1,024 others
    /// wait are neither passed to it nor logged.
    pub fn on_error(mut self, callback: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(callback));
        self
    }

    /// Measures time with this clock; for tests. With Redis, shared state still uses Redis' clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the name of the node that this instance runs on, which must survive restarts. Default: the
    /// environment's `CB_INSTANCE`, else the host's name.
    ///
    /// [Quorums](BreakerConfig::min_failing_instances) count nodes, so that a bad instance that keeps
    /// restarting counts once. For two instances on one host to count as two, give them two names.
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

    /// Sets how long a caller waits for the store's answer when it asks for a probe: from 20 ms to 2 s.
    /// Default: 0.4 s. A store that has not answered for twice that counts as lost, and this instance decides
    /// locally until it answers again. While answers take long, the limit of a loss grows to five times the
    /// response timeout. It is up to 2.6 s longer for a request about many breakers, as at a start, because
    /// other instances send such requests, too.
    ///
    /// It should be three times the longest usual round trip: with a store in another region, where a round
    /// trip takes 0.45 s, callers get no probes by default, and all with 1.5 s. The limits of connection
    /// attempts and of the coordinator's silence grow with it. With slow round trips, rates trip on counts of
    /// other instances that are as old as a round trip.
    pub fn response_timeout(mut self, span: Duration) -> Self {
        self.response_timeout = Some(span);
        self
    }

    /// Sets the retention of the fleet's [history](Registry::history): the store keeps at least this number
    /// of transitions, until this time after the latest of them, and this registry shows none that is older
    /// than this. Default: 1,000 transitions, and an hour after the latest. Redis removes transitions in
    /// blocks of about a hundred, and needs about 300 bytes for each. All instances of a namespace should
    /// have the same retention. A program that does not call this changes nothing, and shows all
    /// transitions that the store has.
    pub fn retain_history(mut self, transitions: usize, age: Duration) -> Self {
        self.retention = Some(Retention { events: transitions, age });
        self
    }

    /// Measures every call, and publishes durations as the histogram `circuit_breaker_call_seconds`. A
    /// measured call reads the clock twice and takes a lock of its breaker. Without this, calls are measured
    /// only where `slow_call_duration` is given.
    #[cfg(feature = "metrics")]
    pub fn measure_calls(mut self) -> Self {
        self.measures_calls = true;
        self
    }

    /// Builds a registry that is not the global one.
    ///
    /// Asks the store for the fleet's states before it returns, and waits at most half a second for them (or
    /// 1.25 times the [`response_timeout`](Self::response_timeout)). A store that does not answer is no
    /// error, unless there is a [`connect_timeout`](Self::connect_timeout): the registry serves by itself and
    /// joins the fleet when the store is there.
    ///
    /// # Errors
    /// If the address or a setting is invalid; if two setters of the store were called, such as
    /// [`redis`](Self::redis) and `redis_cluster`; if a `connect_timeout` has elapsed.
    pub fn build(mut self) -> Result<Registry, Error> {
        let layers = Layers::new(&self.code, &self.config)?;
        if let Some(namespace) = &self.config.namespace {
            self.namespace.clone_from(namespace);
        }
        #[cfg(feature = "redis")]
        if let Some((first, second)) = self.conflict {
            let problem = format!("cannot be combined with {first}: a registry has one store");
            return Err(Error::config(second, problem));
        }
        #[cfg(feature = "redis")]
        if let Some(url) = &self.config.redis {
            self.target = StoreTarget::Redis(Target::Single(url.clone()));
        }
        #[cfg(not(feature = "redis"))]
        if self.config.redis.is_some() {
            let error = Error::config("redis", "needs the feature `redis` of cb-runtime");
            return Err(self.config.locate(error, "redis"));
        }
        if self.namespace.is_empty() {
            let error = Error::config("namespace", "is empty; it must have at least one character");
            return Err(self.config.locate(error, "namespace"));
        }
        self.cache_limits = self.config.cache_limits.unwrap_or(self.cache_limits);
        self.cache_limits.validate()?;
        if self.max_breakers == 0 {
            return Err(Error::config("max_breakers", "0 would guard nothing; it must be at least 1"));
        }
        if self.retention.is_some_and(|kept| kept.events == 0 || kept.age < Duration::from_secs(1)) {
            let problem =
                "must be at least one transition and one second, which instances need to follow each other";
            return Err(Error::config("retain_history", problem));
        }
        if self.connect_timeout.is_some_and(|span| span.is_zero()) {
            return Err(Error::config("connect_timeout", "0 is not a span of time; it must be longer"));
        }
        let timeouts = self.config.response_timeout.or(self.response_timeout);
        let timeouts = timeouts.map_or_else(|| Ok(Timeouts::default()), Timeouts::new)?;
        match &self.target {
            StoreTarget::Memory => {
                let store = MemoryStore::new(self.clock.clone());
                let store = Arc::new(store.retaining(self.retention.unwrap_or_default()));
                Registry::start(self, layers, timeouts, store.clone(), store, None)
            }
            #[cfg(feature = "redis")]
            StoreTarget::Redis(target) => {
                let store = RedisStore::with_timeouts(target.clone(), &self.namespace, timeouts.clone());
                let store = match &self.config.redis {
                    Some(_) => store.map_err(|error| self.config.locate(error, "redis"))?,
                    None => store?,
                };
                let store = Arc::new(store.retaining(self.retention));
                Registry::start(self, layers, timeouts, store.clone(), store.clone(), Some(store))
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

#[cfg(all(test, feature = "cluster", feature = "sentinel"))]
mod tests {
    use super::RegistryBuilder;

    #[test]
    fn two_setters_of_the_store_are_an_error_that_names_both() {
        const URL: &str = "redis://127.0.0.1:1";
        let error = |builder: RegistryBuilder| builder.build().unwrap_err().to_string();
        let single = || RegistryBuilder::default().redis(URL);
        let cluster = || RegistryBuilder::default().redis_cluster([URL]);
        assert_eq!(
            error(single().redis_cluster([URL])),
            "redis_cluster: cannot be combined with redis: a registry has one store"
        );
        assert_eq!(
            error(cluster().redis_sentinel([URL], "main")),
            "redis_sentinel: cannot be combined with redis_cluster: a registry has one store"
        );
        assert_eq!(
            error(single().redis_cluster([URL]).redis_cluster([URL])),
            "redis_cluster: cannot be combined with redis: a registry has one store"
        );
        // As with every setter, the last call of one takes effect.
        assert_eq!(
            error(single().redis("http://host")),
            error(RegistryBuilder::default().redis("http://host"))
        );
    }
}
