//! How often instances ask, what they ask while nothing happens, and what they do when the store is slow.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::breaker::permit::Admission;
use crate::coordinator::{PACE, RETRY};

const MS: Duration = Duration::from_millis(1);

/// A turn of every instance every ten milliseconds.
async fn pass(fleet: &mut Fleet, span: Duration) {
    let begun = fleet.now();
    while fleet.now().since(begun) < span {
        fleet.advance(10 * MS);
        for at in 0..fleet.instances.len() {
            fleet.turn(at).await;
            fleet.follow(at).await;
        }
    }
}

fn rate() -> BreakerConfig {
    BreakerConfig::default().failure_rate_threshold(0.5).window(Duration::from_secs(60)).minimum_calls(10)
}

impl Fleet {
    fn now(&self) -> crate::clock::Moment {
        self.instances[0].coordinator.context.clock.now()
    }

    fn requests(&self) -> u64 {
        self.instances.iter().map(|instance| instance.link.requests.load(Ordering::Relaxed)).sum()
    }

    /// The number of exchanges from now on.
    fn count_exchanges(&self) -> Arc<AtomicU64> {
        let exchanged = Arc::new(AtomicU64::new(0));
        for instance in &self.instances {
            let exchanged = exchanged.clone();
            *lock(&instance.link.listener) = Some(Box::new(move |_: &Batch| {
                exchanged.fetch_add(1, Ordering::Relaxed);
            }));
        }
        exchanged
    }

    fn delay(&self, span: Duration) {
        for instance in &self.instances {
            instance.link.delay_answers(span);
        }
    }
}

#[test]
fn an_emptied_store_is_refilled_within_a_second_by_instances_that_nobody_calls() {
    let config = BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_secs(3600));
    in_simulation(0..20, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &config);
        pass(&mut fleet, PACE).await;
        fleet.call(0, false).await;
        pass(&mut fleet, Duration::from_secs(5)).await;
        let (state, epoch) = fleet.truth().await;
        assert_eq!((state, epoch), (State::Open, 1));
        fleet.store.forget_everything();
        assert_eq!(fleet.truth().await.1, 0);
        pass(&mut fleet, Duration::from_secs(1)).await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet.assert_agreed().await;
    });
}

#[test]
fn ten_thousand_idle_breakers_are_neither_looked_at_nor_reported() {
    let config = rate();
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::new(seed, 1, &config);
        fleet.turn(0).await;
        let Member { coordinator, link, .. } = &mut fleet.instances[0];
        let breakers: Vec<_> = (0..10_000)
            .map(|number| {
                let make = |name, held| Core::new(name, &config, held, &coordinator.context);
                coordinator.breakers.entry(&format!("idle-{number}")).insert(BreakerKind::Pinned, make)
            })
            .collect();
        for core in &breakers {
            let Admission::Go(permit) = core.admit() else { panic!("it is closed") };
            permit.success();
        }
        // Until all has been told, and compared with others' settings.
        for _ in 0..6_000 {
            fleet.time.advance(10 * MS);
            coordinator.turn().await;
        }
        let before = (link.requests.load(Ordering::Relaxed), link.entries.load(Ordering::Relaxed));
        assert!(before.1 >= 10_000, "each has been reported");
        let (minute, mut turns) = (coordinator.context.clock.now().after(Duration::from_secs(60)), 0);
        loop {
            assert!(!coordinator.context.has_dirty() && coordinator.schedule.next().is_none());
            let next = coordinator.next_turn();
            if next > minute {
                break;
            }
            fleet.time.advance(next.since(coordinator.context.clock.now()).max(MS));
            coordinator.turn().await;
            turns += 1;
        }
        let after = (link.requests.load(Ordering::Relaxed), link.entries.load(Ordering::Relaxed));
        assert_eq!(after.1, before.1, "nothing is told of them");
        assert!(after.0 - before.0 <= 90, "one question every 0.7 s: {}", after.0 - before.0);
        assert!(turns <= 90 + 61, "and a look at keyed breakers every second: {turns}");
    });
}

#[test]
fn a_slow_store_is_asked_less_and_not_lost_and_transitions_reach_all() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &config());
        pass(&mut fleet, PACE).await;
        // Every second call fails, so each breaker is tense.
        let busy = async |fleet: &mut Fleet, span: Duration| {
            let begun = fleet.now();
            while fleet.now().since(begun) < span {
                for at in 0..3 {
                    fleet.call(at, false).await;
                    fleet.call(at, true).await;
                    assert!(fleet.instances[at].coordinator.context.store_up(), "slow is not lost");
                }
                pass(fleet, 20 * MS).await;
            }
        };
        let per_second = async |fleet: &mut Fleet| {
            let before = fleet.requests();
            busy(fleet, Duration::from_secs(10)).await;
            (fleet.requests() - before) / 30
        };
        let quick = per_second(&mut fleet).await;
        assert!(quick >= 7, "an exchange every 100 ms: {quick}");
        fleet.delay(150 * MS);
        busy(&mut fleet, Duration::from_secs(10)).await;
        let slow = per_second(&mut fleet).await;
        assert!(slow <= 3, "{slow}");
        assert_eq!(fleet.states(), [State::Closed; 3]);
        for _ in 0..3 {
            fleet.call(0, false).await;
        }
        let tripped = fleet.now();
        while fleet.states() != [State::Open; 3] {
            pass(&mut fleet, 10 * MS).await;
            assert!(fleet.now().since(tripped) <= Duration::from_secs(1), "it is not paced");
        }
        fleet.delay(Duration::ZERO);
        fleet.get_well(40).await;
        assert_eq!(fleet.truth().await.0, State::Closed);
        assert!(per_second(&mut fleet).await >= 7, "the pace is normal again");
    });
}

/// Lets every instance call successfully, ten times a second.
async fn succeed(fleet: &mut Fleet, span: Duration) {
    let begun = fleet.now();
    while fleet.now().since(begun) < span {
        for at in 0..fleet.instances.len() {
            fleet.call(at, true).await;
        }
        pass(fleet, PACE).await;
    }
}

#[test]
fn a_fleet_that_only_succeeds_reports_every_four_seconds_until_something_happens() {
    let second = Duration::from_secs(1);
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &rate());
        let requests = async |fleet: &mut Fleet, span: Duration| {
            let before = fleet.requests();
            succeed(fleet, span).await;
            fleet.requests() - before
        };
        succeed(&mut fleet, 2 * second).await;
        let young = requests(&mut fleet, 8 * second).await;
        assert!(young >= 3 * 7, "a report every second: {young}");
        // Settings are compared in an exchange for the last time within 32 s.
        succeed(&mut fleet, 20 * second).await;
        let calm = requests(&mut fleet, 20 * second).await;
        assert!(calm <= 3 * 7, "a report every four seconds, and a confirmation: {calm}");
        // A failure far from the limit is reported, and from then on reports are as frequent as before.
        fleet.call(0, false).await;
        succeed(&mut fleet, 4 * second + PACE).await;
        let before = fleet.requests();
        succeed(&mut fleet, 8 * second).await;
        assert!(fleet.requests() - before >= 7 + 2 * 3, "one instance reports every second");
        fleet.assert_agreed().await;
    });
}

#[test]
fn ages_of_a_report_do_not_depend_on_when_each_breaker_is_encoded() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 1, &rate());
        succeed(&mut fleet, Duration::from_secs(40)).await;
        assert!(fleet.call(0, false).await);
        fleet.advance(100 * MS);
        let as_of = fleet.instances[0].coordinator.context.clock.now();
        fleet.advance(MS);
        let reported = fleet.instances[0].core.encode_report(false, as_of).unwrap();
        assert_eq!(reported.failure_age_us, Some(100_000));
    });
}

#[test]
fn instances_that_start_together_compare_their_settings_one_after_another() {
    const SIZE: usize = 20;
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, SIZE, &rate());
        succeed(&mut fleet, Duration::from_secs(8)).await;
        let exchanged = fleet.count_exchanges();
        for _ in 0..9 {
            let before = exchanged.load(Ordering::Relaxed);
            succeed(&mut fleet, Duration::from_secs(1)).await;
            let at_once = exchanged.load(Ordering::Relaxed) - before;
            assert!(at_once <= SIZE as u64 / 2, "{at_once} of {SIZE} within a second");
        }
        // One that compares when this time begins or ends may have been counted twice, or not at all.
        let compared = exchanged.load(Ordering::Relaxed);
        assert!(compared.abs_diff(SIZE as u64) <= 2, "{compared} of {SIZE}");
    });
}

#[test]
fn settings_are_not_compared_while_the_store_has_enough_to_do() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &rate());
        fleet.delay(50 * MS);
        succeed(&mut fleet, Duration::from_secs(1)).await;
        let exchanged = fleet.count_exchanges();
        succeed(&mut fleet, Duration::from_secs(3)).await;
        assert_eq!(exchanged.load(Ordering::Relaxed), 0);
        fleet.delay(Duration::ZERO);
        succeed(&mut fleet, Duration::from_secs(15)).await;
        assert!(exchanged.load(Ordering::Relaxed) >= 2);
    });
}

/// Far from its limit, a rate needs reports alone: no rule looks at the failures in a row that calls end
/// with.
#[test]
fn failures_far_from_a_rates_limit_are_reported_and_not_exchanged() {
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 2, &rate());
        succeed(&mut fleet, Duration::from_secs(40)).await;
        let exchanged = fleet.count_exchanges();
        for _ in 0..100 {
            for at in 0..2 {
                for call in 0..10 {
                    fleet.call(at, call < 9).await;
                }
            }
            pass(&mut fleet, PACE).await;
        }
        assert_eq!(exchanged.load(Ordering::Relaxed), 0);
        fleet.assert_agreed().await;
    });
}

#[test]
fn a_calm_fleet_trips_in_time_and_only_above_its_limit() {
    in_simulation(0..10, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &rate());
        succeed(&mut fleet, Duration::from_secs(33)).await;
        let calls = 3 * 331;
        // The other two have up to four seconds of successes that they have not reported.
        for _ in 0..calls / 2 {
            fleet.call(0, false).await;
        }
        pass(&mut fleet, Duration::from_secs(1)).await;
        assert_eq!(fleet.states(), [State::Closed; 3], "a third of the calls fails");
        for _ in 0..calls / 2 + 60 {
            fleet.call(0, false).await;
        }
        pass(&mut fleet, 350 * MS).await;
        assert_eq!(fleet.states(), [State::Open; 3], "half of the calls fails");
        fleet.assert_agreed().await;
    });
}

#[test]
fn an_emptied_store_is_refilled_by_a_fleet_that_was_calm() {
    in_simulation(0..10, async |seed| {
        let mut fleet = Fleet::new(seed, 3, &rate());
        succeed(&mut fleet, Duration::from_secs(33)).await;
        for _ in 0..3 * 400 {
            fleet.call(0, false).await;
        }
        pass(&mut fleet, Duration::from_secs(1)).await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        // The one that has tripped has left.
        drop(fleet.instances.remove(0));
        pass(&mut fleet, Duration::from_secs(1)).await;
        fleet.store.forget_everything();
        pass(&mut fleet, Duration::from_secs(1)).await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
    });
}

/// The calls of one instance that fail are most of what it knows of; another has had more successes and not
/// reported them. `successes` of them decide whether the fleet's rate is at the limit.
async fn with_unreported(seed: u64, successes: usize) -> (Fleet, State) {
    let mut fleet = Fleet::new(seed, 2, &rate());
    pass(&mut fleet, Duration::from_secs(2)).await;
    for _ in 0..2 {
        fleet.call(1, true).await;
    }
    pass(&mut fleet, Duration::from_secs(2)).await;
    // Instance 1 is due to report in a second.
    fleet.call(1, true).await;
    pass(&mut fleet, 10 * MS).await;
    for _ in 0..successes {
        fleet.call(1, true).await;
    }
    for _ in 0..8 {
        fleet.call(0, false).await;
    }
    let begun = fleet.now();
    while fleet.now().since(begun) < 350 * MS {
        pass(&mut fleet, 10 * MS).await;
    }
    let state = fleet.states()[0];
    (fleet, state)
}

#[test]
fn a_rate_waits_for_successes_that_others_have_not_reported() {
    in_simulation(0..20, async |seed| {
        let (fleet, state) = with_unreported(seed, 20).await;
        assert_eq!(state, State::Closed, "8 of 31 calls");
        fleet.assert_agreed().await;
        let (fleet, state) = with_unreported(seed, 3).await;
        assert_eq!(state, State::Open, "8 of 14 calls, within 350 ms");
        fleet.assert_agreed().await;
    });
}

#[test]
fn instances_that_lose_the_store_together_do_not_return_in_step() {
    in_simulation(0..1, async |seed| {
        let mut fleet = Fleet::settled(seed, 20, &config()).await;
        for instance in &fleet.instances {
            instance.link.set(Fate::Cut);
        }
        fleet.advance(Duration::from_secs(1));
        let mut times = Vec::new();
        for at in 0..20 {
            fleet.turn(at).await;
            let coordinator = &fleet.instances[at].coordinator;
            assert!(!coordinator.context.store_up());
            times.push(coordinator.retry_at.since(coordinator.context.clock.now()));
        }
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*first >= RETRY.0 * 3 / 4 && *last <= RETRY.0 * 5 / 4, "{times:?}");
        assert!(last.saturating_sub(*first) > RETRY.0 / 4, "{times:?}");
    });
}
