//! A store that has lost its data, or a part of it, or was restored from a backup.

use super::fleet::UNREGISTERED;
use super::*;
use crate::coordinator::requests::Sent;
use crate::store::EventsAt;

/// The store begins again at the first epoch, which is lower than the one that the fleet knows.
#[test]
fn override_of_a_breaker_whose_key_was_deleted_reaches_the_fleet() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::opened(seed).await;
        fleet.get_well(8).await;
        assert_eq!(fleet.truth().await, (State::Closed, 3));
        fleet.store.forget("b");
        fleet.force("b", State::ForcedOpen);
        fleet.settle().await;
        assert_eq!(fleet.truth().await, (State::ForcedOpen, 4));
        fleet.assert_agreed().await;
    });
}

#[test]
fn unregistered_override_survives_an_emptied_store() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::forced_open(seed, 2).await;
        fleet.store.forget_everything();
        fleet.settle().await;
        assert!(fleet.held(UNREGISTERED).await);
    });
}

#[test]
fn opening_whose_event_was_not_read_survives_a_restored_store() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::opened_and_restored(seed).await;
        fleet.settle().await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet.assert_agreed().await;
    });
}

/// Another event has the number of the lost one before the instance asks again.
#[test]
fn opening_whose_event_was_not_read_survives_a_restored_store_that_goes_on() {
    for further in 1..4 {
        in_simulation(0..2, async |seed| {
            let mut fleet = Fleet::opened_and_restored(seed).await;
            for number in 0..further {
                fleet.force("noise", if number % 2 == 0 { State::Disabled } else { State::Closed });
            }
            fleet.settle().await;
            assert_eq!(fleet.truth().await, (State::Open, 1), "{further} further events");
            fleet.assert_agreed().await;
        });
    }
}

/// The answer that is the first to show a loss of data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstSign {
    Exchange,
    /// A report that is repeated before the first exchange (seed 1283436 of all faults).
    Report,
    Load,
}

/// A load shows that events are missing, so the instance doubts what it knows. The store loses its data
/// before it is asked for the state.
#[test]
fn opening_that_is_doubted_when_the_store_loses_its_data_is_written_back() {
    for first in [FirstSign::Exchange, FirstSign::Report, FirstSign::Load] {
        in_simulation(0..2, async |seed| opening_is_written_back_although_doubted(seed, first).await);
    }
}

async fn opening_is_written_back_although_doubted(seed: u64, first: FirstSign) {
    let mut fleet = Fleet::opened(seed).await;
    // From now on there is only the second instance, which does not hear of the close.
    fleet.cut(0);
    fleet.cut(1);
    fleet.force("b", State::Closed);
    fleet.advance(Duration::from_secs(1));
    fleet.turn(1).await;
    fleet.trim_stream();
    let link = fleet.instances[1].link.clone();
    let (store, cut) = (fleet.store.clone(), link.clone());
    *lock(&link.before_next) = Some(Box::new(move || match first {
        FirstSign::Load => cut.set(Fate::Cut),
        _ => store.forget_everything(),
    }));
    let sent = (first == FirstSign::Report).then(|| Sent::Report(Vec::new()));
    fleet.instances[1].coordinator.unknown = sent;
    link.set(Fate::Up);
    if first == FirstSign::Load {
        // The states are loaded, and the exchange after it is lost.
        fleet.advance(Duration::from_secs(1));
        fleet.turn(1).await;
        assert!(link.is_cut());
        fleet.store.forget_everything();
        link.set(Fate::Up);
    }
    for _ in 0..6 {
        fleet.advance(Duration::from_millis(450));
        fleet.turn(1).await;
        fleet.follow(1).await;
    }
    assert_eq!(fleet.truth().await, (State::Open, 1));
    fleet.settle().await;
    fleet.assert_agreed().await;
}

/// Redis was restored from a backup that was made after the breaker's key had been deleted: the stream still
/// has the event.
#[test]
fn event_of_a_state_that_the_store_did_not_hold_when_it_was_loaded_is_not_adopted() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        for at in 0..2 {
            fleet.cut(at);
            assert!(fleet.call(at, true).await);
        }
        fleet.go_on_without_last(Duration::from_secs(60)).await;
        for name in ["b", UNREGISTERED] {
            fleet.force(name, State::Disabled);
            fleet.store.forget(name);
        }
        fleet.settle().await;
        for at in 0..2 {
            assert_eq!(fleet.instances[at].core.snapshot().state, State::Closed);
            assert_eq!(fleet.register(at, UNREGISTERED).snapshot().state, State::Closed);
        }
        fleet.assert_agreed().await;
    });
}

/// The breaker's key was deleted, and an instance that has not read the event yet goes on with it: the store
/// begins the epoch a second time.
#[test]
fn event_of_an_epoch_that_has_begun_a_second_time_is_not_adopted() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.force("b", State::ForcedOpen);
        fleet.store.forget("b");
        fleet.fail().await;
        fleet.turn(0).await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        let events = fleet.store.history(EventsAt::Newest, 2).await.unwrap();
        fleet.apply(0, events[1].clone());
        let snapshot = fleet.instances[0].core.snapshot();
        assert_eq!((snapshot.state, snapshot.epoch), (State::Open, 1));
        fleet.settle().await;
        fleet.assert_agreed().await;
    });
}
