//! Health checks within one process, which shares its state with nobody.

mod common;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cb_runtime::clock::{Clock, ManualClock};
use cb_runtime::{Backoff, Breaker, BreakerConfig, Event, Events, Healthy, Registry, State, circuit_breaker};
use common::{Broken, bounded};

const INTERVAL: Duration = Duration::from_secs(30);
/// What a check may take at that interval.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The coordinator may want another turn, for which the clock has to move; too little to let a check time out.
const NUDGE: Duration = Duration::from_millis(1);

/// A registry whose time stands still, with one breaker that counts its checks.
struct CheckContext {
    registry: Registry,
    breaker: Breaker,
    events: Events,
    hands: ManualClock,
    made: Arc<AtomicUsize>,
}

impl CheckContext {
    /// `check` is told how many there have been before.
    fn new<C>(config: BreakerConfig, check: impl Fn(usize) -> C + Send + Sync + 'static) -> CheckContext
    where
        C: Future<Output: Healthy> + Send + 'static,
    {
        let (clock, hands) = Clock::manual();
        let registry = Registry::builder().clock(clock).build().unwrap();
        let events = registry.subscribe();
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let config = config
            .failure_threshold(1)
            .health_check_interval(INTERVAL)
            .health_check(move || check(counter.fetch_add(1, Ordering::SeqCst)));
        let breaker = registry.get_or_create("orders", config);
        CheckContext { registry, breaker, events, hands, made }
    }

    async fn fail(&self) {
        self.breaker.call(async || Err::<(), _>(Broken::Down)).await.unwrap_err();
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// After `span`, waits for the next check to begin.
    async fn begun_after(&self, span: Duration) {
        let before = self.made();
        self.hands.advance(span);
        bounded(async {
            while self.made() == before {
                self.hands.advance(NUDGE);
                tokio::time::sleep(NUDGE).await;
            }
        })
        .await;
    }

    /// The result of the next check that ends.
    async fn ended(&mut self) -> Result<(), String> {
        bounded(async {
            loop {
                match tokio::time::timeout(NUDGE, self.events.recv()).await {
                    Ok(Some(Event::HealthCheck { result, .. })) => return result,
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the registry has ended"),
                    Err(_) => self.hands.advance(NUDGE),
                }
            }
        })
        .await
    }

    async fn checked_after(&mut self, span: Duration) -> Result<(), String> {
        self.begun_after(span).await;
        self.ended().await
    }

    async fn timed_out_after(&mut self, span: Duration) {
        self.begun_after(span).await;
        self.hands.advance(TIMEOUT);
        assert_eq!(self.ended().await, Err("no result within 10s".into()));
    }

    /// In that time no check begins.
    async fn quiet(&self, span: Duration) {
        let before = self.made();
        for _ in 0..100 {
            self.hands.advance(span / 100);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(self.made(), before);
    }

    async fn is(&self, state: State) {
        bounded(async {
            while self.breaker.state() != state {
                self.hands.advance(NUDGE);
                tokio::time::sleep(NUDGE).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_embedded_default_checks_until_it_passes() {
    let mut context = CheckContext::new(BreakerConfig::default(), |before| ready(before >= 2));
    context.quiet(2 * INTERVAL).await;
    context.fail().await;
    let error = context.breaker.call(async || Ok::<_, Broken>(())).await.unwrap_err();
    assert_eq!(error.breaker_error().unwrap().retry_after(), Some(INTERVAL));

    for _ in 0..2 {
        assert_eq!(context.checked_after(INTERVAL).await, Err("says no".into()));
        assert_eq!(context.breaker.state(), State::Open);
    }
    assert_eq!(context.checked_after(INTERVAL).await, Ok(()));
    context.is(State::Closed).await;
    assert_eq!(context.breaker.snapshot().reason, "health check passed after 2 failures");
    context.quiet(2 * INTERVAL).await;
    let outcomes = context.breaker.snapshot().outcomes;
    assert_eq!((outcomes.success, outcomes.failure, outcomes.rejected), (0, 1, 1), "checks are no calls");
}

#[tokio::test]
async fn checks_back_off() {
    let backoff = Backoff::exponential(2.0).cap(3 * INTERVAL);
    let mut context = CheckContext::new(BreakerConfig::default().backoff(backoff), |_| ready(false));
    context.fail().await;
    assert_eq!(context.checked_after(INTERVAL).await, Err("says no".into()));
    for steps in [2, 3, 3] {
        context.quiet((steps - 1) * INTERVAL).await;
        assert_eq!(context.checked_after(INTERVAL).await, Err("says no".into()));
    }
}

#[tokio::test]
async fn a_check_that_blocks_its_thread_or_panics_is_a_failed_one_among_others() {
    let check = |before| async move {
        match before {
            0 => loop {
                std::thread::park();
            },
            1 => panic!("no way"),
            _ => Ok::<_, Broken>(()),
        }
    };
    let mut context = CheckContext::new(BreakerConfig::default(), check);
    context.fail().await;
    context.timed_out_after(INTERVAL).await;
    assert_eq!(context.checked_after(INTERVAL).await, Err("panicked: no way".into()));
    assert_eq!(context.checked_after(INTERVAL).await, Ok(()));
    context.is(State::Closed).await;
}

#[tokio::test]
async fn a_check_that_always_blocks_holds_few_threads() {
    let check = |_| async {
        std::future::poll_fn(|_| -> std::task::Poll<()> {
            loop {
                std::thread::park();
            }
        })
        .await;
    };
    let mut context = CheckContext::new(BreakerConfig::default(), check);
    context.fail().await;
    for _ in 0..3 {
        context.timed_out_after(INTERVAL).await;
    }
    context.hands.advance(INTERVAL);
    let stuck = || Err("earlier checks are stuck, no further one is made".into());
    assert_eq!(context.ended().await, stuck());
    context.hands.advance(INTERVAL);
    assert_eq!(context.ended().await, stuck());
    assert_eq!(context.made(), 3);
}

#[tokio::test]
async fn a_check_that_hangs_is_dropped_at_its_timeout() {
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
    let mut context = CheckContext::new(BreakerConfig::default(), check);
    context.fail().await;
    for round in 1..=5 {
        context.timed_out_after(INTERVAL).await;
        bounded(async {
            while dropped.load(Ordering::SeqCst) < round {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn idle_checks_open_and_close_without_any_call() {
    let config = BreakerConfig::default().idle_health_check_interval(4 * INTERVAL);
    let well = Arc::new(AtomicBool::new(true));
    let dependency = well.clone();
    let mut context = CheckContext::new(config, move |_| ready(dependency.load(Ordering::SeqCst)));
    context.quiet(3 * INTERVAL).await;
    assert_eq!(context.checked_after(INTERVAL).await, Ok(()));
    well.store(false, Ordering::SeqCst);
    assert_eq!(context.checked_after(4 * INTERVAL).await, Err("says no".into()));
    // On a busy machine the role may lapse before the result is there, which is then another check's to bring.
    context.is(State::Open).await;
    assert_eq!(context.breaker.snapshot().reason, "health check failed: says no");
    well.store(true, Ordering::SeqCst);
    context.hands.advance(INTERVAL);
    context.is(State::Closed).await;
}

#[tokio::test]
async fn what_an_operator_holds_is_not_checked() {
    let config = BreakerConfig::default().idle_health_check_interval(INTERVAL);
    let mut context = CheckContext::new(config, |_| ready(true));
    context.breaker.force_open("maintenance").await.unwrap();
    context.quiet(3 * INTERVAL).await;
    context.breaker.disable("maintenance").await.unwrap();
    context.quiet(3 * INTERVAL).await;
    context.breaker.release().await.unwrap();
    assert_eq!(context.checked_after(INTERVAL).await, Ok(()));
}

#[tokio::test]
async fn after_a_shutdown_nobody_checks_and_live_traffic_probes() {
    let context = CheckContext::new(BreakerConfig::default().success_threshold(1), |_| ready(false));
    context.fail().await;
    context.registry.shutdown().await;
    context.hands.advance(3 * INTERVAL);
    context.breaker.call(async || Ok::<_, Broken>(())).await.unwrap();
    assert_eq!(context.breaker.state(), State::Closed);
    assert_eq!(context.made(), 0);
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
async fn an_annotated_function_has_its_checks_made() {
    let mut events = Registry::global().subscribe();
    assert_eq!(annotated(false).await, Err(Broken::Down));
    assert_eq!(annotated(true).await, Err(Broken::Open));
    bounded(async {
        while !matches!(events.recv().await, Some(Event::Transition(change)) if change.to == State::Closed) {}
    })
    .await;
    assert_eq!(annotated(true).await, Ok(()));
}
