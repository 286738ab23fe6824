//! Decisions and counts between an entry and its answer, a loss of the store, and clocks that are set.

use std::future::Future;
use std::pin::pin;

use super::*;
use crate::breaker::Breaker;

fn trips_at(threshold: u32) -> BreakerConfig {
    config().failure_threshold(threshold)
}

/// A has closed the circuit by its probe; the store does not know yet. Returns the answer to that entry.
fn closing(bench: &mut Pair) -> Answer {
    let core = bench.a.core.clone();
    let Admission::Wait(mut waiting) = core.admit() else { panic!("no probe is due") };
    bench.a.exchange();
    answer(&mut waiting).expect("granted").success();
    assert_eq!(bench.a.state(), State::Closed);
    bench.a.send()
}

fn due(threshold: u32) -> Pair {
    let mut bench = Pair::new(&trips_at(threshold));
    bench.a.fail(threshold as usize);
    bench.sync();
    bench.hands.advance(RESET);
    bench
}

#[test]
fn trip_while_a_close_is_under_way_is_kept() {
    let mut bench = due(3);
    let answer = closing(&mut bench);
    bench.a.fail(3);
    assert_eq!(bench.a.state(), State::Open);
    bench.a.receive(answer);
    assert_eq!((bench.a.state(), bench.stored()), (State::Open, State::Closed));
    bench.a.exchange();
    let tripped = bench.record();
    assert_eq!((tripped.state, tripped.epoch), (State::Open, 4));
    assert_eq!(tripped.reason, "3 consecutive failures (limit 3)");
    bench.b.exchange();
    assert_eq!(bench.b.state(), State::Open);
}

#[test]
fn trip_is_kept_where_the_event_is_faster_than_the_answer() {
    let mut bench = due(3);
    let answer = closing(&mut bench);
    bench.a.fail(3);
    let closed = bench.record();
    bench.a.core.adopt(&closed);
    assert_eq!(bench.a.state(), State::Open);
    bench.a.receive(answer);
    bench.a.exchange();
    assert_eq!(bench.record().epoch, 4);
}

#[test]
fn trip_after_a_close_whose_answer_is_lost_is_kept() {
    let mut bench = due(3);
    let _lost = closing(&mut bench);
    bench.a.fail(3);
    bench.a.lose_store();
    bench.a.up.store(true, Ordering::Release);
    let retried = bench.a.core.encode(true);
    let batch = bench.a.batch(retried);
    let answer = bench.a.store.exchange_now(&batch);
    bench.a.receive(answer);
    bench.a.exchange();
    assert_eq!((bench.a.state(), bench.stored()), (State::Open, State::Open));
}

#[test]
fn failures_while_a_close_is_under_way_count_in_the_new_epoch() {
    let mut bench = due(3);
    let answer = closing(&mut bench);
    bench.a.fail(2);
    bench.a.receive(answer);
    assert_eq!((bench.a.state(), bench.a.snapshot().failures), (State::Closed, 2));
    bench.sync();
    assert_eq!((bench.b.snapshot().failures, bench.b.snapshot().consecutive_failures), (2, 2));
    bench.b.fail(1);
    assert_eq!(bench.b.state(), State::Open);
}

#[test]
fn close_that_another_instance_has_preceded_takes_its_counts_along() {
    let mut bench = due(3);
    let core = bench.a.core.clone();
    let Admission::Wait(mut waiting) = core.admit() else { panic!("no probe is due") };
    bench.a.exchange();
    answer(&mut waiting).expect("granted").success();
    bench.a.fail(2);
    // Before A's entry is encoded, an override has ended the epoch.
    let mut reopened = bench.record();
    (reopened.epoch, reopened.state, reopened.originator) = (3, State::ForcedOpen, "b".into());
    bench.a.core.adopt(&reopened);
    let snapshot = bench.a.snapshot();
    assert_eq!((snapshot.state, snapshot.failures, snapshot.local), (State::ForcedOpen, 0, false));
}

#[test]
fn open_for_stays_proposed_over_a_lost_exchange() {
    let mut bench = Pair::new(&trips_at(100));
    bench.a.admitted().end_opening(Duration::from_secs(60));
    // The entry does not arrive.
    let _lost = bench.a.core.encode(false);
    bench.a.lose_store();
    bench.a.up.store(true, Ordering::Release);
    let retried = bench.a.core.encode(true);
    let batch = bench.a.batch(retried);
    let answer = bench.a.store.exchange_now(&batch);
    bench.a.receive(answer);
    assert_eq!(bench.a.state(), State::Open);
    bench.hands.advance(Duration::from_secs(1));
    bench.sync();
    let opened = bench.record();
    assert_eq!((opened.state, opened.remaining_us), (State::Open, Some(59_000_000)));
    assert_eq!(bench.b.state(), State::Open);
}

#[test]
fn opening_that_rests_on_counts_is_given_up_at_the_heal() {
    for succeeds in [true, false] {
        let mut bench = Pair::new(&trips_at(3));
        bench.a.lose_store();
        bench.a.fail(3);
        assert_eq!(bench.a.state(), State::Open);
        bench.hands.advance(Duration::from_millis(10));
        // A success that came after the failures ends their streak.
        if succeeds {
            bench.b.call(Outcome::Success);
        }
        bench.b.exchange();
        bench.a.up.store(true, Ordering::Release);
        bench.sync();
        let expected = if succeeds { State::Closed } else { State::Open };
        assert_eq!((bench.a.state(), bench.stored()), (expected, expected));
    }
}

#[test]
fn late_success_is_not_counted() {
    let mut bench = Pair::new(&config());
    let core = bench.a.core.clone();
    let [first, second, third] = [(); 3].map(|()| match core.admit() {
        Admission::Go(permit) => permit,
        _ => panic!("rejected"),
    });
    bench.a.fail(1);
    bench.sync();
    first.end(Outcome::Success);
    bench.hands.advance(RESET);
    let Admission::Wait(mut waiting) = core.admit() else { panic!("no probe is due") };
    bench.a.exchange();
    let probe = answer(&mut waiting).expect("granted");
    second.end(Outcome::Success);
    assert_eq!(bench.a.state(), State::HalfOpen, "a late success is no probe");
    probe.success();
    third.end(Outcome::Success);
    bench.sync();
    let snapshot = bench.a.snapshot();
    assert_eq!((snapshot.outcomes.late, snapshot.outcomes.success), (3, 1));
    assert_eq!((snapshot.state, snapshot.successes), (State::Closed, 0));
}

#[test]
fn late_failure_is_not_judged() {
    let mut bench = Pair::new(&config());
    let core = bench.a.core.clone();
    let Admission::Go(late) = core.admit() else { panic!("rejected") };
    bench.a.fail(1);
    bench.sync();
    bench.hands.advance(RESET);
    let Admission::Wait(mut waiting) = core.admit() else { panic!("no probe is due") };
    bench.a.exchange();
    answer(&mut waiting).expect("granted").success();
    bench.sync();
    late.end(Outcome::Failure);
    bench.sync();
    let snapshot = bench.a.snapshot();
    assert_eq!((snapshot.state, snapshot.epoch, snapshot.failures), (State::Closed, 3, 0));
    assert_eq!((snapshot.outcomes.late, snapshot.outcomes.failure), (1, 1));
}

#[test]
fn outcomes_of_an_epoch_that_has_ended_are_not_sent_again() {
    let mut bench = Pair::new(&trips_at(3));
    bench.a.fail(2);
    // The entry does not arrive. Meanwhile B opens and closes the circuit, and A hears of it.
    let _lost = bench.a.core.encode(false);
    bench.b.fail(3);
    bench.b.exchange();
    bench.b.exchange();
    bench.a.core.adopt(&bench.record());
    bench.hands.advance(RESET);
    let core = bench.b.core.clone();
    let Admission::Wait(mut waiting) = core.admit() else { panic!("no probe is due") };
    bench.b.exchange();
    answer(&mut waiting).expect("granted").success();
    bench.b.exchange();
    bench.b.exchange();
    let closed = bench.record();
    assert_eq!((closed.state, closed.epoch), (State::Closed, 3));
    bench.a.core.adopt(&closed);
    let retried = bench.a.core.encode(true);
    let batch = bench.a.batch(retried);
    let answer = bench.a.store.exchange_now(&batch);
    bench.a.receive(answer);
    bench.sync();
    for peer in [&bench.a, &bench.b] {
        assert_eq!((peer.snapshot().epoch, peer.snapshot().failures), (3, 0));
    }
    bench.a.fail(1);
    assert_eq!(bench.a.state(), State::Closed);
}

#[test]
fn event_of_an_earlier_epoch_is_not_adopted() {
    let mut bench = Pair::new(&config());
    bench.a.fail(1);
    bench.sync();
    let open = bench.record();
    bench.a.core.adopt(&Record { epoch: 0, ..Record::closed() });
    assert_eq!((bench.a.state(), bench.a.snapshot().epoch), (State::Open, 1));
    let later = Record { epoch: 7, state: State::Disabled, ..open.clone() };
    bench.a.core.adopt(&later);
    bench.a.core.adopt(&open);
    assert_eq!((bench.a.state(), bench.a.snapshot().epoch), (State::Disabled, 7));
}

/// A keyed breaker may know a state from events alone.
#[test]
fn event_of_an_earlier_epoch_is_not_adopted_before_the_first_exchange() {
    let (clock, hands) = Clock::manual();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let late = Peer::new("late", &config(), &clock, &store);
    let half_open = Record { epoch: 2, state: State::HalfOpen, ..Record::closed() };
    late.core.adopt(&half_open);
    late.core.adopt(&Record { epoch: 3, ..Record::closed() });
    hands.advance(RESET);
    late.core.adopt(&half_open);
    assert_eq!((late.state(), late.snapshot().epoch), (State::Closed, 3));
    assert_eq!(late.core.encode(false).known.map(|known| known.epoch), Some(3));
}

#[test]
fn answer_about_an_earlier_epoch_is_not_used() {
    let mut bench = Pair::new(&trips_at(3));
    bench.b.fail(2);
    bench.b.exchange();
    let stale = bench.a.send();
    assert_eq!(stale.views[0].as_ref().unwrap().streak, 2);
    // The event stream is faster: the circuit was opened and closed since.
    let closed = Record { epoch: 2, originator: "b".into(), ..Record::closed() };
    bench.a.core.adopt(&closed);
    bench.a.receive(stale);
    let snapshot = bench.a.snapshot();
    assert_eq!((snapshot.epoch, snapshot.failures, snapshot.consecutive_failures), (2, 0, 0));
    bench.a.fail(1);
    assert_eq!(bench.a.state(), State::Closed);
}

#[test]
fn end_beyond_the_reset_timeout_is_clamped() {
    let bench = Pair::new(&config());
    let open = Record {
        epoch: 1,
        state: State::Open,
        originator: "b".into(),
        remaining_us: Some(3_600_000_000),
        reset_timeout_us: 5_000_000,
        ..Record::closed()
    };
    bench.a.core.adopt(&open);
    assert_eq!(bench.a.snapshot().retry_after, Some(RESET));
    let held = Record { epoch: 2, state: State::Disabled, ..open };
    bench.a.core.adopt(&held);
    assert_eq!(bench.a.snapshot().retry_after, Some(RESET), "of an override with an expiry");
}

#[test]
fn clock_that_is_set_ahead_makes_no_early_probe() {
    let bench = Pair::new(&config());
    bench.a.fail(1);
    let open = Record {
        epoch: 1,
        state: State::Open,
        originator: "b".into(),
        remaining_us: Some(5_000_000),
        reset_timeout_us: 5_000_000,
        ..Record::closed()
    };
    bench.b.core.adopt(&open);
    bench.hands.advance(Duration::from_secs(1));
    bench.b.core.adopt(&Record { remaining_us: Some(0), since_us: 3_600_000_000, ..open.clone() });
    assert!(bench.b.is_rejected());
    assert_eq!(bench.b.snapshot().retry_after, Some(Duration::from_secs(4)));
    // What an answer's way may have made of it is believed.
    bench.b.core.adopt(&Record { remaining_us: Some(3_700_000), ..open.clone() });
    assert_eq!(bench.b.snapshot().retry_after, Some(Duration::from_millis(3_700)));
    // A clock that was set back does not prolong it.
    bench.b.core.adopt(&open);
    assert_eq!(bench.b.snapshot().retry_after, Some(Duration::from_millis(3_700)));
}

/// After a loss of data, an epoch may begin a second time, by another override.
#[test]
fn another_override_of_the_same_epoch_is_adopted() {
    let mut bench = Pair::new(&config());
    let forced = Record { epoch: 1, state: State::ForcedOpen, reason: "for now".into(), ..Record::closed() };
    let expiring = Record { remaining_us: Some(1_000_000), reset_timeout_us: 1_000_000, ..forced.clone() };
    bench.a.core.adopt(&expiring);
    assert!(bench.a.snapshot().retry_after.is_some());
    for other in [
        forced.clone(),
        Record { actor: "alice".into(), ..forced.clone() },
        Record { reason: "migration".into(), ..forced },
    ] {
        bench.a.core.adopt(&other);
        let snapshot = bench.a.snapshot();
        assert_eq!((&*snapshot.reason, &*snapshot.actor), (&*other.reason, &*other.actor));
        assert_eq!(snapshot.retry_after, None);
    }
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.a.state(), State::ForcedOpen);
}

/// Its settings are the defaults, which allow fewer failures.
#[test]
fn instance_that_has_not_registered_a_breaker_judges_it_only_after_a_call() {
    let lenient = config().failure_threshold(50).success_threshold(5).half_open_max_calls(5);
    let mut bench = Pair::new(&lenient);
    bench.b.core = Core::observed("b".into(), None, &bench.b.context);
    bench.a.fail(20);
    bench.sync();
    assert_eq!((bench.b.state(), bench.b.snapshot().consecutive_failures), (State::Closed, 20));

    begin(Breaker::new(bench.b.core.clone()).metrics_only("trial"));
    bench.sync();
    bench.a.fail(20);
    bench.sync();
    assert_eq!(bench.b.state(), State::MetricsOnly);
    bench.b.core.review();
    assert!(bench.b.events.try_recv().is_none(), "it does not say that it would have opened");

    begin(Breaker::new(bench.b.core.clone()).release());
    bench.sync();
    bench.a.fail(20);
    bench.sync();
    assert_eq!(bench.b.state(), State::Closed);
    bench.b.fail(1);
    assert_eq!(bench.b.state(), State::Open);
}

/// Begins what an operator asks for. The next exchange contains it.
fn begin(order: impl Future<Output = Result<(), Error>>) {
    let began = pin!(order).poll(&mut Context::from_waker(Waker::noop()));
    assert!(began.is_pending(), "it waits for the store");
}

#[test]
fn release_of_an_override_that_has_expired_only_here_reaches_the_store() {
    let mut bench = Pair::new(&config());
    let [here, elsewhere] = [&bench.a, &bench.b].map(|peer| Breaker::new(peer.core.clone()));
    begin(elsewhere.expires_in(Duration::from_secs(10)).force_open("for now"));
    bench.b.exchange();
    // The end was measured too early.
    bench.a.core.adopt(&Record { remaining_us: Some(1_000_000), ..bench.record() });
    bench.a.lose_store();
    bench.hands.advance(Duration::from_secs(2));
    bench.a.core.review();
    assert_eq!((bench.a.state(), bench.stored()), (State::Closed, State::ForcedOpen));
    bench.a.up.store(true, Ordering::Release);
    begin(here.release());
    bench.a.exchange();
    assert_eq!(bench.stored(), State::Closed);
}

#[test]
fn trip_that_would_have_been_is_reported_in_each_metrics_only_period() {
    let mut bench = Pair::new(&config());
    let hour = Duration::from_secs(3600);
    for period in 0..2 {
        let epoch = 2 * period + 1;
        let record = Record { epoch, state: State::MetricsOnly, originator: "b".into(), ..Record::closed() };
        bench.a.core.adopt(&record);
        bench.a.core.record_opening(bench.a.admitted().into_word(), hour);
        let reports = std::iter::from_fn(|| bench.a.events.try_recv());
        assert_eq!(reports.filter(|event| matches!(event, Event::WouldHaveOpened { .. })).count(), 1);
        bench.a.core.adopt(&Record { epoch: epoch + 1, originator: "b".into(), ..Record::closed() });
    }
}

/// Before the first contact, and when the store knows this instance.
#[test]
fn reset_ends_a_trip_and_counts_that_the_store_has_not_confirmed() {
    let config = BreakerConfig::default().failure_threshold(3);
    for (is_known, failures) in [(false, 3), (true, 3), (false, 2), (true, 2)] {
        let (clock, _hands) = Clock::manual();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let mut peer = Peer::new("a", &config, &clock, &store);
        if is_known {
            peer.exchange();
        }
        peer.fail(failures);
        begin(Breaker::new(peer.core.clone()).reset());
        peer.exchange();
        peer.exchange();
        assert_eq!(peer.state(), State::Closed, "known: {is_known}, {failures} failures");
        peer.fail(2);
        peer.exchange();
        assert_eq!(peer.state(), State::Closed, "known: {is_known}, {failures} failures");
    }
}

#[test]
fn epoch_number_is_announced_once() {
    let mut bench = Pair::new(&config());
    let open = Record {
        epoch: 6,
        state: State::Open,
        originator: "b".into(),
        remaining_us: Some(5_000_000),
        reset_timeout_us: 5_000_000,
        ..Record::closed()
    };
    bench.a.core.adopt(&open);
    assert!(bench.a.core.announce(6));
    // A failover has lost that write, and the new master has given the number again.
    let disabled = Record { state: State::Disabled, remaining_us: None, ..open };
    bench.a.core.adopt(&disabled);
    assert!(!bench.a.core.announce(6));
    assert_eq!(bench.a.state(), State::Disabled);
    assert_eq!(bench.a.local_transitions(), [(State::Open, State::Disabled, 6)]);
    assert!(bench.a.core.announce(7));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "would wait for the store")]
fn store_is_lost_only_after_the_flag_is_down() {
    let bench = Pair::new(&config());
    bench.a.core.store_lost(&Error::store("testing", "it is away"));
}
