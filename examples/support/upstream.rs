//! A small HTTP service on a free loopback port that can be made to fail, for all callers or for one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Json, Router, routing::get};
use serde_json::{Value, json};

#[derive(Default)]
struct Service {
    broken: Mutex<Broken>,
    callers: Mutex<HashSet<String>>,
    requests: AtomicU64,
}

#[derive(Default)]
enum Broken {
    #[default]
    No,
    ForAll,
    For(String),
}

/// A running upstream. It ends with the program.
pub(crate) struct Upstream {
    service: Arc<Service>,
    port: u16,
}

#[allow(dead_code, reason = "each example uses a part of it")]
impl Upstream {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let service = Arc::new(Service::default());
        let router = Router::new()
            .route("/users/{id}", get(user))
            .route("/callers/{name}", get(caller))
            .with_state(service.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Upstream { service, port })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn break_it(&self) {
        self.set(Broken::ForAll);
    }

    pub(crate) fn break_for(&self, caller: &str) {
        self.set(Broken::For(caller.into()));
    }

    pub(crate) fn mend(&self) {
        self.set(Broken::No);
    }

    /// The number of requests received.
    pub(crate) fn requests(&self) -> u64 {
        self.service.requests.load(Ordering::Relaxed)
    }

    /// Waits until each of these callers has called.
    pub(crate) async fn wait_for_callers(&self, names: &[&str]) {
        let all = || {
            let callers = self.service.callers.lock().unwrap_or_else(PoisonError::into_inner);
            names.iter().all(|name| callers.contains(*name))
        };
        while !all() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn set(&self, broken: Broken) {
        *self.service.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
    }
}

impl Service {
    fn request(&self, by: &str) -> Result<u64, StatusCode> {
        let stamp = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let broken = match &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            Broken::No => false,
            Broken::ForAll => true,
            Broken::For(caller) => caller == by,
        };
        if broken { Err(StatusCode::INTERNAL_SERVER_ERROR) } else { Ok(stamp) }
    }
}

async fn user(State(service): State<Arc<Service>>, Path(id): Path<u64>) -> Result<Json<Value>, StatusCode> {
    let stamp = service.request("")?;
    Ok(Json(json!({ "id": id, "name": format!("user {id}"), "stamp": stamp })))
}

async fn caller(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, StatusCode> {
    service.callers.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
    let stamp = service.request(&name)?;
    Ok(Json(json!({ "stamp": stamp })))
}
