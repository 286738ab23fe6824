//! The auth service: returns a user's roles, and can be made slow or broken.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::service::{CALLER, REQUEST_ID, serve};

/// The duration of an answer while the service is slow: longer than any caller's timeout.
const SLOW: Duration = Duration::from_secs(2);

/// A user's roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The user.
    pub user: u64,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The id of the request that auth answered. `None` if the fallback answered.
    pub request: Option<String>,
}

/// The service's simulated condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mood {
    /// Answers at once.
    #[default]
    Healthy,
    /// Answers too late.
    Slow,
    /// Answers every request with 500.
    Down,
}

impl fmt::Display for Mood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mood::Healthy => "healthy",
            Mood::Slow => "slow",
            Mood::Down => "down",
        })
    }
}

impl FromStr for Mood {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Mood::Healthy, Mood::Slow, Mood::Down]
            .into_iter()
            .find(|mood| mood.to_string() == text)
            .ok_or_else(|| "expected healthy, slow or down\n".into())
    }
}

/// The service's statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The service's condition.
    pub mood: Mood,
    /// The number of requests by caller.
    pub requests: BTreeMap<String, u64>,
}

impl Stats {
    /// The number of requests of all callers.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

#[derive(Clone, Default)]
struct Auth(Arc<Mutex<Stats>>);

impl Auth {
    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `GET /auth/{user}`, `GET /stats` and `PUT /mood` until the process is told to stop.
///
/// # Errors
/// If it cannot listen on its address.
pub async fn run() -> anyhow::Result<()> {
    let router = Router::new()
        .route("/auth/{user}", get(grant))
        .route("/stats", get(|State(auth): State<Auth>| async move { Json(auth.stats().clone()) }))
        .route("/mood", put(change_mood))
        .with_state(Auth::default());
    serve(router).await
}

async fn grant(
    State(auth): State<Auth>,
    Path(user): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Grant>, StatusCode> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mood = {
        let mut stats = auth.stats();
        *stats.requests.entry(header(CALLER).unwrap_or_default()).or_default() += 1;
        stats.mood
    };
    match mood {
        Mood::Healthy => {}
        Mood::Slow => tokio::time::sleep(SLOW).await,
        Mood::Down => return Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
    let roles = if user % 10 == 0 { vec!["member".into(), "admin".into()] } else { vec!["member".into()] };
    Ok(Json(Grant { user, roles, request: header(REQUEST_ID) }))
}

async fn change_mood(State(auth): State<Auth>, body: String) -> Result<(), (StatusCode, String)> {
    let mood = body.trim().parse().map_err(|hint| (StatusCode::BAD_REQUEST, hint))?;
    auth.stats().mood = mood;
    Ok(())
}
