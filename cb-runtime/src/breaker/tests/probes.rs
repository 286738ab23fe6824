//! Probes that hang, lapse, are given back, or whose caller has gone.

use super::*;
use crate::breaker::machine::Want;
use crate::breaker::machine::policy::PROBE_GRACE;
use crate::breaker::machine::probes::{DENIAL, LEASE};

const LONGEST: Duration = Duration::from_secs(10);

/// A probe for the first caller of `instance`: one exchange proposes half-open and requests the lease.
fn probe(instance: &mut Peer) -> CallPermit<'static> {
    // The permit must not borrow the instance, which makes exchanges meanwhile.
    let core: &'static Core = Box::leak(Box::new(instance.core.clone()));
    let Admission::Wait(mut waiting) = core.admit() else { panic!("no probe is due") };
    for _ in 0..2 {
        instance.exchange();
        if let Some(permit) = answer(&mut waiting) {
            return permit;
        }
    }
    panic!("no probe was granted")
}

#[test]
fn hung_probe_counts_as_failed_and_its_outcome_is_late() {
    let mut bench = Pair::due(&config());
    let hung = probe(&mut bench.a);
    bench.b.exchange();
    assert!(bench.b.state() == State::HalfOpen);
    bench.pass(LONGEST.saturating_sub(Duration::from_millis(500)));
    assert_eq!(bench.stored(), State::HalfOpen, "its lease is renewed");
    bench.pass(Duration::from_secs(1));
    let opened = bench.record();
    assert_eq!((opened.state, &*opened.reason), (State::Open, "a probe failed"));

    bench.pass(RESET);
    let next = probe(&mut bench.b);
    bench.a.exchange();
    hung.end(Outcome::Failure);
    bench.sync();
    assert_eq!(bench.stored(), State::HalfOpen);
    assert_eq!((bench.a.snapshot().outcomes.late, bench.a.snapshot().outcomes.failure), (1, 1));
    next.success();
    bench.sync();
    assert_eq!((bench.stored(), bench.a.state()), (State::Closed, State::Closed));
}

#[test]
fn caller_that_meets_the_end_of_the_open_state_asks_for_a_probe() {
    let bench = Pair::due(&config());
    // The thread that ends the state has stored this, and the gate's word not yet.
    bench.a.core.due.store(u64::MAX, Ordering::Relaxed);
    assert!(matches!(bench.a.core.admit(), Admission::Wait(_)));
}

#[test]
fn hung_probe_frees_its_slot_in_the_same_epoch() {
    let sampled = config().recovery_rate(0.5).success_threshold(2).half_open_max_calls(1);
    let mut bench = Pair::due(&sampled);
    let hung = probe(&mut bench.a);
    let epoch = bench.record().epoch;
    bench.pass(LONGEST + Duration::from_millis(500));
    assert_eq!((bench.stored(), bench.record().epoch), (State::HalfOpen, epoch));
    probe(&mut bench.b).success();
    // It has been counted as failed: its success is not counted as well.
    hung.end(Outcome::Success);
    bench.sync();
    let closed = bench.record();
    assert_eq!(
        (closed.state, &*closed.reason),
        (State::Closed, "50.0 % of 2 probes succeeded (needed 50.0 %)")
    );
    assert_eq!((bench.a.snapshot().outcomes.late, bench.a.snapshot().successes), (1, 0));
}

#[test]
fn call_timeout_bounds_a_probe() {
    let mut bench = Pair::due(&config());
    let hung = probe(&mut bench.a);
    hung.limit(Duration::from_secs(1));
    bench.pass(Duration::from_secs(1) + PROBE_GRACE + Duration::from_millis(250));
    assert_eq!(bench.stored(), State::Open);
    drop(hung);

    let mut bench = Pair::due(&config());
    let slow = probe(&mut bench.a);
    slow.limit(LONGEST * 3);
    bench.pass(LONGEST * 2);
    assert_eq!(bench.stored(), State::HalfOpen, "the call may take that long");
    slow.success();
    bench.sync();
    assert_eq!(bench.stored(), State::Closed);
}

#[test]
fn hung_probe_without_a_store_is_bounded_too() {
    let bench = Pair::due(&config());
    bench.a.lose_store();
    let hung = bench.a.admitted();
    assert!(bench.a.is_rejected(), "the budget is used up");
    bench.hands.advance(LONGEST);
    bench.a.core.review();
    assert_eq!(bench.a.state(), State::Open);
    hung.end(Outcome::Success);
    assert_eq!((bench.a.state(), bench.a.snapshot().outcomes.late), (State::Open, 1));
}

#[test]
fn outcome_after_the_lease_has_lapsed_changes_nothing() {
    for outcome in [Outcome::Failure, Outcome::Success] {
        let mut bench = Pair::due(&config());
        let paused = probe(&mut bench.a);
        bench.b.exchange();
        // A's process sleeps; B keeps the state alive.
        for _ in 0..32 {
            bench.hands.advance(Duration::from_millis(250));
            bench.b.exchange();
        }
        paused.end(outcome);
        assert_eq!(bench.a.snapshot().outcomes.late, 1);
        bench.sync();
        assert_eq!(bench.stored(), State::HalfOpen, "{outcome:?}");
        // The coordinator may be the first to wake.
        let mut bench = Pair::due(&config());
        let paused = probe(&mut bench.a);
        bench.hands.advance(Duration::from_secs(8));
        bench.sync();
        paused.end(outcome);
        bench.sync();
        assert_eq!(bench.stored(), State::HalfOpen, "{outcome:?}");
    }
}

/// The answer to the first exchange after a loss comes before the store counts as restored.
#[test]
fn lease_that_has_lapsed_without_the_store_is_not_revived() {
    for outcome in [Outcome::Failure, Outcome::Success] {
        let mut bench = Pair::due(&config());
        let cut_off = probe(&mut bench.a);
        bench.b.exchange();
        bench.a.lose_store();
        bench.hands.advance(LEASE);
        let other = probe(&mut bench.b);
        bench.a.exchange();
        bench.a.up.store(true, Ordering::Release);
        cut_off.end(outcome);
        bench.sync();
        assert_eq!((bench.stored(), bench.a.snapshot().outcomes.late), (State::HalfOpen, 1), "{outcome:?}");
        other.success();
        bench.sync();
        assert_eq!(bench.stored(), State::Closed);
    }
}

#[test]
fn denied_probe_is_not_requested_again_for_a_while() {
    let mut bench = Pair::due(&config());
    let held = probe(&mut bench.a);
    let b = bench.b.core.clone();
    let Admission::Wait(mut denied) = b.admit() else { panic!("a probe may be due") };
    bench.b.exchange();
    assert!(answer(&mut denied).is_none());
    for _ in 0..4 {
        assert!(bench.b.is_rejected(), "this caller does not ask the store");
        bench.hands.advance(DENIAL / 4);
    }
    // Up to half as long again, which differs between instances.
    bench.hands.advance(DENIAL / 2);
    let Admission::Wait(mut granted) = b.admit() else { panic!("the denial is still remembered") };
    drop(held);
    bench.a.exchange();
    bench.b.exchange();
    assert!(answer(&mut granted).is_some());
}

#[test]
fn rejection_of_a_call_while_a_probe_is_due_has_no_wait() {
    let bench = Pair::due(&config());
    let Admission::Wait(_first) = bench.a.core.admit() else { panic!("a probe is due") };
    let Admission::No(rejection) = bench.a.core.admit() else { panic!("the budget is one probe") };
    let error = rejection.into_error();
    assert_eq!(error.to_string(), "circuit breaker \"b\" is open, and a probe is due");
    assert_eq!(error.retry_after(), Some(Duration::ZERO));
}

#[test]
fn grant_of_a_state_that_has_ended_is_not_used() {
    let mut bench = Pair::due(&config());
    let core = bench.a.core.clone();
    let Admission::Wait(mut waiting) = core.admit() else { panic!("no probe is due") };
    bench.a.exchange();
    // The override comes between the grant and the caller's next poll.
    let half_open = bench.record();
    let (epoch, originator) = (half_open.epoch + 1, "b".to_owned());
    bench.a.core.adopt(&Record { epoch, originator, state: State::ForcedOpen, ..Record::closed() });
    assert!(answer(&mut waiting).is_none(), "the call would be made although the circuit is forced open");
    assert_eq!(bench.a.snapshot().outcomes.rejected, 1);
}

#[test]
fn step_down_gives_held_probes_back_with_the_next_exchange() {
    let mut bench = Pair::due(&config());
    let held = probe(&mut bench.a);
    bench.b.exchange();
    bench.a.core.step_down();
    assert_eq!(bench.a.core.review().want, Want::Exchange);
    bench.a.exchange();
    let other = probe(&mut bench.b);
    held.end(Outcome::Failure);
    bench.a.exchange();
    assert_eq!(bench.stored(), State::HalfOpen);
    other.success();
    bench.sync();
    assert_eq!(bench.stored(), State::Closed);
}

#[test]
fn grant_of_a_caller_that_has_gone_is_given_back() {
    let mut bench = Pair::due(&config());
    drop(bench.a.core.admit());
    bench.a.exchange();
    bench.b.exchange();
    assert_eq!(bench.stored(), State::HalfOpen);
    let release = bench.a.core.encode(false).leases.release;
    assert_eq!(release.len(), 1);
    let batch = bench.a.batch(Entry {
        name: "b".into(),
        leases: crate::store::LeaseRequest { release, ..Default::default() },
        ..Entry::default()
    });
    bench.store.exchange_now(&batch);
    drop(probe(&mut bench.b));

    // Gone after the grant, but before it was taken.
    let mut bench = Pair::due(&config());
    let waiting = bench.a.core.clone();
    let Admission::Wait(request) = waiting.admit() else { panic!("no probe is due") };
    bench.a.exchange();
    bench.b.exchange();
    drop(request);
    assert_eq!(bench.a.core.encode(false).leases.release.len(), 1);
}

#[test]
fn dropped_probe_is_free_again_and_counts_nothing() {
    let mut bench = Pair::due(&config());
    drop(probe(&mut bench.a));
    bench.sync();
    assert_eq!(bench.stored(), State::HalfOpen);
    probe(&mut bench.b).success();
    bench.sync();
    assert_eq!(bench.stored(), State::Closed);
}

/// What calls wait for is answered by the coordinator. Here is none.
#[test]
fn wait_for_a_probe_ends_without_a_coordinator() {
    let clock = Clock::system();
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let config = config().reset_timeout(Duration::from_millis(1));
    let mut alone = Peer::new("alone", &config, &clock, &store);
    alone.exchange();
    alone.fail(1);
    let breaker = crate::Breaker::new(alone.core.clone());
    std::thread::sleep(Duration::from_millis(2));
    // Twice: by a caller that waits, and by one that finds the coordinator gone.
    for _ in 0..2 {
        let permit = crate::deadline::block_on(breaker.acquire()).expect("it probes on its own");
        assert_eq!(breaker.state(), State::HalfOpen);
        permit.ignore();
    }
    assert!(alone.local_transitions().contains(&(State::Open, State::HalfOpen, 0)));
    breaker.call_blocking(|| Ok::<_, ()>(())).expect("it is a probe");
    assert_eq!(breaker.state(), State::Closed);
}

/// Its settings are the defaults, which ask for three successful probes.
#[test]
fn instance_that_has_not_registered_a_breaker_does_not_judge_its_probes() {
    let mut bench = Pair::due(&config().failure_threshold(1).success_threshold(5).half_open_max_calls(5));
    bench.b.core = Core::observed("b".into(), None, &bench.b.context);
    bench.b.exchange();
    for _ in 0..4 {
        probe(&mut bench.a).success();
        bench.sync();
        assert_eq!((bench.a.state(), bench.b.state()), (State::HalfOpen, State::HalfOpen));
    }
    probe(&mut bench.a).success();
    bench.sync();
    assert_eq!((bench.a.state(), bench.b.state()), (State::Closed, State::Closed));
}

/// It has called it, and its settings apply.
#[test]
fn instance_that_calls_a_breaker_without_having_registered_it_closes_it_by_its_probes() {
    let mut bench = Pair::due(&config().failure_threshold(1));
    bench.b.core = Core::observed("b".into(), None, &bench.b.context);
    bench.b.exchange();
    std::mem::swap(&mut bench.a, &mut bench.b);
    for _ in 0..3 {
        assert_ne!(bench.a.state(), State::Closed);
        probe(&mut bench.a).success();
        bench.a.exchange();
    }
    assert_eq!(bench.a.state(), State::Closed);
}
