//! The routes, and the headers and limits that apply to all of them.

mod actions;
mod breakers;
mod events;
mod health;
mod metrics;
mod page;
mod stats;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};

use crate::access::Access;
use crate::hub::Hub;
use crate::problem::Problem;

/// An action's body is a few hundred bytes.
pub(crate) const MAX_BODY: usize = 4096;

/// The state that all routes share.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) hub: Arc<Hub>,
    pub(crate) access: Arc<Access>,
}

pub(crate) fn router(prefix: &str, hub: Arc<Hub>, access: Access) -> Router {
    let context = Context { hub, access: Arc::new(access) };
    let guarded = Router::new()
        .route(&format!("{prefix}/health"), get(health::health))
        .route(&format!("{prefix}/stats"), get(stats::stats))
        .route(&format!("{prefix}/overview"), get(stats::overview))
        .route(&format!("{prefix}/instances"), get(stats::instances))
        .route(&format!("{prefix}/settings"), get(stats::settings))
        .route(&format!("{prefix}/metrics"), get(metrics::metrics))
        .route(&format!("{prefix}/events"), get(events::events))
        .route(&format!("{prefix}/history"), get(events::history))
        .route(&format!("{prefix}/breakers/{{name}}"), get(breakers::breaker))
        .layer(middleware::from_fn_with_state(context.clone(), readers_only));
    let mut open = page::add(Router::new(), prefix)
        .route(&format!("{prefix}/live"), get(health::live))
        // Checks for itself whether the request may act.
        .route(&format!("{prefix}/breakers/{{name}}/{{action}}"), post(actions::act))
        .route(&format!("{prefix}/{{*rest}}"), any(unknown));
    if let Some((_, last)) = prefix.rsplit_once('/') {
        // Relative, so that it works wherever the router is nested.
        let target = HeaderValue::from_str(&format!("{last}/")).expect("a prefix has plain characters only");
        let redirect = move || async move { (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, target)]) };
        open = open.route(prefix, get(redirect));
    }
    guarded
        .merge(open)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::map_response(harden))
        .with_state(context)
}

async fn readers_only(State(context): State<Context>, request: Request, next: Next) -> Response {
    match context.access.may_read(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is nothing here; there are health, live, stats, overview, instances, settings, metrics, events, history, breakers/{name} and the page",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "the method is not allowed here: everything is read by GET, and actions are POST breakers/{name}/{action}",
    )
}

/// Answers must not be cached, interpreted as another type, or shown within another page.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cache-control", "no-store"),
    ] {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    response
}
