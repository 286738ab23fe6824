//! A custom trip strategy: opens when the last minute is much worse than the last hour.
//!
//! ```text
//! cargo run --example adaptive
//! ```
//!
//! A fixed limit must be so high that an ordinary bad hour does not trip it. It then misses a sudden change.
//! This strategy compares with the usual rate. The example uses a manual clock, so two hours take a moment.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use cb_runtime::clock::Clock;
use cb_runtime::{Breaker, BreakerConfig, Registry, State, TripStrategy, WindowCounts};
use owo_colors::OwoColorize;

/// Trips when the last minute's failure rate is `times` that of the hour before it.
struct WorseThanUsual {
    times: f64,
    /// The strategy is evaluated only with this many failures in the minute, and a thousand calls before it.
    failures: u64,
}

impl TripStrategy for WorseThanUsual {
    fn trip(&self, window: &WindowCounts<'_>) -> Option<String> {
        let (minute, hour) = (window.within(Duration::from_secs(60)), window.calls());
        let before = (hour.failures - minute.failures, hour.total() - minute.total());
        // Without any failure before, a rate of one in a thousand counts as usual.
        let usual = share(before.0, before.1).max(0.001);
        let now = minute.failure_rate();
        let is_evaluated = before.1 >= 1000 && minute.failures >= self.failures;
        (is_evaluated && now >= self.times * usual).then(|| {
            format!(
                "{:.1} % of the last minute's calls failed, {:.1} % is usual (limit ×{})",
                now * 100.0,
                usual * 100.0,
                self.times
            )
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "thousands")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A minute of traffic: a hundred calls, of which `failures` fail.
async fn minute(breaker: &Breaker, failures: usize) {
    for call in 0..100 {
        let fails = failures > 0 && call % (100 / failures) == 0;
        let _ = breaker.call(async || if fails { Err("the dependency failed") } else { Ok(()) }).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (clock, time) = Clock::manual();
    let registry = Registry::builder().clock(clock).build()?;
    let breaker = registry.try_get_or_create(
        "reports",
        BreakerConfig::default()
            .strategy(WorseThanUsual { times: 4.0, failures: 10 })
            .window(Duration::from_secs(3600)),
    )?;
    let mut out = anstream::stdout();
    for (failures, minutes, story) in [
        (5, 60, "a usual hour: 5 % fail"),
        (10, 10, "a bad hour: 10 % fail; a fixed limit of 10 % would trip"),
        (34, 1, "a fault: 34 % fail"),
    ] {
        for _ in 0..minutes {
            minute(&breaker, failures).await;
            time.advance(Duration::from_secs(60));
        }
        let seen = breaker.snapshot();
        let state = seen.state.to_string();
        let state =
            if seen.state == State::Closed { state.green().to_string() } else { state.red().to_string() };
        writeln!(out, "{story}\n  → {state} {}", seen.reason)?;
    }
    (breaker.state() == State::Open).then_some(()).context("the circuit should be open")
}

#[test]
fn it_runs() {
    main().unwrap();
}
