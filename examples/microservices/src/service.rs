//! What all services have in common: settings from the environment, a graceful stop, a client for HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Router, serve::ListenerExt as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The name of a request, made by the gateway and handed on from service to service.
pub const REQUEST_ID: &str = "x-request-id";
/// Which instance asks.
pub const CALLER: &str = "x-caller";

/// What a service prints before its address, once it accepts connections.
pub const LISTENS: &str = "listens on ";

/// So long may requests that are under way take once the process has been told to stop. What is left then is answered
/// with 503, and dropped: a probe among it gives its permit back.
const GRACE: Duration = Duration::from_millis(400);
/// Connections that are still open so long after that are left to break.
const CLOSING: Duration = Duration::from_millis(100);

/// A setting from the environment; empty counts as not given.
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Serves on `ADDRESS` until SIGTERM or SIGINT; then accepts no more, and returns once what was under way has
/// been answered, after half a second at the latest.
///
/// # Errors
/// If the address cannot be had.
pub async fn serve(router: Router) -> anyhow::Result<()> {
    let address = setting("ADDRESS").unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(&address).await.with_context(|| format!("ADDRESS={address}"))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!("{LISTENS}http://{}", listener.local_addr()?);

    let (stop, told) = watch::channel(false);
    let (end, over) = watch::channel(false);
    let mut stopping = told.clone();
    let router = router.layer(from_fn_with_state(over, within_grace));
    let listener = listener.tap_io(|connection| {
        // Small answers, sent at once. A connection that is gone already will say so itself.
        let _ = connection.set_nodelay(true);
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = stopping.wait_for(|told| *told).await;
    });
    let serving = tokio::spawn(serving.into_future());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send_replace(true);
    tokio::pin!(serving);
    if tokio::time::timeout(GRACE, &mut serving).await.is_err() {
        end.send_replace(true);
        let _ = tokio::time::timeout(CLOSING, &mut serving).await;
    }
    Ok(())
}

async fn within_grace(
    State(mut over): State<watch::Receiver<bool>>,
    request: Request,
    next: Next,
) -> Response {
    tokio::select! {
        response = next.run(request) => response,
        _ = over.wait_for(|over| *over) => (StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response(),
    }
}

/// A client that gives up after `patience` and goes past any proxy that the environment names.
///
/// # Errors
/// If the platform has no way to resolve names.
pub fn client(patience: Duration) -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(patience).build()?)
}

/// The wall clock in microseconds: good enough to compare what processes of one machine report.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
