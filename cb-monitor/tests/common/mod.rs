//! A fleet for the tests: a Redis, an application's registry, and a monitor that only watches.

// Every test file is a crate of its own and uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use cb_monitor::Monitor;
use cb_runtime::{Breaker, BreakerConfig, Registry};
use cb_testkit::{PATIENCE, RedisServer};
use serde_json::Value;

pub const TOKEN: &str = "a token for the tests";
pub const NAMESPACE: &str = "tests";

/// A monitor's routes on a free port, and an instance that makes calls.
pub struct Fleet {
    pub redis: RedisServer,
    pub application: Registry,
    pub address: String,
    pub http: reqwest::Client,
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text))
    }

    #[track_caller]
    pub fn error(&self) -> String {
        self.json()["error"].as_str().expect("an error's message").to_owned()
    }
}

/// An instance of its own.
pub fn registry(redis: &RedisServer) -> Registry {
    Registry::builder().redis(redis.url()).namespace(NAMESPACE).build().expect("a registry")
}

impl Fleet {
    pub async fn start(set_up: impl FnOnce(Monitor) -> Monitor) -> Fleet {
        let redis = RedisServer::start();
        let application = registry(&redis);
        let address = serve(set_up(Monitor::new(registry(&redis)))).await;
        Fleet { redis, application, address, http: reqwest::Client::new() }
    }

    /// A breaker that opens at the third failure in a row.
    pub fn breaker(&self, name: &str) -> Breaker {
        self.application.get_or_create(name, BreakerConfig::default().failure_threshold(3))
    }

    /// Opens a circuit by failures.
    pub async fn trip(&self, name: &str) {
        let breaker = self.breaker(name);
        fail(&breaker, 3).await;
        assert_eq!(breaker.state(), cb_runtime::State::Open);
    }

    /// Steers a breaker by its name.
    pub fn control(&self, name: &str) -> cb_runtime::Control {
        self.application.control(name)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/circuits{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.http.get(self.url(path))).await
    }

    /// As the operator, with the token.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.http.post(self.url(path)).bearer_auth(TOKEN).json(body)).await
    }

    /// Asks until the answer is as it should be.
    #[track_caller]
    pub fn until<'a>(
        &'a self,
        path: &'a str,
        wanted: impl Fn(&Answer) -> bool + 'a,
    ) -> impl Future<Output = Answer> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let start = std::time::Instant::now();
            loop {
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                assert!(start.elapsed() < PATIENCE, "{caller}: {path} never was as wanted: {answer:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Serves the monitor on a free port; where.
pub async fn serve(monitor: Monitor) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let router = monitor.into_router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.expect("a body") }
}

pub async fn fail(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        let _ = breaker.call(async || Err::<(), _>("down")).await;
    }
}

pub async fn succeed(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        let _ = breaker.call(async || Ok::<_, &str>(())).await;
    }
}
