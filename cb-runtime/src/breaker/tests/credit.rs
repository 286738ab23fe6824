//! Failures on credit: the circuit trips at the call at which it would trip if each failure were judged.

use std::cell::Cell;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::Peer;
use crate::breaker::counters::{Outcome, thread_number};
use crate::breaker::credit::TAKES_ALL;
use crate::breaker::permit::Admission;
use crate::clock::Clock;
use crate::config::{BreakerConfig, PerFunction};
use crate::snapshot::State;
use crate::store::memory::MemoryStore;
use crate::sync::lock;

fn rate(limit: f64) -> BreakerConfig {
    BreakerConfig::default().failure_rate_threshold(limit).window(Duration::from_secs(10))
}

fn peer(config: &BreakerConfig, clock: &Clock) -> Peer {
    let mut peer = Peer::new("a", config, clock, &Arc::new(MemoryStore::new(clock.clone())));
    peer.exchange();
    peer
}

impl Peer {
    fn succeed(&self, times: usize) {
        (0..times).for_each(|_| self.call(Outcome::Success));
    }

    fn is_closed(&self) -> bool {
        self.core.gate.word().state() == State::Closed
    }

    /// Takes all credit back, so that the next failure is judged.
    fn without_credit(&self) -> &Self {
        self.core.credit.take_back(&mut lock(&self.core.inner).granted);
        self
    }

    /// The failures that the machine has absorbed or judged.
    fn failures_in_machine(&self) -> u64 {
        lock(&self.core.inner).machine.counts().failures
    }

    fn figures(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let shown = self.snapshot();
        let counts = (shown.failures, shown.successes, shown.consecutive_failures);
        (shown.state, counts, shown.window, shown.outcomes, shown.last_failure_at)
    }
}

/// Runs it on a thread that has counters of its own: there is a limited number, which other tests use, too.
fn with_counters_of_its_own(test: impl Fn() + Sync) {
    let until = Instant::now() + Duration::from_secs(60);
    let attempt = || {
        let peer = peer(&rate(0.5), &Clock::manual().0);
        peer.succeed(1);
        let has_number = thread_number() < peer.core.counters.threads();
        if has_number {
            test();
        }
        has_number
    };
    while !std::thread::scope(|scope| scope.spawn(attempt).join().expect("the test succeeds")) {
        assert!(Instant::now() < until, "other threads have all counters");
        std::thread::yield_now();
    }
}

#[test]
fn failures_far_from_the_limit_are_counted_without_the_lock() {
    with_counters_of_its_own(|| {
        let (clock, hands) = Clock::manual();
        let peer = peer(&rate(0.5), &clock);
        peer.succeed(1000);
        peer.fail(11);
        assert_eq!(peer.failures_in_machine(), 1, "the first one is judged, the others are on its credit");
        assert_eq!(peer.core.counters.sum(Outcome::Failure), 11);
        let shown = peer.snapshot();
        assert_eq!((shown.failures, shown.successes, shown.consecutive_failures), (11, 1000, 11));
        assert_eq!(peer.failures_in_machine(), 11);
        peer.fail(1);
        hands.advance(Duration::from_millis(200));
        peer.fail(1);
        assert_eq!(peer.failures_in_machine(), 13, "credit does not last");
    });
}

#[test]
fn failures_of_other_rules_are_judged_one_by_one() {
    with_counters_of_its_own(|| {
        let configs = [
            BreakerConfig::default().failure_threshold(1000),
            rate(0.5).failure_threshold(1000),
            rate(0.5).min_failing_instances(2),
            BreakerConfig::default().failure_rate_threshold(0.5).window_calls(1000),
        ];
        for config in configs {
            let peer = peer(&config, &Clock::manual().0);
            peer.succeed(1000);
            peer.fail(11);
            assert_eq!(peer.failures_in_machine(), 11, "{config:?}");
        }
    });
}

#[test]
fn threads_that_fail_at_once_trip_at_the_limit() {
    const SUCCESSES: usize = 5000;
    for looks in [false, true] {
        let peer = peer(&rate(0.5), &Clock::manual().0);
        peer.succeed(SUCCESSES);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let fail = || {
                while let Admission::Go(permit) = peer.core.admit() {
                    permit.end(Outcome::Failure);
                }
            };
            let look = || {
                while looks && !done.load(Ordering::Acquire) {
                    let shown = peer.snapshot();
                    assert!(shown.state != State::Closed || shown.failures < SUCCESSES as u64);
                }
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(fail)).collect();
            scope.spawn(look);
            for thread in threads {
                thread.join().unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let outcomes = peer.snapshot().outcomes;
        assert_eq!(
            (outcomes.success, outcomes.failure),
            (SUCCESSES as u64, SUCCESSES as u64),
            "{outcomes:?}"
        );
    }
}

/// Two instances on one store.
struct World {
    a: Peer,
    b: Peer,
    /// Each failure is judged.
    judges_all: bool,
}

impl World {
    fn new(config: &BreakerConfig, clock: &Clock, judges_all: bool) -> Self {
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let [a, b] = ["a", "b"].map(|id| {
            let mut peer = Peer::new(id, config, clock, &store);
            peer.exchange();
            peer
        });
        World { a, b, judges_all }
    }

    fn call(&self, outcome: Outcome) {
        let peer = if self.judges_all { self.a.without_credit() } else { &self.a };
        peer.call(outcome);
    }

    /// What does not happen at once for both worlds.
    fn take(&mut self, step: Step) {
        match step {
            Step::Exchange => self.a.exchange(),
            Step::ExchangeOfOther(successes, failures) => {
                let calls = [(Outcome::Success, successes), (Outcome::Failure, failures)];
                for outcome in calls.into_iter().flat_map(|(outcome, times)| iter::repeat_n(outcome, times)) {
                    if self.b.is_closed() {
                        self.b.without_credit().call(outcome);
                    }
                }
                self.b.exchange();
            }
            Step::Skew(micros) => self.a.context.set_skew(micros),
            Step::Call(..) | Step::Pass(_) | Step::Look => {}
        }
    }
}

impl Drop for World {
    /// The list of breakers to exchange would keep breakers and contexts alive.
    fn drop(&mut self) {
        self.a.context.end();
        self.b.context.end();
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call(Outcome, usize),
    /// In milliseconds.
    Pass(u64),
    Exchange,
    /// After these successes and failures.
    ExchangeOfOther(usize, usize),
    /// The store's clock is found to be ahead by this, in µs.
    Skew(u64),
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..150_usize).prop_map(|times| Step::Call(Outcome::Success, times)),
        4 => (1..60_usize).prop_map(|times| Step::Call(Outcome::Failure, times)),
        1 => (1..5_usize).prop_map(|times| Step::Call(Outcome::SlowSuccess, times)),
        2 => (1..90_u64).prop_map(Step::Pass),
        1 => (90..4000_u64).prop_map(Step::Pass),
        1 => Just(Step::Exchange),
        1 => (0..300_usize, 0..100_usize).prop_map(|(good, bad)| Step::ExchangeOfOther(good, bad)),
        1 => (0..500_000_u64).prop_map(Step::Skew),
        1 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..30)
}

fn configs() -> impl Strategy<Value = BreakerConfig> {
    let limits = prop::sample::select(vec![0.1, 0.3, 0.5, 0.9, 1.0]);
    let windows = prop::sample::select(vec![1000_u64, 1900, 10_000]);
    (limits, windows, prop::sample::select(vec![1_u32, 10, 100]), any::<bool>()).prop_map(
        |(limit, window, minimum, slow)| {
            let config = BreakerConfig::default()
                .failure_rate_threshold(limit)
                .window(Duration::from_millis(window))
                .minimum_calls(minimum);
            let second = Duration::from_secs(1);
            if slow { config.slow_call_duration(second).slow_call_rate_threshold(0.2) } else { config }
        },
    )
}

/// Plays the steps in two worlds. One of them takes credit back before each call, so that each failure is
/// judged. The worlds must agree on the state after each call, and on the counts after each exchange.
fn compare(config: &BreakerConfig, steps: &[Step], spent: &Cell<u64>) -> Result<(), TestCaseError> {
    let (clock, hands) = Clock::manual();
    let mut worlds = [false, true].map(|judges_all| World::new(config, &clock, judges_all));
    for step in steps {
        match *step {
            Step::Call(outcome, times) => {
                for _ in 0..times {
                    for world in &worlds {
                        world.call(outcome);
                    }
                    let [on_credit, judged] = worlds.each_ref().map(|world| world.a.is_closed());
                    prop_assert_eq!(on_credit, judged);
                    if !on_credit {
                        return Ok(());
                    }
                }
                // Each absorption at one moment is dated a microsecond later than the one before it, and must
                // not fall into the next bucket for that.
                hands.advance(Duration::from_millis(1));
            }
            Step::Pass(millis) => hands.advance(Duration::from_millis(millis)),
            Step::Look => {}
            other => worlds.iter_mut().for_each(|world| world.take(other)),
        }
        if !matches!(step, Step::Call(..) | Step::Pass(_) | Step::Skew(_)) {
            let [on_credit, judged] = worlds.each_ref().map(|world| world.a.figures());
            prop_assert_eq!(on_credit, judged);
        }
        if !worlds.iter().all(|world| world.a.is_closed()) {
            return Ok(());
        }
    }
    let [on_credit, judged] = worlds.each_ref().map(|world| world.a.figures());
    prop_assert_eq!(on_credit, judged);
    let [on_credit, judged] = worlds.each_ref().map(|world| world.a.core.credit.spent());
    prop_assert_eq!(judged, 0);
    spent.set(spent.get() + on_credit);
    Ok(())
}

#[test]
fn credit_ends_before_successes_leave_the_window() {
    let config = rate(0.5).window(Duration::from_secs(1));
    // The store's buckets end 50 ms before those of this instance.
    let expiring = |millis| {
        let calls = [Step::Call(Outcome::Success, 20), Step::Call(Outcome::Failure, 1)];
        let begin =
            [Step::Skew(50_000), Step::Call(Outcome::Success, 200), Step::Exchange, Step::Pass(millis)];
        (begin, calls, Step::Call(Outcome::Failure, 59))
    };
    with_counters_of_its_own(|| {
        TAKES_ALL.set(true);
        let spent = Cell::new(0);
        for millis in 850..1100 {
            let (begin, calls, failures) = expiring(millis);
            for end in [Step::Pass(30), Step::Skew(90_000)] {
                let steps: Vec<_> = begin.into_iter().chain(calls).chain([end, failures]).collect();
                compare(&config, &steps, &spent).unwrap();
            }
        }
        assert!(spent.get() > 0);
    });
}

#[test]
fn reload_takes_credit_back() {
    with_counters_of_its_own(|| {
        let peer = peer(&rate(0.5), &Clock::manual().0);
        peer.succeed(1000);
        peer.fail(11);
        peer.core.configure(rate(0.1).resolve().unwrap(), &PerFunction::default());
        // 112 of 1,112 are more than a tenth.
        peer.fail(100);
        assert!(peer.is_closed());
        peer.fail(1);
        assert!(!peer.is_closed());
    });
}

#[test]
fn credit_of_three_threads_is_not_more_than_the_headroom() {
    const SUCCESSES: usize = 5000;
    let peer = peer(&rate(0.5), &Clock::manual().0);
    std::thread::scope(|scope| drop(scope.spawn(|| peer.succeed(SUCCESSES)).join()));
    std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| {
            let (times, asked) = mpsc::channel::<usize>();
            let (done, answer) = mpsc::channel();
            let peer = &peer;
            scope.spawn(move || {
                for times in asked {
                    for _ in 0..times {
                        if let Admission::Go(permit) = peer.core.admit() {
                            permit.end(Outcome::Failure);
                        }
                    }
                    done.send(()).unwrap();
                }
            });
            (times, answer)
        });
        let single = iter::repeat_n(1, 300);
        // A thread's first failure gives it a line of the counters, and only the next one gives it credit.
        for times in [1, 1, 2400].into_iter().chain(single) {
            for (ask, answer) in &threads {
                ask.send(times).unwrap();
                answer.recv().unwrap();
            }
        }
    });
    let outcomes = peer.snapshot().outcomes;
    assert_eq!(outcomes.failure, SUCCESSES as u64, "{outcomes:?}");
}

#[test]
fn circuit_trips_at_the_call_at_which_it_would_without_credit() {
    with_counters_of_its_own(|| {
        let spent = Cell::new(0);
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let result = TestRunner::new(config).run(&(configs(), steps(), any::<bool>()), |case| {
            let (config, steps, takes_all) = case;
            TAKES_ALL.set(takes_all);
            compare(&config, &steps, &spent)
        });
        if let Err(problem) = result {
            panic!("{problem}");
        }
        assert!(spent.get() > 100, "{}", spent.get());
    });
}
