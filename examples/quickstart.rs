//! The life of a circuit in seven seconds. It needs nothing but Rust:
//!
//! ```text
//! cargo run --example quickstart                                  # state in this process
//! cargo run --example quickstart -- --redis redis://127.0.0.1/    # state in Redis
//! ```
//!
//! The example starts a small upstream on loopback, calls it over HTTP through an annotated function, makes
//! it fail, and repairs it.

#[path = "support/paint.rs"]
mod paint;
#[path = "support/upstream.rs"]
mod upstream;

use std::time::Duration;

use cb_runtime::{Event, Registry, State, circuit_breaker};
use paint::{Look, Screen};
use serde::{Deserialize, Serialize};
use upstream::Upstream;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    /// The upstream's number of the answered request. It distinguishes a live answer from a cached one.
    stamp: u64,
}

#[circuit_breaker(
    name = "user-service",
    fallback = unknown_user,
    cache_ttl = "5m",
    cache_key = user_id,
    failure_threshold = 3,
    reset_timeout = "2s",
    half_open_max_calls = 1,
    success_threshold = 2,
    call_timeout = "300ms"
)]
async fn get_user(base: &str, user_id: u64) -> anyhow::Result<User> {
    let response = reqwest::get(format!("{base}/users/{user_id}")).await?.error_for_status()?;
    Ok(response.json().await?)
}

fn unknown_user(_base: &str, user_id: u64) -> User {
    User { id: user_id, name: "(unknown)".into(), stamp: 0 }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut registry = Registry::builder().namespace("quickstart").on_error(|error| eprintln!("  ! {error}"));
    let mut screen = Screen::new();
    match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => screen.title("state in this process; add `-- --redis URL` for Redis"),
        [flag, url] if flag == "--redis" => {
            registry = registry.redis(url.as_str());
            screen.title("state in Redis");
        }
        _ => anyhow::bail!("usage: quickstart [--redis redis://host:port]"),
    }
    let registry = registry.install()?;
    let mut events = registry.subscribe();
    let upstream = Upstream::start().await?;
    let base = upstream.url();

    screen.say("the upstream is healthy: every answer is live");
    let mut client = Client { base, screen, upstream: &upstream, events: &mut events };
    client.calls(8).await;

    client.upstream.break_it();
    client.screen.say("the upstream fails: it now answers 500");
    client.calls(3).await;
    client.screen.say("open: the upstream is not called. User 1 is cached, user 42 is not");
    client.calls_of(&[1, 1, 42, 1, 42, 1, 1, 42], 120).await;

    client.screen.say("the first probe fails: open for another 2 s");
    client.until(State::Open, 16).await;

    client.upstream.mend();
    client.screen.say("the upstream is repaired; probes will close the circuit");
    client.until(State::Closed, 40).await;
    client.calls(8).await;

    let snapshot = registry.breaker("user-service").expect("the function was called").snapshot();
    let outcomes = snapshot.outcomes;
    client.screen.summary(&format!(
        "{} calls reached the upstream, {} were rejected; {} transitions, epoch {}",
        upstream.requests(),
        outcomes.rejected,
        client.screen.transitions(),
        snapshot.epoch,
    ));
    registry.shutdown().await;
    Ok(())
}

/// Calls the function and draws the answers.
struct Client<'a> {
    base: String,
    screen: Screen,
    upstream: &'a Upstream,
    events: &'a mut cb_runtime::Events,
}

impl Client<'_> {
    async fn calls(&mut self, n: usize) {
        self.calls_of(&vec![1; n], 80).await;
    }

    async fn calls_of(&mut self, users: &[u64], pause_ms: u64) {
        for user in users {
            self.call(*user).await;
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Calls until the circuit enters this state, at most `most` times.
    async fn until(&mut self, state: State, most: usize) {
        let before = self.screen.transitions();
        for _ in 0..most {
            self.call(1).await;
            tokio::time::sleep(Duration::from_millis(150)).await;
            self.draw_events();
            if self.screen.transitions() > before && self.screen.state() == state {
                return;
            }
        }
    }

    async fn call(&mut self, user: u64) {
        let before = self.upstream.requests();
        let answer = get_user(&self.base, user).await;
        let reached = self.upstream.requests() > before;
        let look = match answer {
            Ok(user) if user.stamp == 0 => Look::Fallback,
            Ok(user) if user.stamp > before => Look::Live,
            Ok(_) => Look::Cached,
            Err(_) => Look::Error,
        };
        // A transition is drawn after the call that caused it.
        self.screen.call(look, reached);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.draw_events();
    }

    fn draw_events(&mut self) {
        while let Some(event) = self.events.try_recv() {
            if let Event::Transition(transition) = event {
                self.screen.transition(transition.to, &transition.reason, transition.open_for);
            }
        }
    }
}
