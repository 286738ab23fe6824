//! The profile service. It needs the user's roles from auth for every profile, and guards that call with a
//! circuit breaker. No other service has one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use cb_runtime::{BreakerConfig, Event, Events, Registry, State, circuit_breaker};
use serde::{Deserialize, Serialize};

use crate::auth::Grant;
use crate::service::{self, CALLER, REQUEST_ID, now_us, setting};

/// The breaker's name, shared by all instances.
pub const BREAKER: &str = "auth";
/// The number of concurrent probes, fleet-wide.
pub const PROBES: u32 = 2;

/// The client of the auth service.
#[derive(Clone)]
struct Auth {
    client: reqwest::Client,
    url: String,
    instance: String,
}

impl Auth {
    #[circuit_breaker(
        name = BREAKER,
        fallback = Self::guest,
        cache_ttl = "4s",
        cache_key = user,
        failure_threshold = 5,
        min_failing_instances = 2,
        reset_timeout = "1s",
        half_open_max_calls = PROBES,
        success_threshold = 3,
        call_timeout = "500ms"
    )]
    async fn grant(&self, user: u64, request: &str) -> anyhow::Result<Grant> {
        let call = self.client.get(format!("{}/auth/{user}", self.url));
        let answer = call.header(CALLER, &self.instance).header(REQUEST_ID, request).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The roles of a user for whom auth does not answer.
    #[allow(clippy::unused_self, reason = "a fallback takes what the function takes")]
    fn guest(&self, user: u64, _request: &str) -> Grant {
        Grant { user, roles: vec!["guest".into()], request: None }
    }
}

/// What `GET /profile/{user}` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// The user.
    pub user: u64,
    /// The user's name.
    pub name: String,
    /// The user's roles, from auth.
    pub roles: Vec<String>,
    /// The origin of the roles.
    pub source: Source,
    /// The instance that answers.
    pub instance: String,
}

/// The origin of an answer of auth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Auth answered this request.
    Live,
    /// Auth answered an earlier request.
    Cached,
    /// Auth did not answer, and nothing is cached.
    Fallback,
}

/// What `GET /circuit` answers: this instance's view of the breaker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Circuit {
    /// The instance that answers.
    pub instance: String,
    /// The state for calls on this instance.
    pub state: State,
    /// The epoch of the state.
    pub epoch: u64,
    /// Whether the state is local to this instance.
    pub local: bool,
    /// Whether the instance reaches the store. Without it, the instance decides locally.
    pub shared: bool,
    /// The number of calls that this instance rejected.
    pub rejected: u64,
    /// The transitions that this instance observed, in order.
    pub changes: Vec<Change>,
}

/// A transition, as an instance observed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The epoch of the new state.
    pub epoch: u64,
    /// The new state.
    pub to: State,
    /// The reason of the transition.
    pub reason: String,
    /// Whether it is local to the instance.
    pub local: bool,
    /// When the instance observed it, in microseconds of the wall clock.
    pub at_us: u64,
}

#[derive(Clone)]
struct Service {
    auth: Auth,
    registry: &'static Registry,
    observed: Arc<Mutex<Observed>>,
}

struct Observed {
    shared: bool,
    changes: Vec<Change>,
}

/// Serves `GET /profile/{user}` and `GET /circuit` until the process is told to stop.
///
/// # Errors
/// If a setting is invalid, or the service cannot listen on its address.
pub async fn run() -> anyhow::Result<()> {
    let mut builder = Registry::builder()
        .redis(setting("CB_REDIS_URL").context("CB_REDIS_URL is missing: the address of the shared Redis")?)
        .on_error(|error| eprintln!("profile-service: {error}"));
    if let Some(namespace) = setting("CB_NAMESPACE") {
        builder = builder.namespace(namespace);
    }
    if let Some(json) = setting("AUTH_BREAKER") {
        let overrides: BreakerConfig = serde_json::from_str(&json).context("AUTH_BREAKER")?;
        builder = builder.configure(BREAKER, |_| overrides);
    }
    let registry = builder.install()?;
    let observed = Arc::new(Mutex::new(Observed { shared: true, changes: Vec::new() }));
    tokio::spawn(observe(registry.subscribe(), observed.clone()));

    let auth = Auth {
        client: service::client(Duration::from_secs(60))?,
        url: setting("AUTH_URL").context("AUTH_URL is missing: the address of the auth service")?,
        instance: setting("INSTANCE").unwrap_or_else(|| registry.instance().into()),
    };
    let router = Router::new()
        .route("/profile/{user}", get(profile))
        .route("/circuit", get(circuit))
        .with_state(Service { auth, registry, observed });
    service::serve(router).await?;
    registry.shutdown().await;
    Ok(())
}

async fn profile(
    Shared(service): Shared<Service>,
    Path(user): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Profile>, (StatusCode, String)> {
    let request = match headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => format!("{:016x}", fastrand::u64(..)),
    };
    let grant = service.auth.grant(user, &request).await;
    let grant = grant.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")))?;
    let source = match grant.request {
        None => Source::Fallback,
        Some(answered) if answered == request => Source::Live,
        Some(_earlier) => Source::Cached,
    };
    let instance = service.auth.instance;
    Ok(Json(Profile { user, name: format!("User {user}"), roles: grant.roles, source, instance }))
}

async fn circuit(Shared(service): Shared<Service>) -> Json<Circuit> {
    let snapshot = service.registry.breaker(BREAKER).map(|breaker| breaker.snapshot());
    let observed = service.observed.lock().unwrap_or_else(PoisonError::into_inner);
    Json(Circuit {
        instance: service.auth.instance,
        state: snapshot.as_ref().map_or(State::Closed, |snapshot| snapshot.state),
        epoch: snapshot.as_ref().map_or(0, |snapshot| snapshot.epoch),
        local: snapshot.as_ref().is_some_and(|snapshot| snapshot.local),
        shared: observed.shared,
        rejected: snapshot.map_or(0, |snapshot| snapshot.outcomes.rejected),
        changes: observed.changes.clone(),
    })
}

/// The number of transitions that `GET /circuit` returns at most.
const REMEMBERED: usize = 200;

async fn observe(mut events: Events, observed: Arc<Mutex<Observed>>) {
    while let Some(event) = events.recv().await {
        let at_us = now_us();
        let mut observed = observed.lock().unwrap_or_else(PoisonError::into_inner);
        let local = matches!(event, Event::LocalTransition(_));
        match event {
            Event::Transition(t) | Event::LocalTransition(t) => {
                if observed.changes.len() == REMEMBERED {
                    observed.changes.remove(0);
                }
                let reason = t.reason.clone();
                observed.changes.push(Change { epoch: t.epoch, to: t.to, reason, local, at_us });
            }
            Event::StoreLost(_) => observed.shared = false,
            Event::StoreRestored => observed.shared = true,
            _ => {}
        }
    }
}
