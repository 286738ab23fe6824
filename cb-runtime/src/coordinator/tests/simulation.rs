//! Fleets in one thread: real coordinators and breakers, a simulated clock, and a network that loses requests
//! and answers.
//!
//! Every run is decided by its seed, so one that fails can be played again alone.

mod batching;
mod eviction;
mod fleet;
mod health;
mod histories;
mod lapse;
mod link;
mod pace;
mod recovery;
mod restored;
mod resync;
mod rules;
mod steering;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;

use crate::breaker::Core;
use crate::breaker::counters::Outcome;
use crate::breakers::BreakerKind;
use crate::config::{BreakerConfig, PerFunction};
use crate::snapshot::State;
use crate::store::{Batch, Store};
use crate::sync::lock;
use fleet::{Fleet, Member, RESET};
use link::Fate;

fn config() -> BreakerConfig {
    BreakerConfig::default()
        .failure_threshold(3)
        .success_threshold(2)
        .half_open_max_calls(2)
        .reset_timeout(RESET)
}

fn in_simulation(seeds: std::ops::Range<u64>, run: impl AsyncFn(u64)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for seed in seeds {
        // Jitter, too, is decided by the seed.
        fastrand::seed(seed);
        runtime.block_on(async {
            eprintln!("seed {seed}");
            run(seed).await;
        });
    }
}

#[test]
fn fleet_agrees_after_any_faults() {
    in_simulation(0..400, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(300, false).await;
        fleet.assert_agreed().await;
    });
}

#[test]
fn fleet_with_a_rate_over_a_window_agrees_after_any_faults() {
    let rate = config().failure_rate_threshold(0.6).minimum_calls(6).window(Duration::from_secs(5));
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &rate);
        fleet.walk(300, false).await;
        fleet.assert_agreed().await;
    });
}

#[test]
fn emptied_store_is_refilled_by_the_fleet() {
    in_simulation(0..400, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(300, true).await;
        let before = fleet.truth().await;
        fleet.assert_agreed().await;
        fleet.store.forget_everything();
        fleet.settle().await;
        // A closed state is written back with the next outcome, all others at once.
        assert!(before.0 == State::Closed || fleet.truth().await == before);
        fleet.assert_agreed().await;
    });
}

#[test]
fn lost_requests_and_answers_count_once() {
    let never = BreakerConfig::default().failure_threshold(1_000_000);
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &never);
        let (mut successes, mut failures) = (0, 0);
        for at in 0..3 {
            fleet.turn(at).await;
        }
        for _ in 0..300 {
            let at = fleet.any();
            let link = fleet.instances[at].link.clone();
            match fleet.random.u8(..10) {
                0..3 => successes += u64::from(fleet.call(at, true).await),
                3..6 => failures += u64::from(fleet.call(at, false).await),
                6 => link.set(Fate::LoseAnswer),
                7 => link.set(if fleet.random.bool() { Fate::Cut } else { Fate::Up }),
                _ => {
                    fleet.advance(Duration::from_millis(150));
                    fleet.turn(at).await;
                }
            }
        }
        fleet.settle().await;
        let rows = fleet.stored().await;
        let (_, counts, _) = rows[0].view.as_ref().unwrap();
        assert_eq!((counts.successes, counts.failures), (successes, failures));
    });
}

#[test]
fn healthy_dependency_closes_the_circuit_from_any_state() {
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(200, seed % 2 == 0).await;
        fleet.get_well(40).await;
        assert_eq!(fleet.truth().await.0, State::Closed);
        fleet.assert_agreed().await;
    });
}

#[test]
fn each_instance_receives_each_transition_once_and_in_order() {
    in_simulation(0..200, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        fleet.walk(300, false).await;
        let last = fleet.truth().await.1;
        for instance in &fleet.instances {
            assert_eq!(instance.received, (1..=last).collect::<Vec<_>>());
        }
    });
}
