//! A running fleet under load, and what is to be seen of it from outside, over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fleet::{Fleet, INSTANCES};
use super::load::Load;
use super::process::Stopped;
use crate::auth::Stats;
use crate::profile::Circuit;
use crate::service::now_us;

/// The services are asked how they do so often.
const LOOK: Duration = Duration::from_millis(50);
/// What ought to happen within a second or two is waited for so long: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be seen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Every instance's view of the breaker.
    pub circuits: Vec<Circuit>,
    /// What auth tells.
    pub auth: Stats,
    /// Requests to auth per second, lately.
    pub auth_rate: f64,
}

impl Sight {
    /// Every instance's circuit is like this.
    pub fn all(&self, condition: impl FnMut(&Circuit) -> bool) -> bool {
        self.circuits.len() == INSTANCES.len() && self.circuits.iter().all(condition)
    }

    /// What an instance says.
    pub fn of(&self, instance: &str) -> Option<&Circuit> {
        self.circuits.iter().find(|circuit| circuit.instance == instance)
    }
}

/// A running fleet under load, watched.
pub struct Stage {
    /// The fleet.
    pub fleet: Arc<Fleet>,
    /// The load on its gateway.
    pub load: Load,
    /// When it began, in microseconds of the wall clock.
    pub started_us: u64,
    /// Who looks at it; holds a share of the fleet.
    pub watcher: Watcher,
    sight: watch::Receiver<Sight>,
}

/// Looks at the services again and again.
pub struct Watcher(JoinHandle<()>);

impl Watcher {
    /// Ends it, and with it its share of the fleet.
    pub async fn stop(self) {
        self.0.abort();
        // An error says that it was aborted: that was the wish.
        let _ = self.0.await;
    }
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub async fn set(executable: &Path, breaker: &str) -> anyhow::Result<Stage> {
        let fleet = Arc::new(Fleet::start(executable, breaker).await?);
        let load = Load::start(fleet.gateway.url())?;
        let (sender, sight) = watch::channel(Sight::default());
        let watcher = Watcher(tokio::spawn(look(fleet.clone(), sender)));
        Ok(Stage { fleet, load, started_us: now_us(), sight, watcher })
    }

    /// What is to be seen now.
    pub fn sight(&self) -> Sight {
        self.sight.borrow().clone()
    }

    /// Waits until something is to be seen.
    ///
    /// # Errors
    /// If it does not come to that within twenty seconds, saying what.
    pub async fn until(&self, what: &str, condition: impl FnMut(&Sight) -> bool) -> anyhow::Result<()> {
        let mut sight = self.sight.clone();
        let seen = tokio::time::timeout(PATIENCE, sight.wait_for(condition)).await;
        seen.with_context(|| format!("waited {PATIENCE:?} in vain: {what}"))?
            .context("the watcher has ended")?;
        Ok(())
    }

    /// Ends the load, and tells every process to stop.
    ///
    /// # Errors
    /// If one of them does not end at all.
    pub async fn clear(self) -> anyhow::Result<Vec<Stopped>> {
        self.load.stop();
        self.watcher.stop().await;
        Arc::into_inner(self.fleet).context("the fleet is still in use")?.stop().await
    }
}

async fn look(fleet: Arc<Fleet>, sender: watch::Sender<Sight>) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut before: Vec<(u64, u64)> = Vec::new();
    loop {
        ticks.tick().await;
        // A service that does not answer is looked at again.
        let (Ok(circuits), Ok(auth)) = (fleet.circuits().await, fleet.auth_stats().await) else { continue };
        before.push((now_us(), auth.total()));
        before.drain(..before.len().saturating_sub(20));
        let ((then, had), (now, has)) = (before[0], before[before.len() - 1]);
        #[allow(clippy::cast_precision_loss, reason = "a second's requests")]
        let auth_rate = if now > then { (has - had) as f64 * 1e6 / (now - then) as f64 } else { 0.0 };
        sender.send_replace(Sight { circuits, auth, auth_rate });
    }
}
