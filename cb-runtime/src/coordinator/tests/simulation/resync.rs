//! States that an instance knows, and the store no longer holds.

use super::*;
use crate::coordinator::requests::Sent;
use crate::store::{Entry, EventsAt, MAX_EVENTS, Proposal, Record};

/// A breaker that no instance has registered.
const UNREGISTERED: &str = "unregistered";

impl Fleet {
    /// An operator's override, without an instance of the fleet.
    fn force(&self, name: &str, to: State) {
        self.place(name, Record { state: to, ..Record::closed() });
    }

    fn place(&self, name: &str, to: Record) {
        let to = Record { reason: "by hand".into(), ..to };
        let proposal = Proposal { to, force: true, token: None, evidence: crate::store::Counts::default() };
        let entry = Entry { name: name.into(), proposal: Some(proposal), ..Entry::default() };
        let batch = Batch { instance: "operator".into(), seq: 1, entries: vec![entry], ..Batch::default() };
        assert!(self.store.exchange_now(&batch).views[0].as_ref().unwrap().won);
    }

    fn trim_stream(&self) {
        for number in 0..=MAX_EVENTS {
            self.force("noise", if number % 2 == 0 { State::Disabled } else { State::Closed });
        }
    }

    fn cut(&self, at: usize) {
        self.instances[at].link.set(Fate::Cut);
    }

    /// As many failures on the first instance as open the circuit.
    async fn fail(&mut self) {
        for _ in 0..3 {
            self.call(0, false).await;
        }
    }

    async fn held(&self, name: &str) -> bool {
        self.store.load().await.unwrap().held.iter().any(|(held, _)| **held == *name)
    }

    /// Registers a breaker at one instance.
    fn register(&self, at: usize, name: &str) -> Arc<Core> {
        let coordinator = &self.instances[at].coordinator;
        let make = |name, held| Core::new(name, &config(), held, &coordinator.context);
        coordinator.breakers.entry(name).insert(Place::Pinned, make)
    }

    /// All but the last instance go on for this long.
    async fn go_on_without_last(&mut self, span: Duration) {
        for _ in 0..6 {
            self.advance(span / 6);
            for at in 0..self.instances.len() - 1 {
                self.turn(at).await;
                self.follow(at).await;
            }
            self.turn(self.instances.len() - 1).await;
        }
    }
}

/// Two instances that know both breakers as forced open; the second is cut off when they are released.
async fn released_without_the_second(seed: u64, away: Duration, trims: bool) -> Fleet {
    let mut fleet = Fleet::settled(seed, 2, &config()).await;
    fleet.force("b", State::ForcedOpen);
    fleet.force(UNREGISTERED, State::ForcedOpen);
    fleet.settle().await;
    assert_eq!(fleet.instances[1].core.snapshot().state, State::ForcedOpen);
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

/// Redis keeps a closed breaker for an hour after its last use, and its epochs then begin anew.
#[test]
fn opening_of_a_breaker_that_was_idle_for_hours_begins_its_epochs_anew() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.fail().await;
        fleet.settle().await;
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
            let mut fleet = Fleet::settled(seed, 1, &config()).await;
            fleet.force("b", State::ForcedOpen);
            fleet.force(UNREGISTERED, State::ForcedOpen);
            fleet.settle().await;
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

/// A process that was stopped finds its connection as it was, and may exchange before it reads the stream.
#[test]
fn override_released_while_an_instance_was_stopped_stays_released() {
    in_simulation(0..4, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.force("b", State::ForcedOpen);
        fleet.settle().await;
        fleet.force("b", State::Closed);
        fleet.trim_stream();
        for _ in 0..6 {
            fleet.advance(Duration::from_secs(1800));
            fleet.turn(0).await;
            fleet.follow(0).await;
        }
        // Idle states have expired by now.
        fleet.store.forget("b");
        fleet.instances[1].core.exchange_next();
        fleet.turn(1).await;
        assert!(!fleet.held("b").await);
        fleet.settle().await;
        assert!(!fleet.held("b").await);
        assert_eq!(fleet.instances[1].core.snapshot().state, State::Closed);
    });
}

/// The store begins again at the first epoch, which is lower than the one that the fleet knows.
#[test]
fn override_of_a_breaker_whose_key_was_deleted_reaches_the_fleet() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.fail().await;
        fleet.settle().await;
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
fn override_that_stands_is_kept_over_a_trimmed_stream() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.force("b", State::ForcedOpen);
        fleet.force(UNREGISTERED, State::ForcedOpen);
        fleet.settle().await;
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
fn unregistered_override_survives_an_emptied_store() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.force(UNREGISTERED, State::ForcedOpen);
        fleet.settle().await;
        fleet.store.forget_everything();
        fleet.settle().await;
        assert!(fleet.held(UNREGISTERED).await);
    });
}

#[test]
fn opening_whose_event_was_not_read_survives_a_restored_store() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        let backup = fleet.store.back_up();
        fleet.fail().await;
        fleet.turn(0).await;
        assert_eq!(fleet.truth().await, (State::Open, 1));
        fleet.store.restore(&backup);
        assert_eq!(fleet.truth().await, (State::Closed, 0));
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
            let mut fleet = Fleet::settled(seed, 2, &config()).await;
            let backup = fleet.store.back_up();
            fleet.fail().await;
            fleet.turn(0).await;
            assert_eq!(fleet.truth().await, (State::Open, 1));
            fleet.store.restore(&backup);
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
    let mut fleet = Fleet::settled(seed, 2, &config()).await;
    fleet.fail().await;
    fleet.settle().await;
    assert_eq!(fleet.truth().await, (State::Open, 1));
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
        fleet.take(0, events[1].clone());
        let snapshot = fleet.instances[0].core.snapshot();
        assert_eq!((snapshot.state, snapshot.epoch), (State::Open, 1));
        fleet.settle().await;
        fleet.assert_agreed().await;
    });
}

#[test]
fn state_that_nobody_uses_lapses_for_the_fleet() {
    in_simulation(0..2, async |seed| {
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.force(UNREGISTERED, State::Open);
        fleet.fail().await;
        fleet.settle().await;
        assert_eq!(fleet.truth().await.0, State::Open);
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
        let mut fleet = Fleet::settled(seed, 2, &config()).await;
        fleet.fail().await;
        fleet.settle().await;
        fleet.advance(Duration::from_secs(3400));
        for _ in 0..2 {
            assert!(fleet.call(1, true).await, "a probe");
            fleet.settle().await;
        }
        assert_eq!(fleet.truth().await, (State::Closed, 3));
        fleet.assert_agreed().await;
    });
}
