//! Shared by the services: settings from the environment, a graceful stop, and an HTTP client.

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

/// The header with a request's id, which the gateway creates and each service passes on.
pub const REQUEST_ID: &str = "x-request-id";
/// The header with the calling instance.
pub const CALLER: &str = "x-caller";

/// Printed before a service's address, once it accepts connections.
pub const LISTENS: &str = "listens on ";

/// The time that running requests have left after SIGTERM. Later, they are dropped and answered with 503; a
/// dropped probe returns its lease.
const GRACE: Duration = Duration::from_millis(400);
/// The time that connections have left after that. Later, they break.
const CLOSING: Duration = Duration::from_millis(100);

/// A setting from the environment. An empty variable counts as unset.
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Serves on `ADDRESS` until SIGTERM or SIGINT. Then it accepts no more connections, and returns once running
/// requests are answered, after half a second at the latest.
///
/// # Errors
/// If it cannot listen on `ADDRESS`.
pub async fn serve(router: Router) -> anyhow::Result<()> {
    let address = setting("ADDRESS").unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(&address).await.with_context(|| format!("ADDRESS={address}"))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!("{LISTENS}http://{}", listener.local_addr()?);

    let (stop, mut stopping) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let router = router.layer(from_fn_with_state(ended, within_grace));
    let listener = listener.tap_io(|connection| {
        // Small answers are sent at once. A closed connection fails later, when it is used.
        let _ = connection.set_nodelay(true);
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
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
    State(mut ended): State<watch::Receiver<bool>>,
    request: Request,
    next: Next,
) -> Response {
    tokio::select! {
        response = next.run(request) => response,
        _ = ended.wait_for(|ended| *ended) => (StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response(),
    }
}

/// An HTTP client with a timeout, which ignores proxies from the environment.
///
/// # Errors
/// If the platform cannot resolve names.
pub fn client(timeout: Duration) -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(timeout).build()?)
}

/// The wall clock in microseconds. Processes of one machine share it, so their times can be compared.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
