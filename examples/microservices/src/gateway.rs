//! The gateway: the address that clients use. It forwards each request to a service and has no circuit
//! breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::service::{self, REQUEST_ID, setting};

/// The timeout of a forwarded request.
const PATIENCE: Duration = Duration::from_secs(3);

/// The instances of a service, used in turn.
struct Upstream {
    instances: Vec<String>,
    next: AtomicUsize,
    client: reqwest::Client,
}

impl Upstream {
    fn new(variable: &str, client: &reqwest::Client) -> anyhow::Result<Arc<Upstream>> {
        let urls = setting(variable)
            .with_context(|| format!("{variable} is missing: the addresses to forward requests to"))?;
        let instances = urls.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        Ok(Arc::new(Upstream { instances, next: AtomicUsize::new(0), client: client.clone() }))
    }

    /// All instances, beginning with the next one in turn.
    fn in_turn(&self) -> impl Iterator<Item = &str> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.instances.len();
        (0..count).map(move |i| self.instances[first.wrapping_add(i) % count].as_str())
    }
}

/// Serves `GET /profile/{user}` and `GET /auth/{user}` until the process is told to stop.
///
/// # Errors
/// If a setting is missing, or it cannot listen on its address.
pub async fn run() -> anyhow::Result<()> {
    let client = service::client(PATIENCE)?;
    let router = Router::new()
        .route("/profile/{user}", get(forward).with_state(Upstream::new("PROFILE_URLS", &client)?))
        .route("/auth/{user}", get(forward).with_state(Upstream::new("AUTH_URL", &client)?));
    service::serve(router).await
}

/// Forwards a request to the first instance that can be reached. A GET can be repeated, so an instance that
/// stops does not cause an error.
async fn forward(State(upstream): State<Arc<Upstream>>, request: Request) -> Response {
    let path = request.uri().path();
    let id = match request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => format!("{:016x}", fastrand::u64(..)),
    };
    let mut problem = StatusCode::BAD_GATEWAY;
    for instance in upstream.in_turn() {
        match ask(&upstream.client, &format!("{instance}{path}"), &id).await {
            Ok((status, body)) => {
                return (status, [(CONTENT_TYPE, "application/json")], body).into_response();
            }
            // The instance accepted the request and did not answer. Another one may take as long.
            Err(error) if error.is_timeout() => {
                problem = StatusCode::GATEWAY_TIMEOUT;
                break;
            }
            Err(_unreachable) => {}
        }
    }
    problem.into_response()
}

async fn ask(client: &reqwest::Client, url: &str, id: &str) -> reqwest::Result<(StatusCode, Bytes)> {
    let answer = client.get(url).header(REQUEST_ID, id).send().await?;
    Ok((answer.status(), answer.bytes().await?))
}
