//! A rule of one's own: open when the last minute is much worse than the last hour has been.
//!
//! ```text
//! cargo run --example adaptive
//! ```
//!
//! A fixed rate has to be set so high that an ordinary bad hour does not trip it, and then it sleeps through a sudden
//! change for the worse. This rule knows what is ordinary. Time is moved by hand here, so that two hours take a moment.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use cb_runtime::clock::Clock;
use cb_runtime::{Breaker, BreakerConfig, Registry, State, TripStrategy, WindowCounts};
use owo_colors::OwoColorize;

/// Trips when the last minute fails `times` as often as the hour before it, and that is no accident.
struct WorseThanUsual {
    times: f64,
    /// Below so many failures in the minute it says nothing, nor before it knows a thousand calls.
    failures: u64,
}

impl TripStrategy for WorseThanUsual {
    fn trip(&self, window: &WindowCounts<'_>) -> Option<String> {
        let (minute, hour) = (window.within(Duration::from_secs(60)), window.calls());
        let before = (hour.failures - minute.failures, hour.total() - minute.total());
        // Who has never failed is expected to fail once in a thousand.
        let ordinary = share(before.0, before.1).max(0.001);
        let now = minute.failure_rate();
        let knows = before.1 >= 1000 && minute.failures >= self.failures;
        (knows && now >= self.times * ordinary).then(|| {
            format!(
                "{:.1} % of the last minute's calls failed, {:.1} % is ordinary (limit ×{})",
                now * 100.0,
                ordinary * 100.0,
                self.times
            )
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "thousands")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A minute of traffic: a hundred calls, so many of which fail.
async fn minute(breaker: &Breaker, failures: usize) {
    for call in 0..100 {
        let fails = failures > 0 && call % (100 / failures) == 0;
        let _ = breaker.call(async || if fails { Err("the dependency is ill") } else { Ok(()) }).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (clock, hands) = Clock::manual();
    let registry = Registry::builder().clock(clock).build()?;
    let breaker = registry.try_get_or_create(
        "reports",
        BreakerConfig::default()
            .strategy(WorseThanUsual { times: 4.0, failures: 10 })
            .window(Duration::from_secs(3600)),
    )?;
    let mut out = anstream::stdout();
    for (failures, minutes, story) in [
        (5, 60, "an ordinary hour: 5 % fail"),
        (10, 10, "a bad day: 10 % fail; a fixed limit of 10 % would have opened"),
        (34, 1, "something has broken: 34 % fail"),
    ] {
        for _ in 0..minutes {
            minute(&breaker, failures).await;
            hands.advance(Duration::from_secs(60));
        }
        let seen = breaker.snapshot();
        let state = seen.state.to_string();
        let state =
            if seen.state == State::Closed { state.green().to_string() } else { state.red().to_string() };
        writeln!(out, "{story}\n  → {state} {}", seen.reason)?;
    }
    (breaker.state() == State::Open).then_some(()).context("it should have opened")
}

#[test]
fn it_runs() {
    main().unwrap();
}
