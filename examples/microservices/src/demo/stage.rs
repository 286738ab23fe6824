//! A running fleet under load, observed from outside over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cb_runtime::State;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fleet::{Fleet, INSTANCES};
use super::load::Load;
use super::process::Stopped;
use crate::auth::Stats;
use crate::profile::Circuit;
use crate::service::now_us;

/// The interval between two observations.
const LOOK: Duration = Duration::from_millis(50);
/// The limit of a wait for something that should take a second or two: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The services' state at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Each instance's view of the breaker.
    pub circuits: Vec<Circuit>,
    /// Auth's statistics.
    pub auth: Stats,
    /// The current rate of requests to auth, per second.
    pub auth_rate: f64,
}

impl Observation {
    /// Whether all instances were observed and satisfy the condition.
    pub fn all(&self, condition: impl FnMut(&Circuit) -> bool) -> bool {
        self.circuits.len() == INSTANCES.len() && self.circuits.iter().all(condition)
    }

    /// The view of one instance.
    pub fn of(&self, instance: &str) -> Option<&Circuit> {
        self.circuits.iter().find(|circuit| circuit.instance == instance)
    }
}

/// A running fleet under load and observation.
pub struct Stage {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// The load on its gateway.
    pub load: Load,
    /// When the load started, in microseconds of the wall clock.
    pub started_us: u64,
    /// The task that observes the fleet. It holds a reference to it.
    pub watcher: Watcher,
    observation: watch::Receiver<Observation>,
}

/// The task that observes the services.
pub struct Watcher(JoinHandle<()>);

impl Watcher {
    /// Ends the task and releases its reference to the fleet.
    pub async fn stop(self) {
        self.0.abort();
        // The error of an aborted task is expected.
        let _ = self.0.await;
    }
}

impl Stage {
    /// Starts the fleet, the load and the observation.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub async fn set(executable: &Path, breaker: &str) -> anyhow::Result<Stage> {
        let fleet = Arc::new(Fleet::start(executable, breaker).await?);
        let load = Load::start(fleet.gateway.url())?;
        let (sender, observation) = watch::channel(Observation::default());
        let watcher = Watcher(tokio::spawn(observe(fleet.clone(), sender)));
        Ok(Stage { fleet, load, started_us: now_us(), observation, watcher })
    }

    /// The latest observation.
    pub fn observation(&self) -> Observation {
        self.observation.borrow().clone()
    }

    /// Waits until the observation satisfies the condition.
    ///
    /// # Errors
    /// If that takes longer than a minute. The error has `what`.
    pub async fn until(&self, what: &str, condition: impl FnMut(&Observation) -> bool) -> anyhow::Result<()> {
        let mut observation = self.observation.clone();
        let seen = tokio::time::timeout(PATIENCE, observation.wait_for(condition)).await;
        seen.with_context(|| format!("not within {PATIENCE:?}: {what}"))?.context("the watcher has ended")?;
        Ok(())
    }

    /// Waits until all circuits are closed, and Redis is reached.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub async fn until_all_healthy(&self) -> anyhow::Result<()> {
        let well = |observation: &Observation| {
            observation.all(|circuit| circuit.state == State::Closed && circuit.shared)
        };
        self.until("all circuits are closed, and Redis is reached", well).await
    }

    /// Ends the load and stops every process.
    ///
    /// # Errors
    /// If a process does not end.
    pub async fn clear(self) -> anyhow::Result<Vec<Stopped>> {
        self.load.stop();
        self.watcher.stop().await;
        Arc::into_inner(self.fleet).context("the fleet is still in use")?.stop().await
    }
}

async fn observe(fleet: Arc<Fleet>, sender: watch::Sender<Observation>) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut before: Vec<(u64, u64)> = Vec::new();
    loop {
        ticks.tick().await;
        // A service that does not answer is tried again at the next tick.
        let (Ok(circuits), Ok(auth)) = (fleet.circuits().await, fleet.auth_stats().await) else { continue };
        before.push((now_us(), auth.total()));
        before.drain(..before.len().saturating_sub(20));
        let ((then, had), (now, has)) = (before[0], before[before.len() - 1]);
        #[allow(clippy::cast_precision_loss, reason = "a second's requests")]
        let auth_rate = if now > then { (has - had) as f64 * 1e6 / (now - then) as f64 } else { 0.0 };
        sender.send_replace(Observation { circuits, auth, auth_rate });
    }
}
