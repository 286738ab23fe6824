//! Manual overrides, their expiry, and reloads of settings.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::breaker::Breaker;
use crate::error::Error;

const MS: Duration = Duration::from_millis(1);

fn handle(fleet: &Fleet, at: usize) -> Breaker {
    Breaker::new(fleet.instances[at].core.clone())
}

fn state(fleet: &Fleet, at: usize) -> State {
    fleet.instances[at].core.snapshot().state
}

/// Requests an override on this instance, without an event for the others.
async fn order(
    fleet: &mut Fleet,
    at: usize,
    order: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let mut order = pin!(order);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..6 {
        if let Poll::Ready(answer) = Pin::as_mut(&mut order).poll(&mut context) {
            return answer;
        }
        fleet.advance(MS);
        fleet.turn(at).await;
    }
    panic!("the override does not end")
}

async fn any_order(fleet: &mut Fleet, at: usize) {
    let breaker = handle(fleet, at).by("somebody");
    let span = Duration::from_millis(fleet.random.u64(1..3000));
    let word = fleet.random.u8(..6);
    // An error is expected if the instance is cut off.
    let _ = order(fleet, at, async {
        match word {
            0 => breaker.expires_in(span).force_open("for now").await,
            1 => breaker.expires_in(span).disable("for now").await,
            2 => breaker.expires_in(span).metrics_only("for now").await,
            3 | 4 => breaker.release().await,
            _ => breaker.reset().await,
        }
    })
    .await;
}

#[test]
fn expiring_overrides_end_and_the_fleet_agrees() {
    in_simulation(0..300, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        for _ in 0..12 {
            fleet.walk_on(20, false).await;
            let at = fleet.any();
            any_order(&mut fleet, at).await;
        }
        fleet.advance(Duration::from_secs(3));
        fleet.settle().await;
        fleet.assert_agreed().await;
        assert!(!fleet.truth().await.0.is_manual());
    });
}

#[test]
fn release_ends_an_override_that_its_instance_has_not_observed() {
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        let [first, second] = [handle(&fleet, 0), handle(&fleet, 1)];
        order(&mut fleet, 0, first.force_open("x")).await.unwrap();
        assert_eq!((fleet.truth().await, state(&fleet, 1)), ((State::ForcedOpen, 1), State::Closed));
        order(&mut fleet, 1, second.by("bob").release()).await.unwrap();
        assert_eq!(fleet.truth().await, (State::Closed, 2));
        assert_eq!(fleet.instances[1].core.snapshot().actor, "bob");
        // A state that is not overridden stays, and so does a newer override.
        order(&mut fleet, 1, second.release()).await.unwrap();
        assert_eq!(fleet.truth().await, (State::Closed, 2));
    });
}

#[test]
fn expired_override_is_not_adopted_again_at_the_heal() {
    for word in [State::ForcedOpen, State::Disabled, State::MetricsOnly] {
        in_simulation(0..1, async |seed| {
            let mut fleet = Fleet::settled(seed, 2, &config()).await;
            let breaker = handle(&fleet, 0).expires_in(2000 * MS);
            order(&mut fleet, 0, async {
                match word {
                    State::ForcedOpen => breaker.force_open("x").await,
                    State::Disabled => breaker.disable("x").await,
                    _ => breaker.metrics_only("x").await,
                }
            })
            .await
            .unwrap();
            fleet.instances[0].link.set(Fate::Cut);
            for _ in 0..19 {
                assert_eq!(state(&fleet, 0), word, "the override has not expired yet");
                fleet.advance(100 * MS);
                fleet.turn(0).await;
            }
            fleet.advance(200 * MS);
            fleet.turn(0).await;
            assert_eq!(state(&fleet, 0), State::Closed);
            assert_eq!(fleet.truth().await, (word, 1), "no instance has told the store");
            fleet.instances[0].link.set(Fate::Up);
            for _ in 0..20 {
                fleet.advance(50 * MS);
                fleet.turn(0).await;
                assert_eq!(state(&fleet, 0), State::Closed);
                fleet.follow(0).await;
                assert_eq!(state(&fleet, 0), State::Closed);
            }
            assert_eq!(fleet.truth().await, (State::Closed, 2));
            fleet.settle().await;
            fleet.assert_agreed().await;
        });
    }
}

/// Random settings with limits that are never reached.
fn unreachable(random: &mut Rng, of_time: bool) -> BreakerConfig {
    let config = config().failure_threshold(1_000_000).slow_call_duration(Duration::from_secs(60));
    let config = config.slow_call_rate_threshold(1.0);
    match random.u32(1..5) {
        n if !of_time => config.window_calls(100 * n),
        1 => config.window(Duration::from_secs(1800)).ramp_up(Duration::from_secs(1)),
        2 => config.window(Duration::from_secs(3600)).min_failing_instances(2),
        n => config.window(Duration::from_secs(1000) * n),
    }
}

#[test]
fn reload_keeps_counts_and_state() {
    in_simulation(0..300, async |seed| {
        let size = if seed % 2 == 0 { 1 } else { 2 };
        let of_time = seed % 4 < 2;
        let mut random = Rng::with_seed(seed);
        let mut fleet = Fleet::new(seed, size, &unreachable(&mut random, of_time));
        let (mut failures, mut successes) = (0, 0);
        for _ in 0..60 {
            let at = fleet.any();
            match random.u8(..10) {
                0..3 => {
                    assert!(fleet.call(at, true).await);
                    successes += 1;
                }
                3..6 => {
                    assert!(fleet.call(at, false).await);
                    failures += 1;
                }
                6..8 => {
                    let settings = unreachable(&mut random, of_time).resolve().unwrap();
                    fleet.instances[at].core.configure(settings, &PerFunction::default());
                }
                _ => {}
            }
            fleet.advance(10 * MS);
            let at = fleet.any();
            fleet.turn(at).await;
        }
        // Each instance reports its pending counts, then receives the other's.
        fleet.settle().await;
        for at in 0..size {
            assert!(fleet.call(at, true).await);
            fleet.settle().await;
        }
        // Reports tell, and do not ask.
        fleet.instances[size - 1].core.exchange_next();
        fleet.settle().await;
        let snapshot = fleet.instances[size - 1].core.snapshot();
        assert_eq!((snapshot.failures, snapshot.successes), (failures, successes + size as u64));
        assert_eq!((snapshot.state, snapshot.epoch), (State::Closed, 0));
        // Each instance evaluates its own window and what the others have reported for that window.
        let (window, all) = (snapshot.window.unwrap(), (failures + successes + 1, failures));
        assert!(size > 1 || (window.calls, window.failures) == all, "{window:?}, but {all:?}");
    });
}
