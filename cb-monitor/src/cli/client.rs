//! The registry of one command. It only reads, and registers no breaker.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::inspect::Target;
use cb_runtime::{Event, Registry};

use super::Failure;
use super::args::Connection;
use crate::figures::Figures;
use crate::fleet::Source;
use crate::sync::lock;

/// The longest wait for the store's answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Client {
    pub(super) registry: Registry,
    pub(super) source: Source,
    /// The latest background error that may be why the store does not answer: more specific than "no answer".
    error: Arc<Mutex<Option<String>>>,
}

impl Connection {
    /// The Redis that the options name.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        match (&self.sentinel, &*self.redis) {
            (Some(master), urls) => Ok(Target::Sentinel { urls: urls.to_vec(), master: master.clone() }),
            (None, nodes) if self.cluster => Ok(Target::Cluster(nodes.to_vec())),
            (None, [one]) => Ok(Target::Single(one.clone())),
            (None, _) => {
                let error = "several addresses need --cluster, or --sentinel with the master's name";
                Err(Failure::Usage(error.into()))
            }
        }
    }
}

impl Client {
    pub(super) fn connect(connection: &Connection) -> Result<Client, Failure> {
        let error = Arc::new(Mutex::new(None));
        let latest = error.clone();
        let builder = Registry::builder().namespace(&connection.namespace);
        let builder = builder.on_error(move |error| {
            if !error.is_data() {
                *lock(&latest) = Some(error.to_string());
            }
        });
        let builder = match connection.target()? {
            Target::Single(url) => builder.redis(url),
            Target::Cluster(nodes) => builder.redis_cluster(nodes),
            Target::Sentinel { urls, master } => builder.redis_sentinel(urls, master),
        };
        let registry = builder.build().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Client { source: Source::new(registry.clone()), registry, error })
    }

    /// Reads the fleet into `figures`. Returns what is damaged in the store: a damaged breaker is left out.
    pub(super) async fn read(&self, figures: &mut Figures) -> Result<BTreeSet<String>, Failure> {
        let mut events = self.source.subscribe();
        match tokio::time::timeout(PATIENCE, self.source.read()).await {
            Ok(Ok(readings)) => {
                figures.update(readings, Instant::now(), SystemTime::now());
                // Sent during the reading, so they are all here.
                let problems = std::iter::from_fn(|| events.try_recv()).filter_map(|event| match event {
                    Event::Error(error) if error.is_data() => Some(error.to_string()),
                    _ => None,
                });
                Ok(problems.collect())
            }
            Ok(Err(error)) => Err(self.away(&error.to_string())),
            Err(_) => Err(self.away(&format!("no answer within {PATIENCE:?}"))),
        }
    }

    /// The failure to read the store, with its cause.
    pub(super) fn away(&self, problem: &str) -> Failure {
        let cause = lock(&self.error).clone().unwrap_or_else(|| problem.into());
        Failure::Store(format!("the fleet's Redis cannot be read: {cause}; `cbctl doctor` shows why"))
    }

    pub(super) async fn close(&self) {
        self.registry.shutdown().await;
    }
}
