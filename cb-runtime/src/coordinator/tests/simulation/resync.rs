//! Overrides that end, and states that change, while an instance does not read the stream.

use super::fleet::UNREGISTERED;
use super::*;
use crate::store::Record;

/// Two instances that know both breakers as forced open; the second is cut off when they are released.
async fn released_without_the_second(seed: u64, away: Duration, trims: bool) -> Fleet {
    let mut fleet = Fleet::forced_open(seed, 2).await;
    fleet.cut(1);
    fleet.force("b", State::Closed);
    fleet.force(UNREGISTERED, State::Closed);
    if trims {
        fleet.trim_stream();
    }
    fleet.go_on_without_last(away).await;
    fleet.settle().await;
    fleet
}

#[test]
fn override_released_while_an_instance_was_away_stays_released() {
    let [minute, hours] = [60, 3 * 3600].map(Duration::from_secs);
    for (away, trims) in [(minute, true), (minute, false), (hours, true), (hours, false)] {
        in_simulation(0..2, async |seed| {
            let mut fleet = released_without_the_second(seed, away, trims).await;
            assert_eq!(fleet.instances[1].core.snapshot().state, State::Closed, "{away:?}, trims: {trims}");
            let registered = fleet.register(1, UNREGISTERED);
            assert_eq!(registered.snapshot().state, State::Closed, "{away:?}, trims: {trims}");
            assert!(fleet.call(1, true).await);
            fleet.settle().await;
            assert!(!fleet.held("b").await && !fleet.held(UNREGISTERED).await, "{away:?}, trims: {trims}");
            fleet.assert_agreed().await;
        });
    }
}

/// The stream ends one event after the one that the instance has read, so that its position shows no gap.
#[test]
fn override_released_by_an_event_that_has_expired_stays_released() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.force("b", State::ForcedOpen);
        fleet.settle().await;
        fleet.cut(1);
        fleet.force("b", State::Closed);
        fleet.go_on_without_last(Duration::from_secs(3 * 3600)).await;
        fleet.store.forget("b");
        fleet.store.forget_events();
        fleet.settle().await;
        assert_eq!(fleet.instances[1].core.snapshot().state, State::Closed);
        assert!(!fleet.held("b").await);
        fleet.assert_agreed().await;
    });
}

/// A process that was stopped finds its connection as it was, and may exchange before it reads the stream. If
/// its machine has slept, only the wall clock shows for how long.
#[test]
fn override_released_while_an_instance_was_stopped_stays_released() {
    in_simulation(0..8, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.force("b", State::ForcedOpen);
        fleet.settle().await;
        fleet.force("b", State::Closed);
        fleet.trim_stream();
        for _ in 0..6 {
            let span = Duration::from_secs(1800);
            if seed % 2 == 0 {
                fleet.advance(span);
            } else {
                fleet.time.sleep(span);
            }
            fleet.turn(0).await;
            fleet.follow(0).await;
        }
        // Idle states have expired by now.
        fleet.store.forget("b");
        fleet.instances[1].core.exchange_next();
        fleet.advance(Duration::from_secs(1));
        fleet.turn(1).await;
        assert!(!fleet.held("b").await);
        fleet.settle().await;
        assert!(!fleet.held("b").await);
        assert_eq!(fleet.instances[1].core.snapshot().state, State::Closed);
    });
}

#[test]
fn override_that_stands_is_kept_over_a_trimmed_stream() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::forced_open(seed, 2).await;
        fleet.cut(1);
        fleet.trim_stream();
        fleet.go_on_without_last(Duration::from_secs(2 * 3600)).await;
        fleet.settle().await;
        assert_eq!(fleet.register(1, UNREGISTERED).snapshot().state, State::ForcedOpen);
        fleet.assert_agreed().await;
        assert_eq!(fleet.truth().await.0, State::ForcedOpen);
    });
}

/// No breaker of an instance ends it.
#[test]
fn unregistered_override_ends_at_its_expiry() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        let minute_us = 60_000_000;
        let record = Record {
            state: State::ForcedOpen,
            remaining_us: Some(minute_us),
            reset_timeout_us: minute_us,
            ..Record::closed()
        };
        fleet.place(UNREGISTERED, record);
        fleet.settle().await;
        assert!(fleet.held(UNREGISTERED).await);
        fleet.advance(Duration::from_micros(minute_us));
        fleet.settle().await;
        assert_eq!(fleet.truth().await, (State::Closed, 2), "it has ended once");
        for at in 0..2 {
            assert_eq!(fleet.register(at, UNREGISTERED).snapshot().state, State::Closed);
        }
    });
}

#[test]
fn load_that_was_overtaken_by_an_event_does_not_set_an_unregistered_breaker_back() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 1, &config()).await;
        fleet.force(UNREGISTERED, State::ForcedOpen);
        fleet.settle().await;
        let before = fleet.instances[0].coordinator.stream.position();
        let load = fleet.store.load().await.unwrap();
        let sent_at = fleet.instances[0].coordinator.context.clock.now();
        fleet.force(UNREGISTERED, State::Disabled);
        fleet.follow(0).await;
        fleet.instances[0].coordinator.loaded(&load, &before, sent_at).await.unwrap();
        let registered = fleet.register(0, UNREGISTERED).snapshot();
        assert_eq!((registered.state, registered.epoch), (State::Disabled, 2));
    });
}
