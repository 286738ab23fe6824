//! `cbctl serve`: the page alone.

use std::path::Path;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use super::Failure;
use super::args::Serve;
use super::client::Client;
use crate::Monitor;
use crate::problem::Problem;

pub(super) async fn serve(client: &Client, options: &Serve, json: bool) -> Result<(), Failure> {
    let act = token(options.token_file.as_deref(), "CB_MONITOR_TOKEN")?;
    let read = token(options.read_token_file.as_deref(), "CB_MONITOR_READ_TOKEN")?;
    let loopback = options.listen.ip().is_loopback();
    if !loopback && read.is_none() && !options.open_to_all {
        return Err(Failure::Usage(format!(
            "{} can be reached from other machines, where everybody could read: give a --read-token-file, or say \
             --open-to-all if something else keeps them out",
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
    let address = format!("http://{}{}/", listener.local_addr()?, options.prefix.trim_end_matches('/'));
    let role = if act.is_some() { "the token may act" } else { "read-only" };
    if json {
        println!("{}", serde_json::json!({ "address": address, "read_only": act.is_none() }));
    } else {
        println!("{address}  ({role})");
    }
    // Ctrl-C ends open streams, too, which are endless; their readers reconnect.
    Ok(axum::serve(listener, router).await?)
}

/// A page elsewhere whose name was made to lead to this address (DNS rebinding) could read everything: its
/// requests tell another host.
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
    let error = "this address is for this machine only; name the host with --allow-host if it is right";
    Problem::new(StatusCode::FORBIDDEN, error).into_response()
}

/// A token from a file, or from the environment: on the command line, everybody on the machine could read it.
fn token(file: Option<&Path>, variable: &str) -> Result<Option<String>, Failure> {
    let token = match file {
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?
                .trim()
                .to_owned(),
        ),
        None => std::env::var(variable).ok(),
    };
    match token {
        Some(token) if token.len() < crate::access::MIN_TOKEN => Err(Failure::Usage(format!(
            "a token must have at least {} characters; `openssl rand -hex 16` makes one",
            crate::access::MIN_TOKEN
        ))),
        token => Ok(token),
    }
}
