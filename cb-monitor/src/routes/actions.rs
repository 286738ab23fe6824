//! Overrides and resets by POST.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::breakers::unknown;
use super::{Context, MAX_BODY};
use crate::action::{Action, ActionRequest, Refusal};
use crate::problem::Problem;
use crate::sync::lock;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    actor: String,
    #[serde(default, rename = "for")]
    expires_in: Option<String>,
}

/// Performs an action, or returns the reason for which it was not performed. Arguments are checked before the
/// store is used.
pub(super) async fn act(
    State(Context { hub, access }): State<Context>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    access.may_act(&headers)?;
    let Path((name, action)) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let Some(action) = Action::parse(&action) else {
        let known = Action::ALL.map(Action::as_str).join(", ");
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no such action; there are {known}"),
        ));
    };
    let request = requested(action, &headers, body)?;
    hub.refresh_fully().await;
    if let Some(problem) = hub.problem() {
        let error =
            format!("the store is away ({problem}), so nothing was changed; try again when it is back");
        return Err(refused(Refusal::StoreAway(error)));
    }
    if lock(&hub.figures).state(&name).is_none() {
        return Err(unknown(&hub, &name));
    }
    let performed = hub.source.perform(&name, &request).await;
    hub.expire();
    performed.map_err(refused)?;
    // Read again, because a release does not change a breaker that is open without an override. The action
    // has been carried out even if that fails: the state is null then.
    let state = hub.source.state(&name).await.ok().flatten();
    Ok(Json(json!({ "breaker": name, "action": action.as_str(), "state": state })))
}

fn requested(
    action: Action,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<ActionRequest, Problem> {
    let json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mime = json.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !mime.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send JSON, with the header \"Content-Type: application/json\"",
        ));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the body is larger than {MAX_BODY} bytes; it has only \"reason\", \"actor\" and \"for\""
            ),
        ),
        status => Problem::new(status, rejection.body_text()),
    })?;
    let body: Body = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be like {{\"reason\": \"migration\", \"actor\": \"alice\", \"for\": \"30m\"}}: {error}"
        ))
    })?;
    let actor = if body.actor.trim().is_empty() { "cb-monitor" } else { &body.actor };
    ActionRequest::new(action, &body.reason, actor, body.expires_in.as_deref()).map_err(refused)
}

fn refused(refusal: Refusal) -> Problem {
    let message = refusal.message().to_owned();
    match refusal {
        Refusal::Invalid(_) => Problem::invalid(message),
        Refusal::StoreAway(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(1),
        Refusal::InDoubt(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, message),
    }
}
