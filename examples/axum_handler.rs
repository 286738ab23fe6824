//! Recipe: an axum handler with the attribute. While the circuit is open, clients get 503 with `Retry-After`.
//!
//! ```text
//! cargo run --example axum_handler
//! ```

#[path = "support/upstream.rs"]
mod upstream;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use cb_runtime::{BreakerError, circuit_breaker};
use upstream::Upstream;

enum AppError {
    Upstream(reqwest::Error),
    Rejected(BreakerError),
}

impl From<reqwest::Error> for AppError {
    fn from(error: reqwest::Error) -> Self {
        AppError::Upstream(error)
    }
}

impl From<BreakerError> for AppError {
    fn from(error: BreakerError) -> Self {
        AppError::Rejected(error)
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        match self {
            AppError::Upstream(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
            AppError::Rejected(error) => {
                // Whole seconds, rounded up, so that no client comes back too early.
                let seconds = error.retry_after().unwrap_or_default().as_secs() + 1;
                let header = [(RETRY_AFTER, seconds.to_string())];
                (StatusCode::SERVICE_UNAVAILABLE, header, error.to_string()).into_response()
            }
        }
    }
}

#[circuit_breaker(name = "users", failure_threshold = 3, reset_timeout = "10s", call_timeout = "2s")]
async fn user(State(base): State<String>, Path(id): Path<u64>) -> Result<String, AppError> {
    Ok(reqwest::get(format!("{base}/users/{id}")).await?.error_for_status()?.text().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let router = Router::new().route("/users/{id}", get(user)).with_state(upstream.url());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/users/7", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    println!("{}", reqwest::get(&url).await?.text().await?);

    upstream.break_it();
    for _ in 0..3 {
        assert_eq!(reqwest::get(&url).await?.status(), 502);
    }
    let answer = reqwest::get(&url).await?;
    println!("{}, retry after {} s", answer.status(), answer.headers()[RETRY_AFTER].to_str()?);
    assert_eq!(answer.status(), 503);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
