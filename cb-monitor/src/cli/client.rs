//! A registry that only watches, for the time of one command.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::Registry;

use super::Failure;
use super::args::Connection;
use crate::figures::Figures;
use crate::fleet::Source;
use crate::sync::lock;

/// A store that has not answered by then is away.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Client {
    pub(super) registry: Registry,
    pub(super) source: Source,
    /// The latest error in the background, which says more than "no answer".
    error: Arc<Mutex<Option<String>>>,
}

impl Client {
    pub(super) fn connect(connection: &Connection) -> Result<Client, Failure> {
        let error = Arc::new(Mutex::new(None));
        let heard = error.clone();
        let builder = Registry::builder().namespace(&connection.namespace);
        let builder = builder.on_error(move |error| *lock(&heard) = Some(error.to_string()));
        let builder = match (&connection.sentinel, &*connection.redis) {
            (Some(master), sentinels) => builder.redis_sentinel(sentinels, master),
            (None, nodes) if connection.cluster => builder.redis_cluster(nodes),
            (None, [one]) => builder.redis(one),
            (None, _) => {
                let error = "several addresses need --cluster, or --sentinel with the master's name";
                return Err(Failure::Usage(error.into()));
            }
        };
        let registry = builder.build().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Client { source: Source::new(registry.clone()), registry, error })
    }

    /// Reads the fleet into `figures`.
    pub(super) async fn read(&self, figures: &mut Figures) -> Result<(), Failure> {
        match tokio::time::timeout(PATIENCE, self.source.read()).await {
            Ok(Ok(readings)) => {
                figures.update(readings, Instant::now(), SystemTime::now());
                Ok(())
            }
            Ok(Err(error)) => Err(self.away(&error.to_string())),
            Err(_) => Err(self.away(&format!("no answer within {PATIENCE:?}"))),
        }
    }

    /// Says why the store could not be asked.
    pub(super) fn away(&self, problem: &str) -> Failure {
        let cause = lock(&self.error).clone().unwrap_or_else(|| problem.into());
        Failure::Store(format!("the fleet's Redis cannot be read: {cause}; `cbctl doctor` says more"))
    }

    pub(super) async fn close(&self) {
        self.registry.shutdown().await;
    }
}
