//! Builds a registry: its parts, its coordinator, and its first contact with the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

#[cfg(feature = "metrics")]
use super::MeteredRegistry;
use super::unregistered::Unregistered;
use super::{Address, Registry, RegistryBuilder, Shared, UNGUARDED_PERIOD, fleet, no_thread, node, presence};
use crate::breaker::context::RegistryContext;
use crate::breakers::BreakerMap;
use crate::cache::Cache;
use crate::clock::Clock;
#[cfg(feature = "config")]
use crate::config::Code;
use crate::config::{CacheLimits, Layers, RegistryConfig, environment};
use crate::error::Error;
use crate::event::EventBus;
#[cfg(feature = "metrics")]
use crate::metrics;
use crate::report_limiter::ReportLimiter;
use crate::store::{Overview, ResultStore, Store};
use crate::timeouts::Timeouts;
use crate::{background, coordinator};

impl Registry {
    pub(super) fn from_environment() -> Registry {
        environment::report_unknown();
        let mut config = RegistryConfig::default();
        #[cfg(feature = "config")]
        match RegistryConfig::from_env()
            .and_then(|config| Layers::new(&Code::default(), &config).map(|_| config))
        {
            Ok(read) => config = read,
            Err(error) => {
                tracing::error!(target: "cb_runtime", %error, "the environment's settings for circuit breakers are not used");
                eprintln!("cb-runtime: the environment's settings are not used: {error}");
            }
        }
        let attempt = environment::read_store(&mut config)
            .and_then(|()| Registry::builder().config(config.clone()).build());
        attempt.unwrap_or_else(|error| {
            tracing::error!(target: "cb_runtime", %error, "circuit breakers are not shared");
            eprintln!("cb-runtime: circuit breakers are not shared: {error}");
            config.redis = None;
            Registry::builder().config(config).build().expect("settings without an address are valid")
        })
    }

    pub(super) fn start(
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
}
