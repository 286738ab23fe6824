//! `Breaker::call`: the guard without the attribute.

mod common;

use std::future::pending;
use std::time::Duration;

use cb_runtime::clock::Clock;
use cb_runtime::{Breaker, BreakerConfig, BreakerError, CallError, Event, Registry, State};
use common::{Broken, bounded, poll_once};

const SECOND: Duration = Duration::from_secs(1);

fn breaker(config: BreakerConfig) -> (Registry, Breaker) {
    let registry = Registry::builder().build().unwrap();
    let breaker = registry.get_or_create("orders", config);
    (registry, breaker)
}

#[tokio::test]
async fn failures_trip_and_later_calls_are_rejected() {
    let (_registry, breaker) = breaker(BreakerConfig::default().failure_threshold(2));
    let name = String::from("borrowed");
    assert_eq!(breaker.call(async || Ok::<_, Broken>(name.len())).await.unwrap(), 8);
    for _ in 0..2 {
        let error = breaker.call(async || Err::<(), _>(Broken::Down)).await.unwrap_err();
        assert_eq!(error.into_inner(), Some(Broken::Down));
    }
    assert_eq!(breaker.state(), State::Open);
    let error =
        breaker.call(async || -> Result<(), Broken> { unreachable!("it is open") }).await.unwrap_err();
    assert!(error.is_rejected());
    assert!(error.breaker_error().unwrap().is_open());
    assert!(error.to_string().contains("\"orders\" is open"), "{}", error.breaker_error().unwrap());
}

#[tokio::test]
async fn closure_that_returns_a_future_is_accepted() {
    let (_registry, breaker) = breaker(BreakerConfig::default());
    let value = breaker.call(|| async { Ok::<_, Broken>(1) }).await.unwrap();
    assert_eq!(value, 1);
}

#[tokio::test]
async fn panic_is_a_failure_and_a_drop_is_cancelled() {
    let (_registry, breaker) = breaker(BreakerConfig::default().failure_threshold(1));
    assert!(poll_once(breaker.call(async || pending::<Result<(), Broken>>().await)).is_pending());
    assert_eq!(breaker.snapshot().outcomes.cancelled, 1);
    assert_eq!(breaker.state(), State::Closed);

    let panicking = breaker.clone();
    let task = tokio::spawn(async move {
        panicking.call(async || -> Result<(), Broken> { panic!("at the disco") }).await
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test]
async fn transition_has_the_figures_of_the_rule_that_it_names() {
    let config =
        BreakerConfig::default().failure_threshold(3).failure_rate_threshold(0.9).minimum_calls(1000);
    let (registry, breaker) = breaker(config);
    let mut events = registry.subscribe();
    for outcome in [false, true, false, true, false, false, false] {
        let result = if outcome { Ok(()) } else { Err(Broken::Down) };
        let _ = breaker.call(async || result).await;
    }
    let trip = loop {
        if let Some(Event::Transition(trip)) = bounded(events.recv()).await {
            break trip;
        }
    };
    assert_eq!((trip.to, trip.successes, trip.failures), (State::Open, 0, 3), "{}", trip.reason);
}

#[tokio::test]
async fn blocking_call_in_a_task_without_budget_gets_its_probe() {
    let config = BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_millis(1));
    let (_registry, breaker) = breaker(config);
    breaker.call_blocking(|| Err::<(), _>(Broken::Down)).unwrap_err();
    // A probe is due then.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    while tokio::task::coop::has_budget_remaining() {
        sender.send(()).unwrap();
        receiver.recv().await.unwrap();
    }
    breaker.call_blocking(|| Ok::<_, Broken>(())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn timed_out_call_is_a_failure() {
    let config = BreakerConfig::default().failure_threshold(1).call_timeout(Duration::from_secs(1));
    let (_registry, breaker) = breaker(config);
    let error = bounded(breaker.call(async || pending::<Result<(), Broken>>().await)).await.unwrap_err();
    assert!(matches!(&error, CallError::TimedOut(e) if e.is_timeout()));
    assert_eq!(breaker.state(), State::Open);
}

fn rejected(breaker: &Breaker) -> BreakerError {
    match breaker.call_blocking(|| -> Result<(), Broken> { panic!("was called") }) {
        Err(CallError::Rejected(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The error has what the caller decides by. Why it is so, and who decided it, is in the snapshot.
#[tokio::test]
async fn rejection_names_the_state_and_the_time_left_and_the_snapshot_says_why() {
    let (clock, hands) = Clock::manual();
    let registry = Registry::builder().clock(clock).build().unwrap();
    let config = BreakerConfig::default()
        .failure_threshold(1)
        .reset_timeout(10 * SECOND)
        .half_open_max_calls(1)
        .success_threshold(1)
        .ramp_up(3600 * SECOND);
    let breaker = registry.get_or_create("orders", config);
    let assert_rejected = |text: &str, retry_after: Option<Duration>, reason: &str, actor: &str| {
        let (error, snapshot) = (rejected(&breaker), breaker.snapshot());
        assert_eq!((error.to_string(), error.retry_after()), (text.to_owned(), retry_after));
        assert_eq!(error.breaker(), "orders");
        assert!(error.is_open() && !error.is_timeout());
        assert_eq!((&*snapshot.reason, &*snapshot.actor), (reason, actor));
        error.is_ramping_up()
    };

    breaker.call(async || Err::<(), _>(Broken::Down)).await.unwrap_err();
    hands.advance(4 * SECOND);
    let reason = "1 consecutive failures (limit 1)";
    assert_rejected("circuit breaker \"orders\" is open; retry in 6.0s", Some(6 * SECOND), reason, "");

    hands.advance(6 * SECOND);
    let probe = breaker.acquire().await.unwrap();
    let half_open = "circuit breaker \"orders\" is half-open and all its probes are under way";
    assert_rejected(half_open, None, "reset timeout has elapsed", "");

    probe.success();
    let ramping_up = "circuit breaker \"orders\" has just recovered and admits only a part of the calls";
    let _admitted = breaker.acquire().await;
    assert!(assert_rejected(ramping_up, None, "1 probes succeeded (needed 1)", ""));

    breaker.by("alice").force_open("maintenance").await.unwrap();
    let forced = "circuit breaker \"orders\" is forced open until it is released";
    assert_rejected(forced, None, "maintenance", "alice");

    breaker.by("bob").expires_in(60 * SECOND).force_open("incident").await.unwrap();
    let forced = "circuit breaker \"orders\" is forced open for 60.0s";
    assert_rejected(forced, Some(60 * SECOND), "incident", "bob");
}
