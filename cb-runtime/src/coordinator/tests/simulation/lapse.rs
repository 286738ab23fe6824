//! States that expire in the store.

use super::fleet::UNREGISTERED;
use super::*;

/// Redis keeps a closed breaker for an hour after its last use, and its epochs then begin anew.
#[test]
fn opening_of_a_breaker_that_was_idle_for_hours_begins_its_epochs_anew() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::opened(seed).await;
        fleet.get_well(8).await;
        assert_eq!(fleet.truth().await, (State::Closed, 3));
        for _ in 0..12 {
            fleet.advance(Duration::from_secs(600));
            for at in 0..2 {
                fleet.turn(at).await;
                fleet.follow(at).await;
            }
        }
        assert_eq!(fleet.truth().await, (State::Closed, 0), "it has expired");
        fleet.instances.iter_mut().for_each(|instance| instance.received.clear());
        fleet.call(1, false).await;
        fleet.advance(Duration::from_millis(150));
        fleet.turn(1).await;
        assert_eq!(fleet.truth().await, (State::Closed, 0), "it is not written back");
        for _ in 0..2 {
            fleet.call(1, false).await;
        }
        fleet.turn(1).await;
        // The other instance hears of it by the event, before it exchanges anything.
        fleet.follow(0).await;
        assert_eq!(fleet.instances[0].core.snapshot().state, State::Open);
        fleet.settle().await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet.assert_agreed().await;
        for instance in &fleet.instances {
            assert_eq!(instance.received, [1]);
        }
    });
}

/// Redis forgets everything a week after its last use, and then knows no more of the release than after a
/// loss of its data.
#[test]
fn override_is_not_written_back_after_more_than_a_week() {
    for (days, is_kept) in [(6, true), (8, false)] {
        in_simulation(0..2, async |seed| {
            let mut fleet = Fleet::forced_open(seed, 1).await;
            fleet.cut(0);
            fleet.go_on_without_last(Duration::from_secs(days * 24 * 3600)).await;
            fleet.store.forget_everything();
            fleet.settle().await;
            assert_eq!(fleet.held("b").await, is_kept);
            assert_eq!(fleet.held(UNREGISTERED).await, is_kept);
            fleet.assert_agreed().await;
        });
    }
}

#[test]
fn state_that_nobody_uses_lapses_for_the_fleet() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::opened(seed).await;
        fleet.force(UNREGISTERED, State::Open);
        fleet.settle().await;
        let before = fleet.instances[1].core.snapshot().epoch;
        for _ in 0..2 {
            fleet.advance(Duration::from_secs(1750));
            fleet.settle().await;
        }
        assert_eq!((fleet.truth().await, before), ((State::Open, 1), 1));
        // One is in contact with the store all the while, the other one is not.
        fleet.cut(1);
        fleet.go_on_without_last(Duration::from_secs(600)).await;
        assert_eq!(fleet.instances[0].core.snapshot().state, State::Closed);
        fleet.settle().await;
        for at in 0..2 {
            let snapshot = fleet.instances[at].core.snapshot();
            assert_eq!((snapshot.state, snapshot.epoch), (State::Closed, 0));
            assert_eq!(fleet.register(at, UNREGISTERED).snapshot().state, State::Closed);
        }
        fleet.settle().await;
        assert!(fleet.store.load().await.unwrap().held.is_empty(), "nothing is written back");
        // Two failures, and a third opens.
        assert!(fleet.call(0, false).await && fleet.call(1, false).await);
        fleet.settle().await;
        assert_eq!(fleet.truth().await, (State::Closed, 0));
        fleet.call(0, false).await;
        fleet.settle().await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet.assert_agreed().await;
    });
}

#[test]
fn late_call_finds_an_open_state_still_due() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::opened(seed).await;
        fleet.advance(Duration::from_secs(3400));
        for _ in 0..2 {
            assert!(fleet.call(1, true).await, "a probe");
            fleet.settle().await;
        }
        assert_eq!(fleet.truth().await, (State::Closed, 3));
        fleet.assert_agreed().await;
    });
}
