//! Recipe: a hyper client. It has an error type for each step, and the breaker adds its own.
//!
//! ```text
//! cargo run --example hyper_client
//! ```

#[path = "support/upstream.rs"]
mod upstream;

use cb_runtime::{BreakerError, circuit_breaker};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::{self, Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use upstream::Upstream;

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the request failed: {0}")]
    Request(#[from] legacy::Error),
    #[error("reading the answer failed: {0}")]
    Body(#[from] hyper::Error),
    #[error("the service answered {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Rejected(#[from] BreakerError),
}

/// A 4xx status is the caller's error, not a failure of the service.
fn is_failure(result: &Result<Bytes, FetchError>) -> bool {
    match result {
        Err(FetchError::Status(status)) => !status.is_client_error(),
        Err(_) => true,
        Ok(_) => false,
    }
}

#[circuit_breaker(name = "users", failure_threshold = 3, is_failure = is_failure, call_timeout = "2s")]
async fn fetch(client: &Client<HttpConnector, Empty<Bytes>>, uri: Uri) -> Result<Bytes, FetchError> {
    let answer = client.get(uri).await?;
    if !answer.status().is_success() {
        return Err(FetchError::Status(answer.status()));
    }
    Ok(answer.into_body().collect().await?.to_bytes())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let uri: Uri = format!("{}/users/7", upstream.url()).parse()?;
    println!("live: {}", String::from_utf8_lossy(&fetch(&client, uri.clone()).await?));

    upstream.break_it();
    for _ in 0..3 {
        let error = fetch(&client, uri.clone()).await.unwrap_err();
        assert!(matches!(error, FetchError::Status(StatusCode::INTERNAL_SERVER_ERROR)));
    }
    let before = upstream.requests();
    let error = fetch(&client, uri).await.unwrap_err();
    println!("three times 500: {error}");
    assert!(matches!(error, FetchError::Rejected(error) if error.is_open()));
    assert_eq!(upstream.requests(), before, "the upstream was not called");
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
