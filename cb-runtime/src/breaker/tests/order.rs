//! The order of reads and writes between calls, the lock and the coordinator.

use std::sync::mpsc::channel;
use std::thread;

use super::super::gate::{Closed, Gate};
use super::*;
use crate::sync::lock;

/// A loss of the store lowers the flag, then takes the lock. A call that gets the lock after that must not
/// propose.
#[test]
fn store_flag_is_read_under_the_lock() {
    for _ in 0..20 {
        let bench = Pair::new(&config());
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            let inner = lock(&bench.a.core.inner);
            let core = &bench.a.core;
            let permit = CallPermit::new(core, core.gate.word());
            scope.spawn(move || {
                sender.send(()).unwrap();
                permit.failure();
                assert_eq!(core.gate.word().state(), State::Open);
            });
            receiver.recv().unwrap();
            // Time for the call to come to the lock. If it comes later, nothing is missed but the case.
            (0..200).for_each(|_| thread::yield_now());
            bench.a.up.store(false, Ordering::Release);
            drop(inner);
        });
        assert!(bench.a.core.encode(false).proposal.is_none(), "decided without a store, and yet proposed");
    }
}

#[test]
fn gate_stores_its_dependents_before_the_state() {
    let gate = Gate::new(State::Closed, Closed::Plain);
    let before = gate.word();
    gate.set(State::Open, Closed::Plain, || assert_eq!(gate.word(), before));
    assert_eq!(gate.word().state(), State::Open);
}

/// A call that sees a state also sees the moment at which that state is due.
#[test]
fn gate_is_set_after_its_dependent_fields() {
    let bench = Pair::new(&config());
    let core = &bench.a.core;
    let begin = bench.a.context.clock.now().0;
    let first = core.gate.word().generation();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each opening is due a second later than the one before.
            for epoch in 1..50_000 {
                let remaining_us = Some(epoch * 1_000_000);
                let originator = "b".into();
                core.adopt(&Record {
                    epoch,
                    state: State::Open,
                    originator,
                    remaining_us,
                    ..Record::closed()
                });
            }
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) {
            let generation = core.gate.word().generation() - first;
            let due = core.due.load(Ordering::Relaxed);
            assert!(due >= begin + generation * 1_000_000, "a state is due at an earlier state's time");
        }
    });
}
