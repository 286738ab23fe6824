//! Health checks in the simulated fleet: begun by real decisions, ended by the walk.

use std::time::Duration;

use super::{Fate, Fleet, config, in_simulation};
use crate::breaker::health::Check;
use crate::config::BreakerConfig;
use crate::snapshot::State;

/// The checks that are under way, by instance, and the highest token that one was begun with.
#[derive(Default)]
struct Ward {
    under_way: Vec<(usize, Check)>,
    token: u64,
}

fn checked() -> BreakerConfig {
    config().health_check(async || ()).health_check_interval(Duration::from_millis(300))
}

impl Fleet {
    async fn turn_with_checks(&mut self, at: usize, ward: &mut Ward) {
        self.turn(at).await;
        if let Some(check) = self.instances[at].core.begin_check() {
            if let Some(token) = check.token() {
                assert!(token >= ward.token, "an instance checks whose role another one has taken over");
                ward.token = token;
            }
            ward.under_way.push((at, check));
        }
    }

    fn end_check(&mut self, ward: &mut Ward, passed: bool) {
        if ward.under_way.is_empty() {
            return;
        }
        let (at, check) = ward.under_way.swap_remove(self.random.usize(..ward.under_way.len()));
        let result = if passed { Ok(()) } else { Err("down".into()) };
        self.instances[at].core.end_check(&check, result, Duration::ZERO);
    }

    async fn walk_with_checks(&mut self, steps: usize) {
        let mut ward = Ward::default();
        for _ in 0..steps {
            let at = self.any();
            match self.random.u8(..100) {
                0..25 => {
                    let success = self.random.u8(..4) == 0;
                    self.call(at, success).await;
                }
                25..65 => {
                    let span = Duration::from_millis(self.random.u64(1..300));
                    self.advance(span);
                    self.turn_with_checks(at, &mut ward).await;
                }
                65..80 => {
                    let passed = self.random.bool();
                    self.end_check(&mut ward, passed);
                }
                80..88 => self.follow(at).await,
                // Longer than any role's term.
                88 => self.advance(Duration::from_secs(3)),
                89..92 => self.instances[at].link.set(Fate::Cut),
                92..97 => self.instances[at].link.set(Fate::Up),
                _ => self.instances[at].link.set(Fate::LoseAnswer),
            }
        }
        // Each has its timeout.
        while !ward.under_way.is_empty() {
            self.end_check(&mut ward, false);
        }
        self.settle().await;
    }

    /// The dependency works, and nobody calls.
    async fn recover(&mut self) {
        let mut ward = Ward::default();
        for _ in 0..30 {
            self.advance(Duration::from_millis(200));
            for at in 0..self.instances.len() {
                self.turn_with_checks(at, &mut ward).await;
                self.end_check(&mut ward, true);
                self.follow(at).await;
            }
        }
        self.settle().await;
    }
}

#[test]
fn with_health_checks_the_fleet_agrees_and_no_two_instances_make_them_in_one_term() {
    in_simulation(0..300, async |seed| {
        let idle = checked().idle_health_check_interval(Duration::from_secs(1));
        let config = if seed % 2 == 0 { idle } else { checked() };
        let mut fleet = Fleet::new(seed, 3, &config);
        fleet.walk_with_checks(300).await;
        fleet.assert_agreed().await;
    });
}

#[test]
fn with_health_checks_an_open_circuit_closes_without_any_call() {
    in_simulation(0..150, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &checked());
        fleet.walk_with_checks(150).await;
        fleet.recover().await;
        assert_eq!(fleet.truth().await.0, State::Closed);
        fleet.assert_agreed().await;
    });
}

#[test]
fn stale_leader_result_is_fenced() {
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &checked());
        let mut ward = Ward::default();
        for at in 0..2 {
            fleet.turn(at).await;
        }
        for _ in 0..3 {
            fleet.call(0, false).await;
        }
        fleet.turn(0).await;
        fleet.follow(1).await;
        fleet.advance(Duration::from_millis(300));
        fleet.turn_with_checks(0, &mut ward).await;
        assert_eq!(ward.under_way.len(), 1);

        // The store loses everything, and the other one is the first to speak with it.
        fleet.store.forget_everything();
        fleet.advance(Duration::from_millis(400));
        fleet.turn(1).await;
        assert_eq!(fleet.truth().await, (State::Open, 1));

        fleet.end_check(&mut ward, true);
        let decided = fleet.instances[0].core.snapshot();
        assert_eq!((decided.state, decided.local), (State::Closed, true));
        fleet.turn(0).await;
        let known = fleet.instances[0].core.snapshot();
        assert_eq!((known.state, known.local), (State::Open, false));
        assert_eq!(fleet.truth().await, (State::Open, 1));
    });
}

#[test]
fn breaker_is_reviewed_for_checks_only_in_states_that_have_them() {
    in_simulation(0..20, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &checked()).await;
        let is_reviewed = |fleet: &Fleet| {
            let coordinators = fleet.instances.iter().map(|instance| &instance.coordinator);
            coordinators
                .map(|one| (!one.checked.is_empty(), one.schedule.next().is_some()))
                .collect::<Vec<_>>()
        };
        fleet.instances.iter_mut().for_each(|instance| instance.coordinator.begin_checks());
        assert_eq!(is_reviewed(&fleet), [(false, false); 2]);
        fleet.fail().await;
        fleet.settle().await;
        assert_eq!(is_reviewed(&fleet), [(true, true); 2]);
        fleet.recover().await;
        fleet.advance(Duration::from_secs(60));
        fleet.settle().await;
        fleet.instances.iter_mut().for_each(|instance| instance.coordinator.begin_checks());
        assert_eq!(is_reviewed(&fleet), [(false, false); 2]);
    });
}
