//! What opens a circuit.

use super::*;
use crate::breaker::permit::Admission;
use crate::strategy::{TripStrategy, WindowCounts};

/// Lets every instance report its counts and receive the others'.
async fn exchange(fleet: &mut Fleet) {
    for _ in 0..3 {
        fleet.advance(Duration::from_millis(110));
        for at in 0..fleet.instances.len() {
            fleet.turn(at).await;
            fleet.follow(at).await;
        }
    }
}

/// Without the rule of consecutive failures.
fn only(config: BreakerConfig) -> BreakerConfig {
    BreakerConfig { failure_threshold: None, ..config }
}

fn last_calls() -> BreakerConfig {
    only(config()).failure_rate_threshold(0.5).window_calls(8).minimum_calls(4)
}

fn quorum(instances: u32) -> BreakerConfig {
    config().failure_threshold(3).min_failing_instances(instances)
}

#[test]
fn rate_over_the_last_calls_agrees() {
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &last_calls());
        fleet.walk(300, seed % 2 == 0).await;
        fleet.assert_agreed().await;
    });
}

/// Against a plain list of what has been called.
#[test]
fn count_window_of_one_instance_is_exact() {
    in_simulation(0..300, async |seed| {
        let mut fleet = Fleet::new(seed, 1, &last_calls());
        let mut all = Vec::new();
        fleet.turn(0).await;
        for step in 0.. {
            let success = fleet.random.u8(..10) < 7;
            assert!(fleet.call(0, success).await);
            all.push(success);
            let recent = &all[all.len().saturating_sub(8)..];
            let failures = recent.iter().filter(|success| !**success).count();
            let trips = recent.len() >= 4 && failures * 2 >= recent.len();
            // Successes are judged at the next exchange.
            if fleet.random.u8(..3) == 0 || success && trips {
                exchange(&mut fleet).await;
            }
            assert_eq!(fleet.states()[0] == State::Open, trips, "{recent:?}");
            if trips || step > 400 {
                break;
            }
        }
    });
}

#[test]
fn after_a_million_successes_five_failures_of_the_last_ten_open() {
    let config = only(config()).failure_rate_threshold(0.5).window_calls(10).minimum_calls(5);
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &config);
        exchange(&mut fleet).await;
        let core = fleet.instances[0].core.clone();
        for _ in 0..1_000_000 {
            let Admission::Go(permit) = core.admit() else { panic!("it is closed") };
            permit.success();
        }
        // The successes travel in a report, which may take a second.
        fleet.settle().await;
        for failures in 1..=5 {
            assert_eq!(fleet.states(), [State::Closed; 2], "{failures}");
            fleet.call(failures % 2, false).await;
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Open; 2]);
        let reason = fleet.instances[0].core.snapshot().reason;
        assert_eq!(reason, "50.0 % of the last 10 calls failed (limit 50.0 %)");
    });
}

#[test]
fn slow_calls_open_and_a_slow_failure_is_both() {
    let config = only(config()).slow_call_duration(RESET).slow_call_rate_threshold(0.5).minimum_calls(4);
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &config);
        exchange(&mut fleet).await;
        fleet.call_ending(0, Outcome::SlowSuccess).await;
        fleet.call(0, true).await;
        fleet.call(1, true).await;
        exchange(&mut fleet).await;
        fleet.call_ending(1, Outcome::SlowFailure).await;
        // The other instance is given time to report.
        fleet.settle().await;
        assert_eq!(fleet.states(), [State::Open; 2]);
        let snapshot = fleet.instances[1].core.snapshot();
        assert_eq!(snapshot.reason, "50.0 % of 4 calls in 1m took longer than 2s (limit 50.0 %)");
        let outcomes = snapshot.outcomes;
        assert_eq!((outcomes.success, outcomes.failure, outcomes.slow), (1, 1, 1));
    });
}

#[test]
fn bad_instance_opens_only_locally() {
    in_simulation(0..20, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &quorum(2));
        exchange(&mut fleet).await;
        for _ in 0..5 {
            // The successes of others do not hide what the bad one sees.
            for at in 1..3 {
                assert!(fleet.call(at, true).await);
            }
            fleet.call(0, false).await;
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Open, State::Closed, State::Closed]);
        let snapshot = fleet.instances[0].core.snapshot();
        assert!(snapshot.local && snapshot.reason.contains("on this instance only"), "{snapshot:?}");
        assert_eq!(fleet.truth().await, (State::Closed, 0));
        assert!(!fleet.call(0, true).await, "it protects itself");

        // It finds its way back by itself, however the store takes part.
        fleet.advance(RESET);
        if seed % 2 == 0 {
            fleet.instances[0].link.set(Fate::Cut);
            fleet.turn(0).await;
        }
        assert!(fleet.call(0, true).await);
        assert_eq!(fleet.states()[0], State::HalfOpen);
        assert!(fleet.call(0, true).await);
        assert_eq!(fleet.states(), [State::Closed; 3]);
        fleet.settle().await;
        assert!(!fleet.instances[0].core.snapshot().local);
        assert_eq!(fleet.truth().await, (State::Closed, 0));
    });
}

#[test]
fn second_failing_instance_opens_the_fleet() {
    in_simulation(0..20, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &quorum(2));
        exchange(&mut fleet).await;
        for _ in 0..3 {
            fleet.call(0, false).await;
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Open, State::Closed, State::Closed]);
        fleet.call(1, false).await;
        exchange(&mut fleet).await;
        assert_eq!(fleet.states(), [State::Open; 3]);
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet.assert_agreed().await;
        let reason = fleet.instances[2].core.snapshot().reason;
        assert!(reason.ends_with("consecutive failures (limit 3), on at least 2 instances"), "{reason}");
    });
}

/// Instance 0 opens alone, with or without the store. It learns of another instance's failure, and proposes
/// the opening, before that instance does.
#[test]
fn isolated_opening_that_others_confirm_gets_the_fleets_reason() {
    for is_cut_off in [false, true] {
        in_simulation(0..5, async |seed| {
            let mut fleet = Fleet::new(seed, 3, &quorum(2));
            exchange(&mut fleet).await;
            if is_cut_off {
                fleet.instances[0].link.set(Fate::Cut);
                fleet.advance(RESET / 2);
                fleet.turn(0).await;
            }
            for _ in 0..3 {
                fleet.call(0, false).await;
            }
            fleet.instances[0].link.set(Fate::Up);
            for _ in 0..2 {
                fleet.advance(RESET / 8);
                fleet.turn(0).await;
            }
            let alone = fleet.instances[0].core.snapshot();
            assert!(alone.state == State::Open && alone.local, "{alone:?}");

            fleet.call(1, false).await;
            fleet.advance(Duration::from_millis(110));
            // The store has the failure, and the other instance's proposal is due with its next turn.
            fleet.turn(1).await;
            assert_eq!(fleet.truth().await, (State::Closed, 0));
            fleet.advance(RESET / 4);
            for _ in 0..2 {
                fleet.turn(0).await;
            }
            assert_eq!(fleet.truth().await, (State::Open, 1));
            fleet.settle().await;
            fleet.assert_agreed().await;
            for instance in &fleet.instances {
                let reason = instance.core.snapshot().reason;
                assert_eq!(reason, "4 consecutive failures (limit 3), on at least 2 instances");
            }
        });
    }
}

/// Two of three instances are open alone, because the third has succeeded after the failures of each. Then
/// the dependency fails everywhere, and those two only make probes.
#[test]
fn failed_probe_of_an_instance_that_is_open_alone_counts_toward_the_quorum() {
    in_simulation(0..20, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &quorum(2));
        exchange(&mut fleet).await;
        for at in 0..2 {
            for _ in 0..3 {
                fleet.call(at, false).await;
                exchange(&mut fleet).await;
            }
            fleet.call(2, true).await;
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Open, State::Open, State::Closed]);
        assert_eq!(fleet.truth().await, (State::Closed, 0));
        fleet.advance(RESET);
        for at in 0..3 {
            assert!(fleet.call(at, false).await, "its probe, or a call");
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Open; 3]);
        assert_eq!(fleet.truth().await, (State::Open, 1));
    });
}

#[test]
fn failures_before_the_latest_success_do_not_count_toward_the_quorum() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &quorum(2));
        exchange(&mut fleet).await;
        fleet.call(1, false).await;
        exchange(&mut fleet).await;
        fleet.call(2, true).await;
        // The success travels in a report, which may take a second.
        fleet.settle().await;
        for _ in 0..3 {
            fleet.call(0, false).await;
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Open, State::Closed, State::Closed]);
        assert_eq!(fleet.truth().await, (State::Closed, 0));
    });
}

#[test]
fn quorum_over_a_count_window_counts_failing_instances_in_it() {
    let config = last_calls().min_failing_instances(2);
    in_simulation(0..20, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config);
        exchange(&mut fleet).await;
        // One failure of another, which is pushed out by what follows.
        fleet.call(1, false).await;
        exchange(&mut fleet).await;
        for _ in 0..8 {
            fleet.call(2, true).await;
        }
        exchange(&mut fleet).await;
        for _ in 0..4 {
            fleet.call(0, false).await;
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Open, State::Closed, State::Closed]);
        fleet.call(2, false).await;
        exchange(&mut fleet).await;
        assert_eq!(fleet.states(), [State::Open; 3]);
    });
}

#[test]
fn failures_of_a_cut_off_instance_stay_local_after_the_heal() {
    in_simulation(0..20, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &quorum(2));
        exchange(&mut fleet).await;
        fleet.instances[0].link.set(Fate::Cut);
        fleet.advance(Duration::from_millis(150));
        fleet.turn(0).await;
        fleet.call(0, false).await;
        exchange(&mut fleet).await;
        for _ in 0..2 {
            fleet.call(0, false).await;
        }
        assert_eq!(fleet.states(), [State::Open, State::Closed, State::Closed]);
        fleet.instances[0].link.set(Fate::Up);
        fleet.advance(Duration::from_millis(500));
        exchange(&mut fleet).await;
        assert_eq!(fleet.states(), [State::Open, State::Closed, State::Closed]);
        assert_eq!(fleet.truth().await, (State::Closed, 0));
    });
}

/// Instance 1 has read the fleet's counts, which were near a limit, and nothing has happened on it since.
/// Meanwhile instance 0 has had successes.
#[test]
fn first_failure_of_an_idle_instance_opens_nothing_on_counts_that_are_old() {
    for config in [config(), last_calls()] {
        in_simulation(0..5, async |seed| {
            let mut fleet = Fleet::new(seed, 2, &config);
            for _ in 0..2 {
                fleet.call(0, false).await;
            }
            exchange(&mut fleet).await;
            if config != self::config() {
                fleet.call(0, true).await;
                exchange(&mut fleet).await;
            }
            for _ in 0..10 {
                fleet.advance(RESET);
                assert!(fleet.call(0, true).await);
                fleet.turn(0).await;
            }
            let known = fleet.instances[1].core.snapshot();
            assert!(known.failures == 2 && known.successes <= 1, "it has not asked again: {known:?}");
            fleet.call(1, false).await;
            assert_eq!(fleet.states(), [State::Closed; 2], "{:?}", fleet.instances[1].core.snapshot());
            exchange(&mut fleet).await;
            assert_eq!(fleet.states(), [State::Closed; 2]);
            for _ in 0..4 {
                fleet.call(1, false).await;
            }
            assert_eq!(fleet.states()[1], State::Open, "its own failures are enough");
        });
    }
}

/// Instance 1 has read that instance 0 fails.
#[test]
fn node_that_has_left_since_the_last_answer_meets_no_quorum() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &quorum(2));
        fleet.call(0, false).await;
        exchange(&mut fleet).await;
        fleet.instances[0].coordinator.step_down();
        fleet.instances[0].coordinator.flush().await;
        exchange(&mut fleet).await;
        for _ in 0..3 {
            fleet.call(1, false).await;
        }
        exchange(&mut fleet).await;
        let alone = fleet.instances[1].core.snapshot();
        assert!(alone.state == State::Open && alone.local, "{alone:?}");
        assert_eq!(fleet.truth().await, (State::Closed, 0));
    });
}

#[test]
fn quorum_agrees_after_any_history_once_all_are_healthy() {
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &quorum(2).failure_rate_threshold(0.7).window_calls(10));
        fleet.walk(300, seed % 3 == 0).await;
        fleet.get_well(40).await;
        fleet.assert_agreed().await;
        assert_eq!(fleet.states(), [State::Closed; 3]);
    });
}

/// Many failures in the last quarter of the window, few before.
struct Worsening;

impl TripStrategy for Worsening {
    fn trip(&self, window: &WindowCounts<'_>) -> Option<String> {
        let (recent, all) = (window.within(Duration::from_secs(15)), window.calls());
        let before = all.failures - recent.failures;
        (recent.failures >= 4 && before <= 1 && window.failing_instances() >= 2)
            .then(|| format!("{} failures of late, {before} before", recent.failures))
    }
}

#[test]
fn strategy_sees_the_history_of_the_fleet() {
    let config = only(config()).strategy(Worsening).window(Duration::from_secs(60));
    in_simulation(0..10, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config);
        exchange(&mut fleet).await;
        fleet.call(0, false).await;
        for _ in 0..10 {
            fleet.advance(Duration::from_secs(2));
            exchange(&mut fleet).await;
        }
        for at in [0, 0, 1] {
            fleet.call(at, false).await;
            exchange(&mut fleet).await;
        }
        assert_eq!(fleet.states(), [State::Closed; 3]);
        fleet.call(1, false).await;
        exchange(&mut fleet).await;
        assert_eq!(fleet.states(), [State::Open; 3]);
        assert_eq!(fleet.instances[2].core.snapshot().reason, "4 failures of late, 1 before");
    });
}
