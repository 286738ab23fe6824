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
mod registration;
mod request;
mod start;
mod unregistered;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

pub use builder::RegistryBuilder;
pub use control::Control;
#[cfg(feature = "metrics")]
pub(crate) use metered::MeteredRegistry;

use crate::breaker::Breaker;
use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::config::{BreakerConfig, Code, Layers, RegistryConfig};
use crate::coordinator::Command;
use crate::deadline::{ANSWER, within};
use crate::error::Error;
use crate::event::Events;
#[cfg(feature = "metrics")]
use crate::metrics;
use crate::report_limiter::ReportLimiter;
use crate::snapshot::StoreStatus;
use crate::store::{Overview, Retention, Store};
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
    retention: Option<Retention>,
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
    /// invalid, that is reported too, and none of the environment's settings is used but the first two.
    pub fn global() -> &'static Registry {
        GLOBAL.get_or_init(Registry::from_environment)
    }

    /// The breaker of that name, if it is registered here or the fleet has it in a state other than closed.
    /// To steer any other, see [`control`](Self::control).
    ///
    /// If it is not registered here, the instances that have registered it judge it. After a call through
    /// this handle, this instance judges it, too. Its settings are then those of
    /// [`RegistryBuilder::configure`], and the defaults for the rest.
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
    /// `response_timeout` and `cache_limits` stay as they were when the registry was built.
    pub fn reload(&self, config: RegistryConfig) -> Result<(), Error> {
        self.shared.address.check_kept_by(&config)?;
        if config.node.is_some() && node::name(config.node.clone()) != self.context.node {
            return Err(Error::config(
                "node",
                "it cannot change while the registry runs; restart to change it",
            ));
        }
        config.cache_limits.unwrap_or_default().validate()?;
        config.response_timeout.map(Timeouts::new).transpose()?;
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
            let leaving = async move { overview.forget(vec![instance]).await };
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

    #[cfg(test)]
    pub(crate) fn map(&self) -> &BreakerMap {
        &self.breakers
    }

    /// Sends an error to all subscribers.
    pub(crate) fn report(&self, error: Error) {
        self.context.events.error(error);
    }
}

/// The settings that a running registry cannot change.
struct Address {
    /// The address, if a config has set it.
    redis: Option<String>,
    namespace: String,
}

impl Address {
    fn check_kept_by(&self, config: &RegistryConfig) -> Result<(), Error> {
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
    Error::store("starting a background thread", error)
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("instance", &self.context.instance)
            .field("breakers", &self.breaker_count())
            .finish_non_exhaustive()
    }
}
