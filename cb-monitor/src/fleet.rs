//! What the runtime says, in the monitor's own shapes. The only module that asks a registry anything.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cb_runtime::{
    Breaker, Error, Events, FleetBreaker, FleetQuery, InstanceInfo, Registry, Snapshot, State, StoreStatus,
    Transition, WindowSnapshot,
};
use serde::Serialize;

use crate::figures::{Rates, Row};
use crate::settings::FleetSettings;

/// An operator's order takes longer than this only where the store does not answer.
const ORDER_LIMIT: Duration = Duration::from_secs(5);
/// Breakers that are read at once.
const PAGE: usize = 1000;
/// A longer reason or actor would be cut by the store.
const MAX_TEXT: usize = 200;

/// A registry, asked for what the monitor shows.
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
    /// Calls that were not made, by all instances since their start. Known some seconds after the first
    /// reading.
    pub(crate) rejected: u64,
    /// Failed and rejected calls that a cached result has answered; known as `rejected` is.
    pub(crate) cached: u64,
    /// Failed and rejected calls for which a fallback was called; known as `rejected` is.
    pub(crate) fallback: u64,
    /// Trips that a metrics-only breaker would have made; known as `rejected` is.
    pub(crate) would_have_opened: u64,
    pub(crate) would_have_opened_at: Option<SystemTime>,
    /// The ids of instances that have opened the circuit for themselves only.
    pub(crate) isolated: Vec<String>,
    pub(crate) window: Option<WindowSnapshot>,
    /// Probes that are under way.
    pub(crate) probes: u32,
    /// How often the circuit has opened in a row.
    pub(crate) openings: u32,
    /// The instance that makes the health checks.
    pub(crate) leader: Option<String>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) last_failure_at: Option<SystemTime>,
    /// What this process alone has decided, while the store is away.
    pub(crate) local: bool,
}

/// Instances of the fleet, by their signs of life, and what they disagree on.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Instances {
    /// The id of this process.
    pub(crate) own: String,
    /// How many give signs of life.
    pub(crate) alive: usize,
    /// How many have been silent for 15 seconds: gone, or cut off and deciding by themselves.
    pub(crate) silent: usize,
    /// Breakers whose settings differ between instances.
    pub(crate) drifting: Vec<String>,
    #[serde(skip)]
    pub(crate) list: Vec<InstanceInfo>,
    #[serde(skip)]
    pub(crate) settings: Arc<FleetSettings>,
}

/// What an order concerns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BlastRadius {
    /// How many instances have the breaker; all that are alive, if none has told.
    pub(crate) instances: usize,
    /// Calls that are made, and that are not.
    pub(crate) calls_per_second: f64,
}

impl BlastRadius {
    pub(crate) fn of(row: &Row, instances: &Instances) -> BlastRadius {
        let silent = |id: &str| instances.list.iter().any(|known| known.degraded && *known.id == *id);
        let told = instances.settings.of(&row.name).iter();
        let told = told.filter(|settings| !silent(&settings.instance)).count();
        let Rates { calls, rejected, .. } = row.per_second;
        BlastRadius {
            instances: if told > 0 { told } else { instances.alive },
            calls_per_second: calls + rejected.unwrap_or(0.0),
        }
    }
}

impl fmt::Display for BlastRadius {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instances = if self.instances == 1 { "instance" } else { "instances" };
        let calls = match self.calls_per_second {
            0.0 => "no calls at the moment".to_owned(),
            few if few < 1.0 => "less than 1 call a second".to_owned(),
            calls if calls < 1.5 => "1 call a second".to_owned(),
            calls => format!("{calls:.0} calls a second"),
        };
        write!(f, "{} {instances}, {calls}", self.instances)
    }
}

/// What an operator can order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Open,
    Disable,
    MetricsOnly,
    Release,
    Reset,
}

impl Action {
    pub(crate) const ALL: [Action; 5] =
        [Action::Open, Action::Disable, Action::MetricsOnly, Action::Release, Action::Reset];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Action::Open => "open",
            Action::Disable => "disable",
            Action::MetricsOnly => "metrics-only",
            Action::Release => "release",
            Action::Reset => "reset",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.as_str() == text)
    }

    /// The state that it leads to.
    pub(crate) fn leads_to(self) -> State {
        match self {
            Action::Open => State::ForcedOpen,
            Action::Disable => State::Disabled,
            Action::MetricsOnly => State::MetricsOnly,
            Action::Release | Action::Reset => State::Closed,
        }
    }

    /// Only a manual override has an expiry.
    pub(crate) fn takes_an_expiry(self) -> bool {
        self.leads_to().is_manual()
    }
}

/// An action with everything that is recorded of it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) action: Action,
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) expires_in: Option<Duration>,
}

/// Why an order was not carried out.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// What is asked for is invalid.
    Invalid(String),
    /// The store does not answer; nothing was changed.
    StoreAway(String),
    /// The store's answer did not come; the order may have been carried out.
    InDoubt(String),
}

impl Refusal {
    pub(crate) fn message(&self) -> &str {
        let (Refusal::Invalid(message) | Refusal::StoreAway(message) | Refusal::InDoubt(message)) = self;
        message
    }
}

impl Order {
    /// Checks everything that can be checked before the store is asked.
    ///
    /// # Errors
    /// Says which part is invalid, and what would be valid.
    pub(crate) fn new(
        action: Action,
        reason: &str,
        actor: &str,
        expires_in: Option<&str>,
    ) -> Result<Order, Refusal> {
        let reason = text("reason", reason)?;
        let actor = text("actor", actor)?;
        if reason.is_empty() {
            return Err(Refusal::Invalid(
                "\"reason\" is missing; say in a few words why, for those who will read it at night".into(),
            ));
        }
        let expires_in = expires_in.map(span).transpose()?;
        if expires_in.is_some() && !action.takes_an_expiry() {
            return Err(Refusal::Invalid(format!(
                "\"for\" is invalid with {}: only open, disable and metrics-only have an expiry",
                action.as_str()
            )));
        }
        Ok(Order { action, reason, actor, expires_in })
    }
}

fn text(field: &str, text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if text.len() > MAX_TEXT {
        let error = format!("\"{field}\" has {} bytes; at most {MAX_TEXT} are kept", text.len());
        return Err(Refusal::Invalid(error));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::Invalid(format!("\"{field}\" has control characters; write it in one line")));
    }
    Ok(text.into())
}

/// The longest time of an override with an expiry.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

fn span(text: &str) -> Result<Duration, Refusal> {
    match humantime::parse_duration(text.trim()) {
        Ok(span) if span > LONGEST => Err(Refusal::Invalid(
            "\"for\" must be at most 10 years; without it, an override stays until it is released".into(),
        )),
        Ok(span) if span >= Duration::from_secs(1) => Ok(span),
        Ok(_) => Err(Refusal::Invalid("\"for\" must be at least 1s, as in \"30m\" or \"2h\"".into())),
        Err(error) => {
            Err(Refusal::Invalid(format!("\"for\" must be a span such as \"30m\" or \"2h\": {error}")))
        }
    }
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
    /// By pages, as one reading of ten thousand would keep this process' own exchanges waiting. A breaker
    /// that changes its state meanwhile may be on two pages, or on none until the next reading.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn read(&self) -> Result<Vec<Reading>, Error> {
        let mut readings = Vec::new();
        let mut query = FleetQuery::default().limit(PAGE);
        loop {
            let page = self.registry.fleet_page(&query).await?;
            readings.extend(page.breakers.into_iter().map(Reading::from));
            match page.next {
                Some(next) => query = query.after(next),
                None => return Ok(readings),
            }
        }
    }

    /// Breakers whose state here is not the one that the fleet has as far as `known`; none but while the
    /// store is away.
    pub(crate) fn local_readings(&self, known: impl Fn(&str) -> Option<State>) -> Vec<Reading> {
        let differs = |breaker: &Breaker| known(breaker.name()) != Some(breaker.state());
        let local = self.registry.breakers().into_iter().filter(differs);
        local.map(|breaker| Reading::from(breaker.snapshot())).collect()
    }

    /// What this process knows of a breaker, if it has it registered.
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

    /// Carries an order out.
    ///
    /// # Errors
    /// Says whether anything may have changed.
    pub(crate) async fn obey(&self, name: &str, order: &Order) -> Result<(), Refusal> {
        let control = self.registry.control(name);
        let control = control.by(&order.actor).because(&order.reason);
        let control = match order.expires_in {
            Some(span) => control.expires_in(span),
            None => control,
        };
        let carried_out = async {
            match order.action {
                Action::Open => control.force_open(&order.reason).await,
                Action::Disable => control.disable(&order.reason).await,
                Action::MetricsOnly => control.metrics_only(&order.reason).await,
                Action::Release => control.release().await,
                Action::Reset => control.reset().await,
            }
        };
        match tokio::time::timeout(ORDER_LIMIT, carried_out).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refusal::StoreAway(format!(
                "the store did not take the order ({error}); look at the breaker, then try again"
            ))),
            Err(_) => Err(Refusal::InDoubt(
                "the store has not answered in time; look at the breaker before trying again: the order may have \
                 arrived"
                    .into(),
            )),
        }
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

impl From<Snapshot> for Reading {
    fn from(snapshot: Snapshot) -> Reading {
        Reading {
            name: snapshot.name.into(),
            state: snapshot.state,
            epoch: snapshot.epoch,
            reason: snapshot.reason,
            actor: snapshot.actor,
            originator: String::new(),
            retry_after: snapshot.retry_after,
            failures: snapshot.failures,
            successes: snapshot.successes,
            consecutive_failures: snapshot.consecutive_failures,
            slow: 0,
            rejected: snapshot.outcomes.rejected + snapshot.outcomes.ramp_rejected,
            cached: snapshot.outcomes.cached,
            fallback: snapshot.outcomes.fallback,
            would_have_opened: 0,
            would_have_opened_at: None,
            isolated: Vec::new(),
            window: snapshot.window,
            probes: 0,
            openings: 0,
            leader: None,
            since: snapshot.since,
            last_failure_at: snapshot.last_failure_at,
            local: snapshot.local,
        }
    }
}
