//! The profile service. It needs auth's word for every profile, and guards that call with a circuit breaker: the only
//! place of all services that knows of one.

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

/// The breaker's name, which all instances share.
pub const BREAKER: &str = "auth";
/// So many calls find out at a time whether an open circuit may close, in the whole fleet.
pub const PROBES: u32 = 2;

/// Auth, as this service sees it.
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

    /// What holds for anybody of whom auth says nothing.
    #[allow(clippy::unused_self, reason = "a fallback takes what the function takes")]
    fn guest(&self, user: u64, _request: &str) -> Grant {
        Grant { user, roles: vec!["guest".into()], request: None }
    }
}

/// What `GET /profile/{user}` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Whose it is.
    pub user: u64,
    /// How the user is called.
    pub name: String,
    /// What auth says that the user is.
    pub roles: Vec<String>,
    /// Where the roles come from.
    pub source: Source,
    /// The instance that answers.
    pub instance: String,
}

/// Where an answer of auth comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Auth has answered this very request.
    Live,
    /// Auth has answered an earlier request.
    Cached,
    /// Auth has not been heard of for too long.
    Fallback,
}

/// What `GET /circuit` answers: this instance's view of the breaker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Circuit {
    /// The instance that answers.
    pub instance: String,
    /// The state that calls meet here and now.
    pub state: State,
    /// The fleet's number for the state.
    pub epoch: u64,
    /// The state is this instance's own, and not the fleet's.
    pub local: bool,
    /// Whether the instance reaches the store; without it, it decides by itself.
    pub shared: bool,
    /// Calls that have been rejected here.
    pub rejected: u64,
    /// Every change of state that this instance has heard of, in order.
    pub changes: Vec<Change>,
}

/// A change of state, as an instance has heard of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The number of the new state.
    pub epoch: u64,
    /// The state from then on.
    pub to: State,
    /// Why.
    pub reason: String,
    /// Here only, and not for the fleet.
    pub local: bool,
    /// When, in microseconds of the wall clock.
    pub at_us: u64,
}

#[derive(Clone)]
struct Service {
    auth: Auth,
    registry: &'static Registry,
    heard: Arc<Mutex<Heard>>,
}

struct Heard {
    shared: bool,
    changes: Vec<Change>,
}

/// Serves `GET /profile/{user}` and `GET /circuit` until the process is told to stop.
///
/// # Errors
/// If a setting cannot be meant, or the address cannot be had.
pub async fn run() -> anyhow::Result<()> {
    let mut builder = Registry::builder()
        .redis(
            setting("CB_REDIS_URL").context("CB_REDIS_URL is missing: the Redis that the instances share")?,
        )
        .on_error(|error| eprintln!("profile-service: {error}"));
    if let Some(namespace) = setting("CB_NAMESPACE") {
        builder = builder.namespace(namespace);
    }
    if let Some(json) = setting("AUTH_BREAKER") {
        let operator: BreakerConfig = serde_json::from_str(&json).context("AUTH_BREAKER")?;
        builder = builder.configure(BREAKER, |_| operator);
    }
    let registry = builder.install()?;
    let heard = Arc::new(Mutex::new(Heard { shared: true, changes: Vec::new() }));
    tokio::spawn(listen(registry.subscribe(), heard.clone()));

    let auth = Auth {
        client: service::client(Duration::from_secs(60))?,
        url: setting("AUTH_URL").context("AUTH_URL is missing: where the auth service is")?,
        instance: setting("INSTANCE").unwrap_or_else(|| registry.instance().into()),
    };
    let router = Router::new()
        .route("/profile/{user}", get(profile))
        .route("/circuit", get(circuit))
        .with_state(Service { auth, registry, heard });
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
    let heard = service.heard.lock().unwrap_or_else(PoisonError::into_inner);
    Json(Circuit {
        instance: service.auth.instance,
        state: snapshot.as_ref().map_or(State::Closed, |snapshot| snapshot.state),
        epoch: snapshot.as_ref().map_or(0, |snapshot| snapshot.epoch),
        local: snapshot.as_ref().is_some_and(|snapshot| snapshot.local),
        shared: heard.shared,
        rejected: snapshot.map_or(0, |snapshot| snapshot.outcomes.rejected),
        changes: heard.changes.clone(),
    })
}

/// So many changes are remembered.
const REMEMBERED: usize = 200;

async fn listen(mut events: Events, heard: Arc<Mutex<Heard>>) {
    while let Some(event) = events.recv().await {
        let at_us = now_us();
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let local = matches!(event, Event::LocalTransition(_));
        match event {
            Event::Transition(t) | Event::LocalTransition(t) => {
                if heard.changes.len() == REMEMBERED {
                    heard.changes.remove(0);
                }
                let reason = t.reason.clone();
                heard.changes.push(Change { epoch: t.epoch, to: t.to, reason, local, at_us });
            }
            Event::StoreLost(_) => heard.shared = false,
            Event::StoreRestored => heard.shared = true,
            _ => {}
        }
    }
}
