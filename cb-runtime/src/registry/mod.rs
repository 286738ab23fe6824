//! One instance's breakers.

mod builder;
#[cfg(not(all(feature = "redis", feature = "cluster", feature = "sentinel")))]
mod missing_features;
mod report_limiter;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio::sync::{mpsc, oneshot};

pub use builder::RegistryBuilder;

use crate::breaker::context::RegistryContext;
use crate::breaker::{Breaker, Core};
use crate::breakers::{BreakerMap, KeyedBreaker, KeyedSite};
use crate::cache::{Cache, CacheLimits};
use crate::clock::{Clock, Moment};
use crate::config::{BreakerConfig, Code, Layers, PerFunction, RegistryConfig, Settings};
use crate::coordinator::{self, Command};
use crate::error::{Error, ErrorKind};
use crate::event::{EventBus, Events};
#[cfg(feature = "metrics")]
use crate::metrics;
use crate::snapshot::FleetBreaker;
use crate::store::{Record, Store};
use report_limiter::ReportLimiter;

static GLOBAL: OnceCell<Registry> = OnceCell::new();

/// A registry that is shut down waits so long for results that are still to be written to the store, and for
/// numbers that are still to be published.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// A newcomer waits so long for the fleet's states before it goes on without them.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// One instance: a set of breakers, one per name, that it shares with all other instances of its
/// namespace through the store.
///
/// The attribute uses the [global](Self::global) one. Others are independent of it and of each other: twenty
/// of them in one process are twenty instances. Dropping one ends its background work; what has not been
/// told the store then is lost, unless [`shutdown`](Self::shutdown) was awaited.
pub struct Registry {
    id: u64,
    context: Arc<RegistryContext>,
    breakers: Arc<BreakerMap>,
    requests: mpsc::UnboundedSender<Command>,
    code: Code,
    /// Where the shared state lives, as far as the config said so.
    place: Place,
    reports: ReportLimiter,
    #[cfg(feature = "metrics")]
    published: metrics::Enrolled,
}

impl Registry {
    /// Sets one up.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The registry that attributes use unless they name another.
    ///
    /// If none has been [installed](RegistryBuilder::install), the first use builds one from the environment:
    /// `CB_REDIS_URL` (without it, state lives in this process alone) and `CB_NAMESPACE`, and with the feature `config` all that
    /// `RegistryConfig::from_env` reads. A URL that cannot be used is reported by `tracing` and on stderr, and
    /// state lives in this process alone; so are settings that cannot be meant, and all of them left out.
    pub fn global() -> &'static Registry {
        GLOBAL.get_or_init(Registry::from_environment)
    }

    fn from_environment() -> Registry {
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
                tracing::error!(target: "cb_runtime", %error, "the environment's settings for circuit breakers are left out");
                eprintln!("cb-runtime: the environment's settings are left out: {error}");
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
            tracing::error!(target: "cb_runtime", %error, "CB_REDIS_URL cannot be used; circuit breakers are not shared");
            eprintln!("cb-runtime: CB_REDIS_URL cannot be used, circuit breakers are not shared: {error}");
            Registry::builder().build().expect("the memory store's defaults are valid")
        })
    }

    fn start(
        builder: RegistryBuilder,
        layers: Layers,
        store: Arc<dyn Store>,
        shared: bool,
    ) -> Result<Registry, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let RegistryBuilder { code, config, on_error, clock, max_breakers, .. } = builder;
        let place = Place { redis: config.redis, namespace: builder.namespace };
        let instance = format!("{}-{:x}", std::process::id(), fastrand::u64(..)).into();
        let store_up = Arc::new(AtomicBool::new(false));
        let events = Arc::new(EventBus::new(on_error));
        let cache = Registry::cache(&clock, &events, shared.then_some(&store), &store_up)?;
        let context = Arc::new(RegistryContext::new(instance, clock, events, cache, store_up));
        *context.layers_mut() = layers;
        let breakers = Arc::new(BreakerMap::new(max_breakers, context.clock.now()));
        let (ready, first_look) = sync_channel(1);
        let requests =
            coordinator::start(context.clone(), breakers.clone(), store, ready).map_err(no_thread)?;
        #[cfg(feature = "metrics")]
        let published = metrics::enroll(metrics::Source {
            namespace: place.namespace.as_str().into(),
            context: context.clone(),
            breakers: breakers.clone(),
        })
        .map_err(no_thread)?;
        // Either way is fine: without the fleet's states the registry serves by itself.
        let _ = first_look.recv_timeout(FIRST_LOOK);
        Ok(Registry {
            id,
            context,
            breakers,
            requests,
            code,
            place,
            reports: ReportLimiter::default(),
            #[cfg(feature = "metrics")]
            published,
        })
    }

    /// The cached results of all breakers; in this process only, unless others share a store.
    fn cache(
        clock: &Clock,
        events: &Arc<EventBus>,
        store: Option<&Arc<dyn Store>>,
        store_up: &Arc<AtomicBool>,
    ) -> Result<Cache, Error> {
        let events = events.clone();
        let cache =
            Cache::new(clock.clone(), CacheLimits::default(), Arc::new(move |event| events.emit(event)));
        let Some(store) = store else { return Ok(cache) };
        let background = coordinator::thread::runtime().map_err(no_thread)?;
        Ok(cache.with_store(store, store_up.clone(), background.clone()))
    }

    /// The breaker of that name, if it is registered here or the fleet holds it in a state other than closed.
    pub fn breaker(&self, name: &str) -> Option<Breaker> {
        match self.breakers.get(name) {
            Some(core) => Some(Breaker::new(core)),
            None if self.breakers.is_held(name) => Some(Breaker::new(self.look(name))),
            None => None,
        }
    }

    /// The breaker of that name, registered with `config` if it is not registered yet.
    ///
    /// # Panics
    /// If `config` cannot be meant; [`try_get_or_create`](Self::try_get_or_create) returns the error instead.
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
    /// If `config`, together with the operator's word and the defaults, cannot be meant.
    pub fn try_get_or_create(&self, name: &str, config: BreakerConfig) -> Result<Breaker, Error> {
        if name.is_empty() {
            return Err(Error::config("name", "is empty; it must have at least one character"));
        }
        config.validate()?;
        let layers = self.context.layers();
        layers.claim(name)?;
        layers.resolve(name, &config)?;
        drop(layers);
        Ok(Breaker::new(self.core(name, &config)).with_call_timeout(config.call_timeout))
    }

    /// All breakers that are registered here, by name.
    pub fn breakers(&self) -> Vec<Breaker> {
        let mut all: Vec<_> = self.breakers.all().into_iter().map(Breaker::new).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Every breaker of the fleet as the store has it, after this instance has told the store all it knows.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn fleet(&self) -> Result<Vec<FleetBreaker>, Error> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::new(ErrorKind::ShutDown);
        self.requests.send(Command::Fleet(answer)).map_err(|_| gone())?;
        let rows = answered.await.map_err(|_| gone())??;
        let mut fleet = Vec::with_capacity(rows.len());
        for row in rows {
            match row.view {
                Ok((record, counts, run)) => fleet.push(FleetBreaker {
                    name: row.name.to_string(),
                    state: record.state,
                    epoch: record.epoch,
                    reason: record.reason,
                    actor: record.actor,
                    originator: record.originator,
                    retry_after: record.remaining_us.map(Duration::from_micros),
                    failures: counts.failures,
                    successes: counts.successes,
                    consecutive_failures: run,
                }),
                Err(problem) => self.context.events.error(Error::new(ErrorKind::Data {
                    what: format!("breaker \"{}\"", row.name),
                    problem,
                })),
            }
        }
        fleet.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(fleet)
    }

    /// [Resets](Breaker::reset) every breaker of the fleet.
    ///
    /// # Errors
    /// If the store does not answer; some breakers may have been reset then, and others not.
    pub async fn reset_all(&self) -> Result<(), Error> {
        let breaker = |row: FleetBreaker| Breaker::new(self.look(&row.name));
        // All at once: one batch carries many.
        let placed: Vec<_> = self.fleet().await?.into_iter().map(|row| breaker(row).begin_reset()).collect();
        let mut result = Ok(());
        for placed in placed {
            result = result.and(placed.taken().await);
        }
        result
    }

    /// Puts `config` in the place of what was said from outside the code before (at
    /// [`RegistryBuilder::config`] or at the last reload): for all breakers that are registered and all that will be. None loses
    /// a count or changes its state by this; what a breaker has counted is judged by the new settings from then on.
    /// Annotated functions follow with their `call_timeout` and `cache_ttl`; calls under way keep theirs.
    ///
    /// All or nothing: if something in `config` cannot be meant, or contradicts an attribute, everything stays as it is. The
    /// fleet's other instances have to be told by themselves.
    ///
    /// # Errors
    /// Says what cannot be meant. `redis` and `namespace` may be left out, but not be others than before.
    pub fn reload(&self, config: RegistryConfig) -> Result<(), Error> {
        self.place.stays(&config)?;
        let layers = Layers::new(&self.code, &config)?;
        // Nobody can register a breaker until this is done.
        let mut current = self.context.layers_mut();
        let mut changes = Vec::new();
        for core in self.breakers.all() {
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
        Ok(())
    }

    /// All events from now on.
    pub fn subscribe(&self) -> Events {
        self.context.events.subscribe()
    }

    /// The id under which this instance appears as originator of changes.
    pub fn instance(&self) -> &str {
        &self.context.instance
    }

    /// Tells the store what it does not know yet, gives back what is held, and ends the background work.
    /// Calls go on, guarded by this instance alone. Cancelling abandons the wait, not the shutdown.
    pub async fn shutdown(&self) {
        self.context.cache.flush(LAST_WRITES).await;
        let (done, is_done) = oneshot::channel();
        if self.requests.send(Command::Shutdown(done)).is_ok() {
            let _ = is_done.await;
        }
        #[cfg(feature = "metrics")]
        self.published.flush(LAST_WRITES).await;
    }

    /// Tells registries of one process apart; never 0.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The breaker of an annotated function, created with the attribute's `config` at its first call. Never
    /// fails: a config that cannot be meant is reported, and left out.
    pub(crate) fn core(&self, name: &str, config: &BreakerConfig) -> Arc<Core> {
        match self.breakers.pin(name) {
            Some(core) => self.registered_again(core, config),
            None => self.made(name, config, |make| self.breakers.get_or_insert(name, make.make())),
        }
    }

    /// The same for a function whose name is made of its arguments.
    #[inline]
    pub(crate) fn keyed(&self, name: &str, config: &BreakerConfig, site: KeyedSite) -> Arc<Core> {
        match self.breakers.get_keyed(name, site) {
            Some(KeyedBreaker { core, first: false }) => core,
            Some(KeyedBreaker { core, first: true }) => self.registered_again(core, config),
            None => self.new_guest(name, config, site),
        }
    }

    #[cold]
    fn new_guest(&self, name: &str, config: &BreakerConfig, site: KeyedSite) -> Arc<Core> {
        let admitted = |make: Maker| self.breakers.get_or_admit(name, site, make.make());
        if !name.is_empty()
            && let Some(core) = self.made(name, config, admitted)
        {
            return core;
        }
        if self.reports.are_due(self.context.clock.now()) {
            let (breaker, places) = (name.into(), self.breakers.places());
            self.report(Error::new(ErrorKind::Unguarded { breaker, places }));
        }
        self.made(name, config, |make| make.detached(name.into()))
    }

    /// The breaker of that name for someone who only looks at it or steers it.
    fn look(&self, name: &str) -> Arc<Core> {
        match self.breakers.get(name) {
            Some(core) => core,
            None => self.made(name, &BreakerConfig::default(), |make| self.breakers.look(name, make.make())),
        }
    }

    fn registered_again(&self, core: Arc<Core>, config: &BreakerConfig) -> Arc<Core> {
        if config.is_about_the_breaker() {
            let layers = self.context.layers();
            let (given, settings) = self.usable(&layers, core.name(), config);
            core.registered_again(&given, &settings);
        }
        core
    }

    /// What `then` does with all that it takes to make the breaker of that name.
    fn made<T>(&self, name: &str, config: &BreakerConfig, then: impl FnOnce(Maker) -> T) -> T {
        // Held until the breaker is in the breakers: a reload finds it there, or has been before.
        let layers = self.context.layers();
        if let Err(error) = layers.claim(name) {
            self.report(error);
        }
        let (given, settings) = self.usable(&layers, name, config);
        then(Maker {
            given,
            settings,
            per_function: layers.per_function(name),
            context: self.context.clone(),
        })
    }

    /// A config that cannot be meant is reported, and left out.
    fn usable(&self, layers: &Layers, name: &str, config: &BreakerConfig) -> (BreakerConfig, Settings) {
        match layers.resolve(name, config) {
            Ok(settings) => (config.clone(), settings),
            Err(error) => {
                self.report(error);
                let nothing = BreakerConfig::default();
                let settings = layers.resolve(name, &nothing).expect("the layers resolve by themselves");
                (nothing, settings)
            }
        }
    }

    /// Tells whoever listens for errors.
    pub(crate) fn report(&self, error: Error) {
        self.context.events.error(error);
    }
}

/// All that it takes to make a breaker.
struct Maker {
    given: BreakerConfig,
    settings: Settings,
    per_function: PerFunction,
    context: Arc<RegistryContext>,
}

impl Maker {
    fn make(self) -> impl FnOnce(Arc<str>, Option<(Record, Moment)>) -> Arc<Core> {
        let Maker { given, settings, per_function, context } = self;
        move |name, held| Core::new(name, given, settings, per_function, held, context)
    }

    fn detached(self, name: Arc<str>) -> Arc<Core> {
        Core::detached(name, self.given, self.settings, self.per_function, self.context)
    }
}

/// Where the shared state lives: what a running registry cannot change any more.
struct Place {
    /// As far as a config said so.
    redis: Option<String>,
    namespace: String,
}

impl Place {
    fn stays(&self, config: &RegistryConfig) -> Result<(), Error> {
        let other = |field, what| {
            let problem =
                format!("{what} cannot change while the registry runs; build another one, or start again");
            Err(Error::config(field, problem))
        };
        // Not the addresses themselves: they may carry passwords.
        if config.redis.is_some() && config.redis != self.redis {
            return other("redis", "the address of the store");
        }
        if config.namespace.as_ref().is_some_and(|namespace| *namespace != self.namespace) {
            return other("namespace", "it");
        }
        Ok(())
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::store("starting the coordinator thread", error)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("instance", &self.context.instance)
            .field("breakers", &self.breakers())
            .finish_non_exhaustive()
    }
}
