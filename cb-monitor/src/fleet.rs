//! Reads the fleet from a registry, and carries actions out. No other module of the monitor reads a registry.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cb_runtime::{
    Breaker, Error, Events, FleetBreaker, FleetQuery, InstanceInfo, Registry, Snapshot, State, StoreStatus,
    Transition, WindowSnapshot,
};
use serde::Serialize;

use crate::action::{Action, ActionRequest, Refusal};
use crate::settings::FleetSettings;

/// An action is in doubt if the store has not answered after this time.
const ACTION_LIMIT: Duration = Duration::from_secs(5);
/// The number of breakers in one request.
const PAGE: usize = 1000;

/// The registry whose fleet the monitor shows.
#[derive(Clone)]
pub(crate) struct Source {
    registry: Registry,
}

/// One breaker's figures for the whole fleet, as the store has them.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) name: Arc<str>,
    pub(crate) state: State,
    pub(crate) epoch: u64,
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) originator: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) failures: u64,
    pub(crate) successes: u64,
    pub(crate) consecutive_failures: u64,
    pub(crate) slow: u64,
    /// Rejected calls of all instances since their start. Zero until some seconds after the first reading.
    pub(crate) rejected: u64,
    /// Failed and rejected calls that were answered by a cached result; available when `rejected` is.
    pub(crate) cached: u64,
    /// Failed and rejected calls that were answered by a fallback; available when `rejected` is.
    pub(crate) fallback: u64,
    /// Trips that a metrics-only breaker would have made; available when `rejected` is.
    pub(crate) would_have_opened: u64,
    pub(crate) would_have_opened_at: Option<SystemTime>,
    /// The ids of instances that have opened the circuit locally only.
    pub(crate) isolated: Vec<String>,
    pub(crate) window: Option<WindowSnapshot>,
    /// Probes that are under way.
    pub(crate) probes: u32,
    /// The number of consecutive openings without a close.
    pub(crate) openings: u32,
    /// The instance that runs the health checks.
    pub(crate) leader: Option<String>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) last_failure_at: Option<SystemTime>,
    /// Whether this process has decided on this state locally, because the store does not answer.
    pub(crate) local: bool,
}

/// The fleet's instances, and the breakers whose settings differ between them.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Instances {
    /// The id of this process.
    pub(crate) own: String,
    /// The number of instances that have reported within the last 15 seconds.
    pub(crate) alive: usize,
    /// The number of instances that have not: they have ended, or have lost the store and decide locally.
    pub(crate) silent: usize,
    /// Breakers whose settings differ between instances.
    pub(crate) drifting: Vec<String>,
    #[serde(skip)]
    pub(crate) list: Vec<InstanceInfo>,
    #[serde(skip)]
    pub(crate) settings: Arc<FleetSettings>,
}

impl Source {
    pub(crate) fn new(registry: Registry) -> Source {
        Source { registry }
    }

    pub(crate) fn subscribe(&self) -> Events {
        self.registry.subscribe()
    }

    /// The id of this process.
    pub(crate) fn own(&self) -> &str {
        self.registry.instance()
    }

    /// The fleet's instances.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn instances(&self) -> Result<Instances, Error> {
        let list = self.registry.instances().await?;
        let settings = Arc::new(FleetSettings::new(self.registry.fleet_settings().await?));
        let silent = list.iter().filter(|instance| instance.degraded).count();
        let (own, drifting) = (self.own().into(), settings.drifting());
        Ok(Instances { own, alive: list.len() - silent, silent, drifting, list, settings })
    }

    /// Every breaker of the namespace, as the store has it.
    ///
    /// Reads by pages, because one request for ten thousand breakers would delay this process' own exchanges.
    /// A breaker whose state changes between two pages may be read twice, or not until the next reading.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn read(&self) -> Result<Vec<Reading>, Error> {
        self.read_pages(FleetQuery::default()).await
    }

    /// The state of one breaker, as the store has it; `None` if it does not know the breaker.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn state(&self, name: &str) -> Result<Option<State>, Error> {
        let found = self.read_pages(FleetQuery::default().search(name)).await?;
        Ok(found.into_iter().find(|reading| &*reading.name == name).map(|reading| reading.state))
    }

    async fn read_pages(&self, query: FleetQuery) -> Result<Vec<Reading>, Error> {
        let mut readings = Vec::new();
        let mut query = query.limit(PAGE);
        loop {
            let page = self.registry.fleet_page(&query).await?;
            readings.extend(page.breakers.into_iter().map(Reading::from));
            match page.next {
                Some(next) => query = query.after(next),
                None => return Ok(readings),
            }
        }
    }

    /// This process' breakers whose state differs from the fleet's, which `known` gives. There are some only
    /// while the store does not answer.
    pub(crate) fn local_readings(&self, known: impl Fn(&str) -> Option<State>) -> Vec<Reading> {
        let differs = |breaker: &Breaker| known(breaker.name()) != Some(breaker.state());
        let local = self.registry.breakers().into_iter().filter(differs);
        local.map(|breaker| Reading::from(breaker.snapshot())).collect()
    }

    /// The snapshot of a breaker that this process has registered.
    pub(crate) fn snapshot(&self, name: &str) -> Option<Snapshot> {
        self.registry.breaker(name).map(|breaker| breaker.snapshot())
    }

    /// The latest transitions that the store keeps, oldest first.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn history(&self, limit: usize) -> Result<Vec<Transition>, Error> {
        let mut history = self.registry.history(limit).await?;
        history.reverse();
        Ok(history)
    }

    pub(crate) fn store_status(&self) -> StoreStatus {
        self.registry.store_status()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.registry.namespace()
    }

    /// Carries out an action.
    ///
    /// # Errors
    /// [`Refusal::InDoubt`] if the store has not confirmed the action: after an error, too, the store may
    /// still receive it, or have carried it out.
    pub(crate) async fn perform(&self, name: &str, request: &ActionRequest) -> Result<(), Refusal> {
        let control = self.registry.control(name);
        let control = control.by(&request.actor).because(&request.reason);
        let control = match request.expires_in {
            Some(span) => control.expires_in(span),
            None => control,
        };
        let carried_out = async {
            match request.action {
                Action::Open => control.force_open(&request.reason).await,
                Action::Disable => control.disable(&request.reason).await,
                Action::MetricsOnly => control.metrics_only(&request.reason).await,
                Action::Release => control.release().await,
                Action::Reset => control.reset().await,
            }
        };
        let problem = match tokio::time::timeout(ACTION_LIMIT, carried_out).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it has not answered in time".into(),
        };
        Err(Refusal::InDoubt(format!(
            "the store has not confirmed the action ({problem}); look at the breaker before trying again: the action \
             may have arrived"
        )))
    }
}

impl From<FleetBreaker> for Reading {
    fn from(breaker: FleetBreaker) -> Reading {
        Reading {
            name: breaker.name.into(),
            state: breaker.state,
            epoch: breaker.epoch,
            reason: breaker.reason,
            actor: breaker.actor,
            originator: breaker.originator,
            retry_after: breaker.retry_after,
            failures: breaker.failures,
            successes: breaker.successes,
            consecutive_failures: breaker.consecutive_failures,
            slow: breaker.slow,
            rejected: breaker.outcomes.rejected + breaker.outcomes.ramp_rejected,
            cached: breaker.outcomes.cached,
            fallback: breaker.outcomes.fallback,
            would_have_opened: breaker.would_have_opened,
            would_have_opened_at: breaker.would_have_opened_at,
            isolated: breaker.isolated,
            window: breaker.window,
            probes: breaker.probes,
            openings: breaker.openings,
            leader: breaker.leader,
            since: breaker.since,
            last_failure_at: breaker.last_failure_at,
            local: false,
        }
    }
}

/// While the store does not answer, the breaker of this process stands in for the fleet's.
impl From<Snapshot> for Reading {
    fn from(snapshot: Snapshot) -> Reading {
        Reading {
            epoch: snapshot.epoch,
            reason: snapshot.reason,
            actor: snapshot.actor,
            retry_after: snapshot.retry_after,
            failures: snapshot.failures,
            successes: snapshot.successes,
            consecutive_failures: snapshot.consecutive_failures,
            rejected: snapshot.outcomes.rejected + snapshot.outcomes.ramp_rejected,
            cached: snapshot.outcomes.cached,
            fallback: snapshot.outcomes.fallback,
            window: snapshot.window,
            since: snapshot.since,
            last_failure_at: snapshot.last_failure_at,
            local: snapshot.local,
            ..Reading::new(snapshot.name.into(), snapshot.state)
        }
    }
}

/// Until the next reading, a transition tells the state that it leads to.
impl From<&Transition> for Reading {
    fn from(transition: &Transition) -> Reading {
        Reading {
            epoch: transition.epoch,
            reason: transition.reason.clone(),
            actor: transition.actor.clone(),
            originator: transition.originator.clone(),
            retry_after: transition.open_for,
            ..Reading::new(transition.breaker.clone(), transition.to)
        }
    }
}

impl Reading {
    /// A breaker of which nothing is known but its state.
    fn new(name: Arc<str>, state: State) -> Reading {
        Reading {
            name,
            state,
            epoch: 0,
            reason: String::new(),
            actor: String::new(),
            originator: String::new(),
            retry_after: None,
            failures: 0,
            successes: 0,
            consecutive_failures: 0,
            slow: 0,
            rejected: 0,
            cached: 0,
            fallback: 0,
            would_have_opened: 0,
            would_have_opened_at: None,
            isolated: Vec::new(),
            window: None,
            probes: 0,
            openings: 0,
            leader: None,
            since: None,
            last_failure_at: None,
            local: false,
        }
    }
}
