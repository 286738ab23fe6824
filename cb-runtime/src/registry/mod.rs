//! The registry: one instance's breakers.

mod builder;
mod control;
mod fleet;
mod history;
mod instances;
#[cfg(feature = "metrics")]
mod metered;
mod node;
mod presence;
mod unregistered;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

pub use builder::RegistryBuilder;
pub use control::Control;
#[cfg(feature = "metrics")]
pub(crate) use metered::MeteredRegistry;

use crate::background;
use crate::breaker::context::RegistryContext;
use crate::breaker::{Breaker, Core};
use crate::breakers::{BreakerMap, Held, KeyedBreaker, KeyedSite, Place, SiteBreaker, Steered};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{
    BreakerConfig, CacheLimits, Code, Layers, PerFunction, RegistryConfig, Settings, environment,
};
use crate::coordinator::{self, Command};
use crate::deadline::{ANSWER, within};
use crate::error::{Error, ErrorKind};
use crate::event::{EventBus, Events};
#[cfg(feature = "metrics")]
use crate::metrics;
use crate::report_limiter::ReportLimiter;
use crate::snapshot::StoreStatus;
use crate::store::{Overview, ResultStore, Retention, Store};
use crate::timeouts::Timeouts;
use unregistered::Unregistered;

static GLOBAL: OnceCell<Registry> = OnceCell::new();

/// The time limit of [`Registry::shutdown`] for writing cached results to the store, and for publishing
/// metrics.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// Unguarded calls are reported once per this time.
const UNGUARDED_PERIOD: Duration = Duration::from_secs(60);

/// One instance: a set of breakers, one per name, that it shares with all other instances of its
/// namespace through the store. A cheap handle: all clones are the same instance.
///
/// The attribute uses the [global](Self::global) one. Registries are independent of each other: twenty in
/// one process are twenty instances. When the last clone is dropped, the background work ends, and counts
/// that were not sent to the store are lost, unless [`shutdown`](Self::shutdown) was awaited.
#[derive(Clone)]
pub struct Registry {
    id: u64,
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    shared: Arc<Shared>,
}

/// The parts that calls do not use.
struct Shared {
    requests: mpsc::UnboundedSender<Command>,
    store: Arc<dyn Store>,
    overview: Arc<dyn Overview>,
    readings: fleet::Readings,
    /// The task that announces this instance to the fleet.
    announcing: AbortHandle,
    retention: Retention,
    code: Code,
    address: Address,
    unguarded: ReportLimiter,
    unregistered: Unregistered,
    #[cfg(feature = "metrics")]
    published: metrics::Enrolled,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.announcing.abort();
    }
}

impl Registry {
    /// Returns a builder.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The registry that attributes use unless they name another.
    ///
    /// If none has been [installed](RegistryBuilder::install), the first use builds one from the environment:
    /// `CB_REDIS_URL` (without it, state lives in this process alone), `CB_NAMESPACE` and `CB_INSTANCE`, and
    /// with the feature `config` all that `RegistryConfig::from_env` reads. If the address is invalid, that
    /// is reported by `tracing` and on stderr, and state lives in this process alone. If a setting is
    /// invalid, that is reported too, and none of the environment's settings is used.
    pub fn global() -> &'static Registry {
        GLOBAL.get_or_init(Registry::from_environment)
    }

    fn from_environment() -> Registry {
        environment::report_unknown();
        let mut builder = Registry::builder();
        if let Ok(namespace) = std::env::var("CB_NAMESPACE")
            && !namespace.is_empty()
        {
            builder = builder.namespace(namespace);
        }
        #[cfg(feature = "config")]
        match RegistryConfig::from_env()
            .and_then(|config| Layers::new(&Code::default(), &config).map(|_| config))
        {
            Ok(config) => builder = builder.config(config),
            Err(error) => {
                tracing::error!(target: "cb_runtime", %error, "the environment's settings for circuit breakers are not used");
                eprintln!("cb-runtime: the environment's settings are not used: {error}");
            }
        }
        let url = std::env::var("CB_REDIS_URL").unwrap_or_default();
        let attempt = match url.is_empty() {
            true => builder.build(),
            #[cfg(feature = "redis")]
            false => builder.redis(url).build(),
            #[cfg(not(feature = "redis"))]
            false => Err(Error::config("CB_REDIS_URL", "needs the feature `redis` of cb-runtime")),
        };
        attempt.unwrap_or_else(|error| {
            tracing::error!(target: "cb_runtime", %error, "CB_REDIS_URL is invalid; circuit breakers are not shared");
            eprintln!("cb-runtime: CB_REDIS_URL is invalid, circuit breakers are not shared: {error}");
            Registry::builder().build().expect("the memory store's defaults are valid")
        })
    }

    fn start(
        builder: RegistryBuilder,
        layers: Layers,
        timeouts: Timeouts,
        store: Arc<dyn Store>,
        overview: Arc<dyn Overview>,
        results: Option<Arc<dyn ResultStore>>,
    ) -> Result<Registry, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let RegistryBuilder {
            code,
            config,
            on_error,
            clock,
            max_breakers,
            cache_limits,
            connect_timeout,
            retention,
            ..
        } = builder;
        let address = Address { redis: config.redis, namespace: builder.namespace };
        let instance = format!("{}-{:x}", std::process::id(), fastrand::u64(..)).into();
        let store_up = Arc::new(AtomicBool::new(false));
        let events = Arc::new(EventBus::new(on_error));
        let cache = Registry::cache(&clock, cache_limits, &events, results.as_ref(), &store_up)?;
        let context = RegistryContext::new(instance, clock, events, cache, store_up)
            .with_node(node::name(config.node.or(builder.node)))
            .with_shared_store(results.is_some())
            .with_timeouts(timeouts);
        #[cfg(feature = "metrics")]
        let context = context.measuring_calls(builder.measures_calls);
        let context = Arc::new(context);
        *context.layers_mut() = layers;
        let breakers = Arc::new(BreakerMap::new(max_breakers, context.clock.now()));
        let (ready, first_contact) = sync_channel(1);
        let requests =
            coordinator::start(context.clone(), breakers.clone(), store.clone(), ready).map_err(no_thread)?;
        match connect_timeout {
            // Without the fleet's states, the registry decides locally.
            None => drop(first_contact.recv_timeout(context.timeouts.connection())),
            // If it fails, `requests` is dropped, which ends the coordinator.
            Some(limit) => context.connection.wait_until_up(limit)?,
        }
        #[cfg(feature = "metrics")]
        let published = metrics::enroll(Arc::new(MeteredRegistry {
            namespace: address.namespace.as_str().into(),
            context: context.clone(),
            breakers: breakers.clone(),
        }))
        .map_err(no_thread)?;
        let announcing = presence::announce(context.clone(), breakers.clone(), overview.clone());
        let announcing = background::runtime().map_err(no_thread)?.spawn(announcing).abort_handle();
        let shared = Shared {
            requests,
            store,
            overview,
            readings: fleet::Readings::default(),
            announcing,
            retention,
            code,
            address,
            unguarded: ReportLimiter::new(1, UNGUARDED_PERIOD),
            unregistered: Unregistered::default(),
            #[cfg(feature = "metrics")]
            published,
        };
        shared.unregistered.report_later(&context, &breakers);
        Ok(Registry { id, context, breakers, shared: Arc::new(shared) })
    }

    /// The cache; without `store`, it has only the tier in this process.
    fn cache(
        clock: &Clock,
        limits: CacheLimits,
        events: &Arc<EventBus>,
        store: Option<&Arc<dyn ResultStore>>,
        store_up: &Arc<AtomicBool>,
    ) -> Result<Cache, Error> {
        let events = events.clone();
        let cache = Cache::new(clock.clone(), limits, Arc::new(move |event| events.emit(event)));
        let Some(store) = store else { return Ok(cache) };
        let thread = background::runtime().map_err(no_thread)?;
        Ok(cache.with_store(store, store_up.clone(), thread.clone()))
    }

    /// The breaker of that name, if it is registered here or the fleet has it in a state other than closed.
    /// To steer any other, see [`control`](Self::control).
    pub fn breaker(&self, name: &str) -> Option<Breaker> {
        match self.breakers.get(name) {
            Some(core) => Some(Breaker::new(core)),
            None if self.breakers.is_held(name) => Some(Breaker::new(self.observed(name))),
            None => None,
        }
    }

    /// The breaker of that name, registered with `config` if it is not registered yet.
    ///
    /// # Panics
    /// If `config` is invalid; [`try_get_or_create`](Self::try_get_or_create) returns the error instead.
    #[track_caller]
    pub fn get_or_create(&self, name: &str, config: BreakerConfig) -> Breaker {
        match self.try_get_or_create(name, config) {
            Ok(breaker) => breaker,
            Err(error) => panic!("breaker \"{name}\": {error}"),
        }
    }

    /// The breaker of that name, registered with `config` if it is not registered yet.
    ///
    /// # Errors
    /// If `config` is invalid, alone or together with the operator's settings and the defaults.
    #[track_caller]
    pub fn try_get_or_create(&self, name: &str, config: BreakerConfig) -> Result<Breaker, Error> {
        check_name(name)?;
        config.validate()?;
        let layers = self.context.layers();
        layers.claim(name)?;
        layers.resolve(name, &config)?;
        drop(layers);
        Ok(Breaker::new(self.core(name, &config, Location::caller())).with_call_timeout(config.call_timeout))
    }

    /// All breakers that are registered here, by name. While these handles exist, none of the breakers whose
    /// name is made of arguments is evicted.
    pub fn breakers(&self) -> Vec<Breaker> {
        let mut all: Vec<_> = self.breakers.registered().into_iter().map(Breaker::new).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// The number of breakers that are registered here. Unlike [`breakers`](Self::breakers), it keeps none of
    /// them from being evicted.
    pub fn breaker_count(&self) -> usize {
        self.breakers.count()
    }

    /// Replaces the external settings (from [`RegistryBuilder::config`] or the previous reload) of all
    /// breakers, registered now or later. Breakers keep their counts and states; the new settings apply to
    /// the counts from then on. Annotated functions adopt their `call_timeout` and `cache_ttl`; calls in
    /// flight keep theirs.
    ///
    /// A reload is atomic: if a value in `config` is invalid, or contradicts an attribute, nothing changes.
    /// Other instances of the fleet have to be reloaded, too.
    ///
    /// # Errors
    /// If `config` is invalid. `redis`, `namespace` and `node` may be left out, but not differ from before.
    pub fn reload(&self, config: RegistryConfig) -> Result<(), Error> {
        self.shared.address.is_kept_by(&config)?;
        if config.node.as_ref().is_some_and(|node| **node != *self.context.node) {
            return Err(Error::config(
                "node",
                "it cannot change while the registry runs; restart to change it",
            ));
        }
        let layers = Layers::new(&self.shared.code, &config)?;
        // The lock prevents registrations during the reload.
        let mut current = self.context.layers_mut();
        let mut changes = Vec::new();
        for core in self.breakers.registered() {
            layers.claim(core.name())?;
            let settings = core.resolve(&layers).map_err(|error| {
                let key = format!("breakers.{}.{}", core.name(), error.field().unwrap_or_default());
                error.at("", &key)
            })?;
            let per_function = layers.per_function(core.name());
            changes.push((core, settings, per_function));
        }
        for (core, settings, per_function) in changes {
            core.configure(settings, &per_function);
        }
        *current = layers;
        drop(current);
        self.shared.unregistered.report_later(&self.context, &self.breakers);
        Ok(())
    }

    /// A subscription to all events from now on. To resume an earlier subscription, see
    /// [`subscribe_from`](Self::subscribe_from).
    pub fn subscribe(&self) -> Events {
        self.context.events.subscribe()
    }

    /// The id of this instance, which is new at every start; the `originator` of its transitions.
    pub fn instance(&self) -> &str {
        &self.context.instance
    }

    /// The [name of the node](RegistryBuilder::node) that this instance runs on: the same at every start.
    pub fn node(&self) -> &str {
        &self.context.node
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.shared.address.namespace
    }

    /// The status of the connection to the store, from memory, without I/O; for readiness probes.
    ///
    /// ```
    /// # fn main() -> Result<(), cb_runtime::Error> {
    /// use cb_runtime::{Registry, StoreStatus};
    ///
    /// let registry = Registry::builder().build()?;
    /// assert!(matches!(registry.store_status(), StoreStatus::InMemory));
    /// # Ok(())
    /// # }
    /// ```
    pub fn store_status(&self) -> StoreStatus {
        self.context.connection.status().unwrap_or(StoreStatus::Connecting)
    }

    /// Sends all pending counts, returns all leases, and ends the background work. Later calls are guarded
    /// locally. Cancelling abandons the wait, not the shutdown.
    pub async fn shutdown(&self) {
        let _ = within(2 * LAST_WRITES, self.context.cache.flush(LAST_WRITES)).await;
        self.shared.announcing.abort();
        if self.context.store_up() {
            let (overview, instance) = (self.shared.overview.clone(), self.context.instance.clone());
            let leaving = async move { presence::leave(&*overview, instance).await };
            let _ = self.in_background("leaving the fleet", leaving).await;
        }
        let (done, is_done) = oneshot::channel();
        if self.shared.requests.send(Command::Shutdown(done)).is_ok() {
            let _ = within(ANSWER, is_done).await;
        }
        #[cfg(feature = "metrics")]
        let _ = within(2 * LAST_WRITES, self.shared.published.flush(LAST_WRITES)).await;
    }

    /// Identifies a registry within the process; never 0.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

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
        let blueprint = self.blueprint(name, config);
        let mut entry = self.breakers.entry(name);
        match entry.pin() {
            Some(core) => core,
            None => entry.insert(Place::Pinned, |name, held| blueprint.core(name, held, at)),
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
        if let Some(KeyedBreaker { breaker, core, first }) = self.breakers.get_keyed(name, config, site) {
            if first {
                self.registered_again(core, config, site.at);
            }
            return Ok(breaker);
        }
        let core = self.new_keyed(name, config, site);
        // It is not evicted meanwhile, as `core` refers to it.
        match self.breakers.get_keyed(name, config, site) {
            Some(found) => Ok(found.breaker),
            None => Err(Arc::new(SiteBreaker::of(core, config))),
        }
    }

    #[cfg(test)]
    pub(crate) fn map(&self) -> &BreakerMap {
        &self.breakers
    }

    /// Notes that a call uses a keyed breaker.
    #[inline]
    pub(crate) fn used(&self, breaker: &SiteBreaker) {
        self.breakers.used(breaker);
    }

    fn new_keyed(&self, name: &str, config: &BreakerConfig, site: KeyedSite) -> Arc<Core> {
        let blueprint = self.blueprint(name, config);
        if !name.is_empty() {
            let entry = self.breakers.entry(name);
            if let Some(core) = entry.get() {
                return core;
            }
            if entry.has_room() {
                return entry.insert(Place::Keyed(site), |name, held| blueprint.core(name, held, site.at));
            }
        }
        if self.shared.unguarded.take(self.context.clock.now()).is_some() {
            let (breaker, places) = (name.into(), self.breakers.places());
            self.report(Error::new(ErrorKind::Unguarded { breaker, places }));
        }
        blueprint.detached(name.into())
    }

    /// The breaker of that name for a caller that only reads it.
    fn observed(&self, name: &str) -> Arc<Core> {
        let blueprint = self.blueprint(name, &BreakerConfig::default());
        let entry = self.breakers.entry(name);
        match entry.get() {
            Some(core) => core,
            None => entry.insert(Place::Observed, |name, held| blueprint.observed(name, held)),
        }
    }

    /// The breaker of that name for an override, and a guard that keeps it in the map if it is not
    /// registered here.
    fn steered(&self, name: &str) -> (Breaker, Option<Steered>) {
        if let Some(core) = self.breakers.get(name) {
            return (Breaker::new(core), None);
        }
        let core = self.blueprint(name, &BreakerConfig::default()).observed(name.into(), None);
        let steered = self.breakers.steer(core);
        (Breaker::new(steered.core().clone()), Some(steered))
    }

    fn registered_again(
        &self,
        core: Arc<Core>,
        config: &BreakerConfig,
        at: &'static Location<'static>,
    ) -> Arc<Core> {
        core.registered();
        if config.is_about_the_breaker() {
            let layers = self.context.layers();
            let (given, settings) = self.usable(&layers, core.name(), config);
            core.registered_again(&given, &settings, at);
        }
        core
    }

    /// The parts of a new breaker of that name. While it exists, no reload can begin, so a reload either
    /// finds the breaker in the map or has ended before.
    fn blueprint(&self, name: &str, config: &BreakerConfig) -> Blueprint<'_> {
        let layers = self.context.layers();
        if let Err(error) = layers.claim(name) {
            self.report(error);
        }
        let (given, settings) = self.usable(&layers, name, config);
        let per_function = layers.per_function(name);
        Blueprint { given, settings, per_function, context: &self.context, _layers: layers }
    }

    /// `config` without its invalid values, which are reported, and the resulting settings.
    fn usable(&self, layers: &Layers, name: &str, config: &BreakerConfig) -> (BreakerConfig, Settings) {
        let (config, settings, errors) = layers.resolve_leniently(name, config);
        for error in errors {
            self.report(error);
        }
        (config, settings)
    }

    /// Sends an error to all subscribers.
    pub(crate) fn report(&self, error: Error) {
        self.context.events.error(error);
    }
}

/// The parts of a new breaker.
struct Blueprint<'a> {
    given: BreakerConfig,
    settings: Settings,
    per_function: PerFunction,
    context: &'a Arc<RegistryContext>,
    _layers: std::sync::RwLockReadGuard<'a, Layers>,
}

impl Blueprint<'_> {
    fn core(self, name: Arc<str>, held: Option<Held>, at: &'static Location<'static>) -> Arc<Core> {
        let core = Core::new(name, self.given, self.settings, self.per_function, held, self.context.clone());
        core.settings_are_from(at);
        core
    }

    fn observed(self, name: Arc<str>, held: Option<Held>) -> Arc<Core> {
        Core::observed(name, self.settings, self.per_function, held, self.context.clone())
    }

    fn detached(self, name: Arc<str>) -> Arc<Core> {
        Core::detached(name, self.given, self.settings, self.per_function, self.context.clone())
    }
}

/// The settings that a running registry cannot change.
struct Address {
    /// The address, if a config has set it.
    redis: Option<String>,
    namespace: String,
}

impl Address {
    fn is_kept_by(&self, config: &RegistryConfig) -> Result<(), Error> {
        let changes = |field, what| {
            let problem =
                format!("{what} cannot change while the registry runs; build another one, or restart");
            Err(Error::config(field, problem))
        };
        // Not the addresses themselves: they may carry passwords.
        if config.redis.is_some() && config.redis != self.redis {
            return changes("redis", "the address of the store");
        }
        if config.namespace.as_ref().is_some_and(|namespace| *namespace != self.namespace) {
            return changes("namespace", "it");
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::config("name", "is empty; it must have at least one character"));
    }
    Ok(())
}

fn no_thread(error: std::io::Error) -> Error {
    Error::store("starting the coordinator thread", error)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("instance", &self.context.instance)
            .field("breakers", &self.breaker_count())
            .finish_non_exhaustive()
    }
}
