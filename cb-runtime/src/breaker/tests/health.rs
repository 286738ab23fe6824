//! Leaders whose health checks fail for a reason of their own.

use std::panic::Location;

use super::*;

const INTERVAL: Duration = Duration::from_secs(1);

fn checked() -> BreakerConfig {
    config().health_check(async || ()).health_check_interval(INTERVAL)
}

impl Pair {
    /// Time passes in which due checks are made: A's fail, B's pass if `b_passes`. Returns how many each has
    /// made.
    fn check(&mut self, span: Duration, b_passes: bool) -> (u32, u32) {
        let mut made = (0, 0);
        for _ in 0..span.as_millis() / 250 {
            self.pass(Duration::from_millis(250));
            if let Some(check) = self.a.core.begin_check() {
                made.0 += 1;
                self.a.core.end_check(&check, Err("my own network".into()), Duration::ZERO);
            }
            if let Some(check) = self.b.core.begin_check() {
                made.1 += 1;
                let result = if b_passes { Ok(()) } else { Err("down".into()) };
                self.b.core.end_check(&check, result, Duration::ZERO);
            }
        }
        made
    }
}

#[test]
fn leader_whose_checks_fail_steps_down_and_another_closes() {
    let mut bench = Pair::new(&checked());
    bench.a.fail(1);
    bench.sync();
    let made = bench.check(6 * INTERVAL, true);
    assert_eq!(made, (3, 1));
    assert_eq!((bench.stored(), bench.a.state()), (State::Closed, State::Closed));
}

#[test]
fn leaders_take_turns_while_all_checks_fail() {
    let mut bench = Pair::new(&checked());
    bench.a.fail(1);
    bench.sync();
    let (a, b) = bench.check(30 * INTERVAL, false);
    assert_eq!(bench.stored(), State::Open);
    assert!(a >= 6 && b >= 6, "{a} {b}");
}

#[test]
fn single_instance_keeps_checking() {
    let mut bench = Pair::new(&checked());
    bench.a.fail(1);
    bench.a.exchange();
    let mut made = 0;
    for _ in 0..80 {
        bench.hands.advance(Duration::from_millis(250));
        bench.a.exchange();
        if let Some(check) = bench.a.core.begin_check() {
            made += 1;
            bench.a.core.end_check(&check, Err("down".into()), Duration::ZERO);
        }
    }
    assert!(made >= 9, "{made} checks in 20 intervals");
}

fn quorum() -> BreakerConfig {
    checked().idle_health_check_interval(INTERVAL).failure_threshold(10).min_failing_instances(2)
}

#[test]
fn failed_idle_check_under_a_quorum_opens_only_locally() {
    let mut bench = Pair::new(&quorum());
    let (a, b) = bench.check(4 * INTERVAL, true);
    assert!(a >= 1 && b >= 1, "{a} {b}");
    assert_eq!(
        (bench.stored(), bench.a.state(), bench.b.state()),
        (State::Closed, State::Open, State::Closed)
    );
    assert!(bench.a.snapshot().local);
}

#[test]
fn failed_idle_check_that_another_instance_confirms_opens_the_fleet() {
    let mut bench = Pair::new(&quorum());
    let (a, b) = bench.check(4 * INTERVAL, false);
    assert!(a >= 1 && b >= 1, "{a} {b}");
    assert_eq!((bench.stored(), bench.a.state(), bench.b.state()), (State::Open, State::Open, State::Open));
    assert!(bench.record().reason.starts_with("health check failed"), "{:?}", bench.record());
}

/// A health check begins with a review.
#[test]
fn breaker_that_was_only_observed_is_reviewed_after_its_registration() {
    let bench = Pair::new(&config());
    let core = Core::observed("b".into(), None, &bench.b.context);
    bench.b.context.take_dirty();
    let given = config().health_check(async || ());
    core.registered_again(&given, &given.resolve().unwrap(), Location::caller());
    assert_eq!(bench.b.context.take_dirty().len(), 1, "it has other settings");
    core.registered();
    assert_eq!(bench.b.context.take_dirty().len(), 1, "it judges from now on");
    core.registered();
    assert!(bench.b.context.take_dirty().is_empty());
}
