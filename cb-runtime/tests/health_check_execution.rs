//! Execution of health checks in one process: their threads, timeouts, panics, and results.

mod common;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cb_runtime::clock::{Clock, ManualClock};
use cb_runtime::{Breaker, BreakerConfig, Event, Events, Healthy, Registry, State, circuit_breaker};
use common::{Broken, bounded};

const INTERVAL: Duration = Duration::from_secs(30);
/// The timeout of a check at that interval.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Moves the clock so that the coordinator takes another turn, without reaching a check's timeout.
const NUDGE: Duration = Duration::from_millis(1);

/// A registry on a manual clock, with one breaker that counts its checks.
struct Scenario {
    registry: Registry,
    breaker: Breaker,
    events: Events,
    time: ManualClock,
    made: Arc<AtomicUsize>,
}

impl Scenario {
    /// `check` takes the number of checks before it.
    fn new<C>(config: BreakerConfig, check: impl Fn(usize) -> C + Send + Sync + 'static) -> Scenario
    where
        C: Future<Output: Healthy> + Send + 'static,
    {
        let (clock, time) = Clock::manual();
        let registry = Registry::builder().clock(clock).build().unwrap();
        let events = registry.subscribe();
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let config = config
            .failure_threshold(1)
            .health_check_interval(INTERVAL)
            .health_check(move || check(counter.fetch_add(1, Ordering::SeqCst)));
        let breaker = registry.get_or_create("orders", config);
        Scenario { registry, breaker, events, time, made }
    }

    async fn fail(&self) {
        self.breaker.call(async || Err::<(), _>(Broken::Down)).await.unwrap_err();
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Advances the clock by `span` and waits for the next check to start.
    async fn started_after(&self, span: Duration) {
        let before = self.made();
        self.time.advance(span);
        bounded(async {
            while self.made() == before {
                self.time.advance(NUDGE);
                tokio::time::sleep(NUDGE).await;
            }
        })
        .await;
    }

    /// Waits for the check under way to end and returns its result. The clock stands still: a thread that is
    /// slow to run the check must not time out.
    async fn ended(&mut self) -> Result<(), String> {
        bounded(async {
            loop {
                match self.events.recv().await {
                    Some(Event::HealthCheck { result, .. }) => return result,
                    Some(_) => {}
                    None => panic!("the registry has ended"),
                }
            }
        })
        .await
    }

    /// Waits for a check that is refused and never starts, and returns its result.
    async fn refused(&mut self) -> Result<(), String> {
        bounded(async {
            loop {
                match tokio::time::timeout(NUDGE, self.events.recv()).await {
                    Ok(Some(Event::HealthCheck { result, .. })) => return result,
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the registry has ended"),
                    Err(_) => self.time.advance(NUDGE),
                }
            }
        })
        .await
    }

    /// Advances the clock by `span`, and lets the coordinator renew its lease meanwhile: the result of a
    /// check whose leader has lost its lease has no effect, and the next check would begin at once.
    async fn lead_for(&self, span: Duration) {
        let other = self.registry.get_or_create("other", BreakerConfig::default());
        let steps = 20;
        for _ in 0..steps {
            self.time.advance(span / steps);
            // Each of them is an exchange, which also renews what is due.
            other.force_open("testing").await.unwrap();
            other.release().await.unwrap();
        }
    }

    async fn checked_after(&mut self, span: Duration) -> Result<(), String> {
        self.started_after(span).await;
        self.ended().await
    }

    async fn timed_out_after(&mut self, span: Duration) {
        self.started_after(span).await;
        self.lead_for(TIMEOUT).await;
        assert_eq!(self.ended().await, Err("no result within 10s".into()));
    }

    /// Advances the clock by `span` and asserts that no check starts.
    async fn quiet(&self, span: Duration) {
        let before = self.made();
        for _ in 0..100 {
            self.time.advance(span / 100);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(self.made(), before);
    }

    async fn is(&self, state: State) {
        bounded(async {
            while self.breaker.state() != state {
                self.time.advance(NUDGE);
                tokio::time::sleep(NUDGE).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn embedded_store_checks_until_a_check_passes() {
    let mut scenario = Scenario::new(BreakerConfig::default(), |before| ready(before >= 2));
    scenario.quiet(2 * INTERVAL).await;
    scenario.fail().await;
    let error = scenario.breaker.call(async || Ok::<_, Broken>(())).await.unwrap_err();
    assert_eq!(error.breaker_error().unwrap().retry_after(), Some(INTERVAL));

    for _ in 0..2 {
        assert_eq!(scenario.checked_after(INTERVAL).await, Err("returned false".into()));
        assert_eq!(scenario.breaker.state(), State::Open);
    }
    assert_eq!(scenario.checked_after(INTERVAL).await, Ok(()));
    scenario.is(State::Closed).await;
    assert_eq!(scenario.breaker.snapshot().reason, "health check passed after 2 failures");
    scenario.quiet(2 * INTERVAL).await;
    let outcomes = scenario.breaker.snapshot().outcomes;
    assert_eq!(
        (outcomes.success, outcomes.failure, outcomes.rejected),
        (0, 1, 1),
        "checks are not counted as calls"
    );
}

#[tokio::test]
async fn blocking_or_panicking_check_fails_and_the_next_one_runs() {
    let check = |before| async move {
        match before {
            0 => loop {
                std::thread::park();
            },
            1 => panic!("no way"),
            _ => Ok::<_, Broken>(()),
        }
    };
    let mut scenario = Scenario::new(BreakerConfig::default(), check);
    scenario.fail().await;
    scenario.timed_out_after(INTERVAL).await;
    assert_eq!(scenario.checked_after(INTERVAL).await, Err("panicked: no way".into()));
    assert_eq!(scenario.checked_after(INTERVAL).await, Ok(()));
    scenario.is(State::Closed).await;
}

#[tokio::test]
async fn blocked_checks_hold_at_most_three_threads() {
    let check = |_| async {
        std::future::poll_fn(|_| -> std::task::Poll<()> {
            loop {
                std::thread::park();
            }
        })
        .await;
    };
    let mut scenario = Scenario::new(BreakerConfig::default(), check);
    scenario.fail().await;
    for _ in 0..3 {
        scenario.timed_out_after(INTERVAL).await;
    }
    scenario.time.advance(INTERVAL);
    let blocked = || Err("earlier checks are blocked; this one was not started".into());
    assert_eq!(scenario.refused().await, blocked());
    scenario.time.advance(INTERVAL);
    assert_eq!(scenario.refused().await, blocked());
    assert_eq!(scenario.made(), 3);
}

#[tokio::test]
async fn pending_check_is_dropped_at_its_timeout() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = dropped.clone();
    let check = move |_| {
        let guard = Dropped(counter.clone());
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        }
    };
    let mut scenario = Scenario::new(BreakerConfig::default(), check);
    scenario.fail().await;
    for round in 1..=5 {
        scenario.timed_out_after(INTERVAL).await;
        bounded(async {
            while dropped.load(Ordering::SeqCst) < round {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn shutdown_ends_checks_and_live_calls_probe() {
    let scenario = Scenario::new(BreakerConfig::default().success_threshold(1), |_| ready(false));
    scenario.fail().await;
    scenario.registry.shutdown().await;
    scenario.time.advance(3 * INTERVAL);
    scenario.breaker.call(async || Ok::<_, Broken>(())).await.unwrap();
    assert_eq!(scenario.breaker.state(), State::Closed);
    assert_eq!(scenario.made(), 0);
}

async fn is_up() -> std::io::Result<()> {
    Ok(())
}

#[circuit_breaker(
    name = "annotated",
    failure_threshold = 1,
    health_check = is_up,
    health_check_interval = Duration::from_millis(20)
)]
async fn annotated(works: bool) -> Result<(), Broken> {
    if works { Ok(()) } else { Err(Broken::Down) }
}

#[tokio::test]
async fn annotated_function_runs_its_health_check() {
    let mut events = Registry::global().subscribe();
    assert_eq!(annotated(false).await, Err(Broken::Down));
    assert_eq!(annotated(true).await, Err(Broken::Open));
    bounded(async {
        while !matches!(events.recv().await, Some(Event::Transition(change)) if change.to == State::Closed) {}
    })
    .await;
    assert_eq!(annotated(true).await, Ok(()));
}
