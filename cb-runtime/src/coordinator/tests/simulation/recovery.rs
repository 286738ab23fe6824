//! Recovery: backoff, probes, ramp-up, and `open_for`.

use super::*;
use crate::breaker::permit::Admission;
use crate::config::Backoff;

async fn exchange(fleet: &mut Fleet) {
    for _ in 0..3 {
        fleet.advance(Duration::from_millis(1));
        for at in 0..fleet.instances.len() {
            fleet.instances[at].coordinator.context.wake();
            fleet.turn(at).await;
            fleet.follow(at).await;
        }
    }
}

fn retry_after(fleet: &Fleet, at: usize) -> Duration {
    fleet.instances[at].core.snapshot().retry_after.unwrap()
}

const MS: Duration = Duration::from_millis(1);

fn growing() -> BreakerConfig {
    config()
        .failure_threshold(1)
        .success_threshold(1)
        .reset_timeout(100 * MS)
        .backoff(Backoff::exponential(3.0).cap(500 * MS))
}

/// Opens the circuit with failures of this instance and the next, and returns the open time.
async fn opened_again(fleet: &mut Fleet, at: usize) -> Duration {
    assert!(fleet.call(at, false).await);
    let span = retry_after(fleet, at);
    exchange(fleet).await;
    assert_eq!(fleet.instances[1 - at].core.snapshot().state, State::Open);
    fleet.advance(span);
    span
}

#[test]
fn backoff_grows_fleet_wide_and_restarts_after_a_close() {
    in_simulation(0..10, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &growing());
        exchange(&mut fleet).await;
        for _ in 0..2 {
            let mut spans = Vec::new();
            for at in [0, 1, 0, 1] {
                spans.push(opened_again(&mut fleet, at).await);
            }
            assert_eq!(spans, [100 * MS, 300 * MS, 500 * MS, 500 * MS]);
            assert!(fleet.call(1, true).await);
            exchange(&mut fleet).await;
            assert_eq!(fleet.truth().await.0, State::Closed);
        }
    });
}

#[test]
fn isolated_instance_backs_off() {
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::new(seed, 1, &growing());
        exchange(&mut fleet).await;
        fleet.instances[0].link.set(Fate::Cut);
        // Long enough for the instance to notice that it is cut off.
        fleet.advance(Duration::from_secs(1));
        fleet.call(0, true).await;
        fleet.turn(0).await;
        for expected in [100, 300, 500, 500] {
            assert!(fleet.call(0, false).await);
            assert_eq!(retry_after(&fleet, 0), expected * MS);
            fleet.advance(expected * MS);
        }
    });
}

#[test]
fn jitter_stays_within_its_share() {
    let config = growing().backoff(Backoff::constant().jitter(0.5));
    in_simulation(0..100, async |seed| {
        let mut fleet = Fleet::new(seed, 1, &config);
        fleet.call(0, false).await;
        let span = retry_after(&fleet, 0);
        assert!(span >= 50 * MS && span <= 150 * MS, "{span:?}");
    });
}

#[test]
fn recovery_rate_decides_after_the_sample() {
    let config = config().failure_threshold(1).recovery_rate(0.5).success_threshold(4);
    in_simulation(0..10, async |seed| {
        for (last, state) in [(true, State::Closed), (false, State::Open)] {
            let mut fleet = Fleet::new(seed, 2, &config);
            exchange(&mut fleet).await;
            fleet.call(0, false).await;
            exchange(&mut fleet).await;
            fleet.advance(RESET);
            for (at, success) in [(0, false), (1, true), (0, false)] {
                assert!(fleet.call(at, success).await);
                exchange(&mut fleet).await;
                assert_eq!(fleet.truth().await.0, State::HalfOpen);
            }
            assert!(fleet.call(1, true).await);
            exchange(&mut fleet).await;
            assert_eq!(fleet.truth().await.0, State::Closed, "half of four probes succeeded");

            fleet.call(0, false).await;
            exchange(&mut fleet).await;
            fleet.advance(RESET);
            for (at, success) in [(0, false), (1, true), (0, last), (1, last)] {
                assert!(fleet.call(at, success).await);
                exchange(&mut fleet).await;
            }
            assert_eq!(fleet.truth().await.0, state, "the sample starts at zero");
        }
    });
}

fn ramping() -> BreakerConfig {
    growing().ramp_up(Duration::from_secs(10))
}

async fn recovered(fleet: &mut Fleet) {
    exchange(fleet).await;
    let span = opened_again(fleet, 0).await;
    assert_eq!(span, 100 * MS);
    assert!(fleet.call(0, true).await);
    exchange(fleet).await;
    assert_eq!(fleet.truth().await.0, State::Closed);
}

async fn admitted(fleet: &mut Fleet, at: usize, calls: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..calls {
        admitted += usize::from(fleet.call(at, true).await);
    }
    admitted
}

#[test]
fn every_instance_ramps_up_after_a_recovery() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &ramping());
        recovered(&mut fleet).await;
        for at in 0..2 {
            assert!((10..=12).contains(&admitted(&mut fleet, at, 100).await));
        }
        fleet.advance(Duration::from_secs(5));
        assert!((54..=56).contains(&admitted(&mut fleet, 1, 100).await));
        let outcomes = fleet.instances[1].core.snapshot().outcomes;
        assert_eq!(outcomes.rejected, 0, "ramp rejections are counted separately");
        assert!(outcomes.ramp_rejected >= 130);
        fleet.advance(Duration::from_secs(5));
        assert_eq!(admitted(&mut fleet, 0, 100).await, 100);
    });
}

#[test]
fn trip_during_ramp_up_uses_the_next_backoff() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &ramping());
        recovered(&mut fleet).await;
        assert!(fleet.call(1, false).await, "the first call is admitted");
        assert_eq!(retry_after(&fleet, 1), 300 * MS);
        exchange(&mut fleet).await;
        fleet.advance(300 * MS);
        assert!(fleet.call(0, true).await);
        exchange(&mut fleet).await;
        fleet.advance(Duration::from_secs(10));
        assert!(fleet.call(1, false).await);
        assert_eq!(retry_after(&fleet, 1), 100 * MS);
    });
}

#[test]
fn call_admitted_by_the_ramp_is_not_late_after_it() {
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &ramping());
        recovered(&mut fleet).await;
        let core = fleet.instances[0].core.clone();
        let Admission::Go(permit) = core.admit() else { panic!("the first call is admitted") };
        fleet.advance(Duration::from_secs(10));
        assert_eq!(admitted(&mut fleet, 0, 10).await, 10);
        permit.failure();
        assert_eq!(core.snapshot().state, State::Open);
    });
}

#[test]
fn open_for_applies_to_the_fleet() {
    let config = config().failure_threshold(100);
    in_simulation(0..10, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config);
        exchange(&mut fleet).await;
        let core = fleet.instances[0].core.clone();
        let asked = Duration::from_secs(77);
        fleet.permit(0, &core).await.unwrap().end_opening(asked);
        assert!(!fleet.call(0, true).await);
        exchange(&mut fleet).await;
        for at in 0..3 {
            let snapshot = fleet.instances[at].core.snapshot();
            assert_eq!(snapshot.state, State::Open);
            assert!(snapshot.retry_after.unwrap() + 100 * MS > asked);
            assert_eq!(snapshot.reason, "the dependency asked for 1m 17s (open_for)");
        }
        // It applies to probes, too.
        fleet.advance(asked);
        let other = fleet.instances[1].core.clone();
        fleet.permit(1, &other).await.unwrap().end_opening(asked);
        exchange(&mut fleet).await;
        assert!(retry_after(&fleet, 2) + 100 * MS > asked);
    });
}

/// With any settings, a fleet closes once its dependency works.
#[test]
fn fleet_closes_from_any_state_with_any_recovery_settings() {
    in_simulation(0..300, async |seed| {
        let mut random = Rng::with_seed(seed);
        let mut config = config();
        if random.bool() {
            config = config.failure_rate_threshold(0.3 + 0.7 * random.f64()).minimum_calls(random.u32(1..8));
            config =
                if random.bool() { config.window_calls(random.u32(8..40)) } else { config.window(RESET) };
        }
        if random.bool() {
            config = config.min_failing_instances(random.u32(1..4));
        }
        if random.bool() {
            config = config.recovery_rate(0.1 + 0.9 * random.f64());
        }
        if random.bool() {
            config = config.ramp_up(Duration::from_millis(random.u64(100..3000)));
        }
        if random.bool() {
            config = config.backoff(Backoff::exponential(1.0 + random.f64()).cap(2 * RESET).jitter(0.3));
        }
        let mut fleet = Fleet::new(seed, 3, &config);
        fleet.walk(200, seed % 2 == 0).await;
        fleet.get_well(60).await;
        assert_eq!(fleet.truth().await.0, State::Closed, "{config:?}");
        fleet.assert_agreed().await;
    });
}
