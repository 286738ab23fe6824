//! More breakers have something to say than fit into one batch.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::breaker::permit::Admission;
use crate::coordinator::{MAX_REPORTED, PACE};
use crate::store::{Entry, MAX_ENTRIES};

#[tokio::test]
async fn trip_is_exchanged_before_a_thousand_new_breakers() {
    let config = BreakerConfig::default().failure_threshold(1);
    let mut fleet = Fleet::new(0, 1, &config);
    fleet.turn(0).await;
    let Member { coordinator, core, link, .. } = &mut fleet.instances[0];
    let (breakers, context) = (coordinator.breakers.clone(), coordinator.context.clone());
    let newcomers = move |numbers: Range<u32>| {
        for number in numbers {
            let make = |name, held| Core::new(name, &config, held, &context);
            breakers.entry(&format!("newcomer-{number}")).insert(BreakerKind::Pinned, make);
        }
    };
    newcomers(0..700);
    let (batches, breaker) = (Arc::new(Mutex::new(Vec::new())), core.clone());
    let log = batches.clone();
    *lock(&link.listener) = Some(Box::new(move |batch: &Batch| {
        let opening = |entry: &Entry| entry.proposal.is_some() && *entry.name == **breaker.name();
        let mut batches = lock(&log);
        batches.push(batch.entries.iter().any(opening));
        // While the first batch is under way.
        if batches.len() == 1 {
            newcomers(700..1000);
            match breaker.admit() {
                Admission::Go(permit) => permit.failure(),
                _ => panic!("it is closed"),
            }
        }
    }));
    fleet.time.advance(PACE);
    fleet.instances[0].coordinator.turn().await;
    let opens_in = lock(&batches).iter().position(|opens| *opens);
    // Six of those that were there at the beginning, and the trip's. The others' turn is the next.
    assert_eq!((opens_in, lock(&batches).len()), (Some(1), 7));
    fleet.time.advance(PACE);
    fleet.instances[0].coordinator.turn().await;
    assert_eq!(lock(&batches).len(), 10);
}

#[tokio::test]
async fn trip_is_exchanged_before_the_second_of_many_reports() {
    let config = BreakerConfig::default().failure_threshold(1);
    let mut fleet = Fleet::new(0, 1, &config);
    let Member { coordinator, .. } = &mut fleet.instances[0];
    let make = |name, held| Core::new(name, &config, held, &coordinator.context);
    let register =
        |number: usize| coordinator.breakers.entry(&format!("{number}")).insert(BreakerKind::Pinned, make);
    let breakers: Vec<_> = (0..3 * MAX_REPORTED).map(register).collect();
    let succeed = || {
        for core in &breakers {
            let Admission::Go(permit) = core.admit() else { panic!("it is closed") };
            permit.success();
        }
    };
    // New settings are compared with others' in exchanges; after that time, successes are only reported.
    fleet.settle().await;
    fleet.advance(Duration::from_secs(33));
    succeed();
    fleet.settle().await;
    succeed();
    fleet.advance(Duration::from_secs(1));
    let Member { core, link, .. } = &fleet.instances[0];
    let (core, opens_after) = (core.clone(), Arc::new(Mutex::new(None)));
    let (log, counter) = (opens_after.clone(), link.clone());
    let before = link.requests.load(Ordering::Relaxed);
    *lock(&link.listener) = Some(Box::new(move |batch: &Batch| {
        if batch.entries.iter().any(|entry| entry.proposal.is_some()) {
            *lock(&log) = Some(counter.requests.load(Ordering::Relaxed) - before);
        }
    }));
    *lock(&link.before_next) = Some(Box::new(move || match core.admit() {
        Admission::Go(permit) => permit.failure(),
        _ => panic!("it is closed"),
    }));
    fleet.turn(0).await;
    assert_eq!(*lock(&opens_after), Some(1));
    let requests = fleet.instances[0].link.requests.load(Ordering::Relaxed) - before;
    assert_eq!(requests, 4, "three reports, and the trip");
}

#[tokio::test]
async fn exchange_ends_though_more_breakers_trip_than_the_store_can_serve() {
    let config = BreakerConfig::default().failure_threshold(1);
    let mut fleet = Fleet::new(0, 1, &config);
    fleet.turn(0).await;
    let Member { coordinator, link, .. } = &mut fleet.instances[0];
    let (breakers, context) = (coordinator.breakers.clone(), coordinator.context.clone());
    let mut number = 0;
    let mut trip_a_batch = move || {
        for _ in 0..MAX_ENTRIES {
            number += 1;
            let make = |name, held| Core::new(name, &config, held, &context);
            let core = breakers.entry(&format!("{number}")).insert(BreakerKind::Pinned, make);
            match core.admit() {
                Admission::Go(permit) => permit.failure(),
                _ => panic!("it is closed"),
            }
        }
    };
    for _ in 0..3 {
        trip_a_batch();
    }
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    *lock(&link.listener) = Some(Box::new(move |_: &Batch| {
        assert!(count.fetch_add(1, Ordering::Relaxed) < 100, "it never ends");
        trip_a_batch();
    }));
    fleet.time.advance(PACE);
    let Member { coordinator, .. } = &mut fleet.instances[0];
    coordinator.turn().await;
    assert_eq!(sent.load(Ordering::Relaxed), 5);
    // What is left is as urgent as before.
    coordinator.turn().await;
    assert!(sent.load(Ordering::Relaxed) > 5);
}

#[tokio::test]
async fn breaker_that_is_reviewed_again_and_again_is_exchanged_once() {
    const BREAKERS: usize = 300;
    let config = BreakerConfig::default().failure_threshold(1000);
    let mut fleet = Fleet::new(0, 1, &config);
    fleet.turn(0).await;
    let Member { coordinator, link, .. } = &mut fleet.instances[0];
    let make = |name, held| Core::new(name, &config, held, &coordinator.context);
    let register =
        |number: usize| coordinator.breakers.entry(&format!("{number}")).insert(BreakerKind::Pinned, make);
    let breakers: Vec<_> = (0..BREAKERS).map(register).collect();
    let turns = Arc::new(Mutex::new(vec![0]));
    let log = turns.clone();
    *lock(&link.listener) = Some(Box::new(move |batch: &Batch| {
        *lock(&log).last_mut().expect("a turn") += batch.entries.len();
    }));
    // So that exchanges are a second apart.
    link.delay_answers(Duration::from_millis(100));
    for _ in 0..50 {
        for core in &breakers {
            let Admission::Go(permit) = core.admit() else { panic!("it is closed") };
            permit.failure();
        }
        fleet.advance(PACE);
        fleet.turn(0).await;
        lock(&turns).push(0);
    }
    let largest = lock(&turns).iter().copied().max();
    assert_eq!(largest, Some(BREAKERS));
}

#[test]
fn confirmations_of_breakers_that_fail_in_turn_share_an_exchange() {
    let config = BreakerConfig::default().failure_rate_threshold(0.5).window(Duration::from_secs(60));
    in_simulation(0..5, async |seed| {
        let mut fleet = Fleet::new(seed, 1, &config);
        fleet.turn(0).await;
        let Member { coordinator, link, .. } = &mut fleet.instances[0];
        let make = |name, held| Core::new(name, &config, held, &coordinator.context);
        let register =
            |number: u32| coordinator.breakers.entry(&format!("{number}")).insert(BreakerKind::Pinned, make);
        let breakers: Vec<_> = (0..10).map(register).collect();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let log = sizes.clone();
        *lock(&link.listener) = Some(Box::new(move |batch: &Batch| lock(&log).push(batch.entries.len())));
        for round in 0..1200 {
            // New settings are compared more often.
            if round == 400 {
                lock(&sizes).clear();
            }
            for call in 0..10 {
                let Admission::Go(permit) = breakers[round % 10].admit() else { panic!("it is closed") };
                if call == 0 { permit.failure() } else { permit.success() }
            }
            fleet.advance(PACE);
            fleet.turn(0).await;
        }
        let sizes = lock(&sizes);
        assert!(!sizes.is_empty() && sizes.iter().all(|size| *size == 10), "{sizes:?}");
    });
}

#[test]
fn question_between_two_looks_does_not_postpone_the_report() {
    in_simulation(0..50, async |seed| {
        let mut fleet = Fleet::new(seed, 1, &config());
        // New settings are compared with others' in exchanges; after that time, successes are only reported.
        fleet.settle().await;
        fleet.advance(Duration::from_secs(31));
        fleet.settle().await;
        for successes in 1..=20 {
            assert!(fleet.call(0, true).await);
            let mut waited = Duration::ZERO;
            while stored_successes(&fleet).await < successes {
                let span = Duration::from_millis(fleet.random.u64(1..=100));
                fleet.advance(span);
                fleet.turn(0).await;
                waited += span;
                assert!(waited < Duration::from_millis(1500), "due after a second");
            }
        }
    });
}

async fn stored_successes(fleet: &Fleet) -> u64 {
    let rows = fleet.stored().await;
    rows.first().map_or(0, |row| row.view.as_ref().unwrap().1.successes)
}
