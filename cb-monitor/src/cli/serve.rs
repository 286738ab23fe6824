//! `cbctl serve`: the page and the routes, without a service around them.

use std::path::Path;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::args::Serve;
use super::client::Client;
use super::{Failure, output};
use crate::Monitor;
use crate::problem::Problem;

pub(super) async fn serve(client: &Client, options: &Serve, json: bool) -> Result<(), Failure> {
    let act = token(options.token_file.as_deref(), "CB_MONITOR_TOKEN")?;
    let read = token(options.read_token_file.as_deref(), "CB_MONITOR_READ_TOKEN")?;
    let loopback = options.listen.ip().is_loopback();
    if !loopback && read.is_none() && !options.open_to_all {
        return Err(Failure::Usage(format!(
            "other machines can reach {}, and everybody there could read: add --read-token-file, or --open-to-all if \
             something else restricts access",
            options.listen
        )));
    }
    let mut monitor = Monitor::new(&client.registry).prefix(&options.prefix);
    if let Some(token) = &act {
        monitor = monitor.token(token);
    }
    if let Some(token) = &read {
        monitor = monitor.read_token(token);
    }
    let mut router = monitor.into_router();
    if loopback {
        let hosts = Arc::new(options.allow_host.clone());
        router =
            router.layer(middleware::from_fn(move |request, next| known_hosts(hosts.clone(), request, next)));
    }
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| Failure::Other(format!("cannot listen on {}: {error}", options.listen)))?;
    let address = format!("http://{}{}/", listener.local_addr()?, options.prefix);
    let role = if act.is_some() { "the token may act" } else { "read-only" };
    if json {
        output::line(serde_json::json!({ "address": address, "read_only": act.is_none() }))?;
    } else {
        output::line(format_args!("{address}  ({role})"))?;
    }
    // No graceful shutdown on Ctrl-C: open streams would prevent it, and their readers reconnect.
    match crate::server::serve(listener, router, crate::server::HEAD_LIMIT).await {}
}

/// Refuses requests for an unknown host. In DNS rebinding, an attacker's host name resolves to this address,
/// and a page of that host could read everything. Its requests name that host.
async fn known_hosts(allowed: Arc<Vec<String>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        // The colons of a bare [::1] belong to the name.
        if port.bytes().all(|digit| digit.is_ascii_digit()) { name } else { host }
    });
    let local = matches!(name, "localhost" | "[::1]")
        || name.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback());
    if local || allowed.iter().any(|known| known == name) {
        return next.run(request).await;
    }
    let error = "unknown host; if it is yours, add it with --allow-host";
    Problem::new(StatusCode::FORBIDDEN, error).into_response()
}

/// A token from a file or from the environment. It is not an argument, because every user of the machine can
/// read the arguments of a process.
fn token(file: Option<&Path>, variable: &str) -> Result<Option<String>, Failure> {
    let token = match file {
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?,
        ),
        None => std::env::var(variable).ok(),
    };
    match token.map(|token| token.trim().to_owned()) {
        Some(token) if token.len() < crate::access::MIN_TOKEN => Err(Failure::Usage(format!(
            "a token must have at least {} characters; `openssl rand -hex 16` makes one",
            crate::access::MIN_TOKEN
        ))),
        token => Ok(token),
    }
}
