//! Shows and controls a fleet's circuit breakers: HTTP routes and a page, to nest in a service or to run
//! alone.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = cb_runtime::Registry::builder().redis("redis://127.0.0.1:6379").install()?;
//! let monitor = cb_monitor::Monitor::new(registry).token(std::env::var("CB_MONITOR_TOKEN")?);
//!
//! let app = axum::Router::new().merge(monitor.into_router()); // http://127.0.0.1:8080/circuits
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | route | answer |
//! |---|---|
//! | `GET /circuits` | the page |
//! | `GET /circuits/health` | 503 and the names while any circuit is open, else 200 |
//! | `GET /circuits/live` | 200 as long as the process answers: for a load balancer's liveness check |
//! | `GET /circuits/stats` | every breaker as JSON; `state`, `search`, `sort`, `offset`, `limit`, `trend` |
//! | `GET /circuits/breakers/{name}` | one breaker with its settings and its latest changes |
//! | `GET /circuits/metrics` | the fleet's figures as Prometheus text |
//! | `GET /circuits/events` | server-sent events, resumable by `Last-Event-ID` |
//! | `POST /circuits/breakers/{name}/{action}` | `open`, `disable`, `metrics-only`, `release`, `reset` |
//!
//! Nothing is read from Redis without requests. However many readers there are, the fleet's figures are
//! read at most once a second, and less often where reading them takes long.
//!
//! docs/monitor.md documents every field, status and limit.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people: rates, shares, and times to the millisecond"
)]

mod access;
mod action;
mod blast_radius;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod event_log;
mod figures;
mod fleet;
mod hub;
mod monitor;
mod problem;
mod routes;
#[cfg(feature = "cli")]
mod server;
mod settings;
mod sync;

pub use monitor::Monitor;
