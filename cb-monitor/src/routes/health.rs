//! For load balancers and orchestrators.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Context;
use crate::figures::seconds;
use crate::sync::lock;

/// 503 with the names while any circuit of the namespace rejects calls, else 200.
pub(super) async fn health(State(Context { hub, .. }): State<Context>) -> (StatusCode, Json<Value>) {
    hub.refresh().await;
    let problem = hub.problem();
    let figures = lock(&hub.figures);
    let open = figures.open();
    let (status, word) = if open.is_empty() {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "degraded")
    };
    let mut body = json!({ "status": word });
    if !open.is_empty() {
        body["open_circuits"] = json!(open);
    }
    // Without the store, the latest reading and this process' local states count.
    if let Some(problem) = problem {
        body["store"] = json!(problem);
        body["as_of"] = json!(figures.as_of().map(seconds));
    }
    (status, Json(body))
}

/// 200 as long as the process answers: an open circuit is no reason to restart an instance.
pub(super) async fn live(State(Context { hub, .. }): State<Context>) -> Json<Value> {
    Json(json!({ "status": "alive", "instance": hub.source.own() }))
}
