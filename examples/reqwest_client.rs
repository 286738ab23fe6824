//! Recipe: a reqwest client. A 404 or a bad request is not a failure of the service.
//!
//! ```text
//! cargo run --example reqwest_client
//! ```

#[path = "support/upstream.rs"]
mod upstream;

use cb_runtime::{BreakerError, circuit_breaker};
use serde::{Deserialize, Serialize};
use upstream::Upstream;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

/// The callers' error: reqwest's or the breaker's.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error(transparent)]
    Rejected(#[from] BreakerError),
}

/// Refused connections, timeouts, invalid answers and 5xx statuses count. Other statuses are the caller's
/// errors.
fn is_failure(result: &Result<User, ApiError>) -> bool {
    match result {
        Err(ApiError::Http(error)) => error.status().is_none_or(|status| status.is_server_error()),
        Err(ApiError::Rejected(_)) => true,
        Ok(_) => false,
    }
}

#[circuit_breaker(
    name = "users",
    failure_threshold = 3,
    is_failure = is_failure,
    cache_ttl = "10m",
    cache_key = id,
    call_timeout = "2s"
)]
async fn get_user(client: &reqwest::Client, base: &str, id: &str) -> Result<User, ApiError> {
    Ok(client.get(format!("{base}/users/{id}")).send().await?.error_for_status()?.json().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let (client, base) = (reqwest::Client::new(), upstream.url());
    let live = get_user(&client, &base, "7").await?;
    println!("live: {live:?}");

    for _ in 0..10 {
        let error = get_user(&client, &base, "not-a-number").await.unwrap_err();
        assert!(matches!(error, ApiError::Http(_)), "400, and never a rejection: {error}");
    }
    upstream.break_it();
    for _ in 0..3 {
        let _ = get_user(&client, &base, "8").await.unwrap_err();
    }
    let error = get_user(&client, &base, "8").await.unwrap_err();
    println!("three times 500: {error}");
    assert!(matches!(error, ApiError::Rejected(error) if error.is_open()));

    let cached = get_user(&client, &base, "7").await?;
    println!("cached: {cached:?}");
    assert_eq!(cached, live);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
