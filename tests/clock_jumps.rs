//! Redis' clock jumps by an hour, back and ahead: everything that was due in its own span still is.

mod common;

use std::time::{Duration, Instant};

use cb_runtime::{Breaker, BreakerConfig, Registry, State};
use cb_testkit::{Proxy, RedisServer, wait_until};

use common::block_on;

const NAME: &str = "orders";
const HOUR: i64 = 3600;
const RESET: Duration = Duration::from_secs(5);
/// Nothing that is due after `RESET` happens before this.
const EARLIEST: Duration = Duration::from_secs(4);
/// How long after its span something may still be under way on a busy machine. Far less than the jump.
const LATE: Duration = Duration::from_secs(60);

fn instance(url: &str) -> (Registry, Breaker) {
    // An override fails if the store counts as lost, which a busy machine must not cause.
    let registry = Registry::builder().redis(url).namespace("clock").response_timeout(Duration::from_secs(2));
    let registry = registry.build().expect("a registry");
    let config = BreakerConfig::default()
        .failure_threshold(2)
        .reset_timeout(RESET)
        .half_open_max_calls(1)
        .success_threshold(1);
    let breaker = registry.get_or_create(NAME, config);
    (registry, breaker)
}

fn call(breaker: &Breaker, result: Result<(), ()>) -> bool {
    let mut ran = false;
    let _ = block_on(breaker.call(async || {
        ran = true;
        result
    }));
    ran
}

fn open(breakers: &[&Breaker]) {
    call(breakers[0], Err(()));
    call(breakers[0], Err(()));
    wait_until(LATE, "the circuit is open everywhere", || breakers.iter().all(|b| b.state() == State::Open));
}

/// Calls until one runs; how long after `since` that was.
fn first_probe(breakers: &[&Breaker], since: Instant) -> Duration {
    let mut next = breakers.iter().cycle();
    wait_until(RESET + LATE, "a probe runs", || call(next.next().expect("endless"), Ok(())));
    since.elapsed()
}

/// An open circuit is probed after its reset timeout, by those who saw it open and by an instance that joins
/// later.
fn probes_in_time(jump: i64) {
    let redis = RedisServer::start_with_movable_clock();
    let ((_a, a), (_b, b)) = (instance(&redis.url()), instance(&redis.url()));
    let opened = Instant::now();
    open(&[&a, &b]);
    redis.move_clock(jump);
    let (_c, c) = instance(&redis.url());
    let took = first_probe(&[&a, &b, &c], opened);
    // Bounds, not a timing: an early probe is what a clock that jumps ahead would cause.
    assert!(took > EARLIEST, "probed {took:?} after the opening, due after {RESET:?}");
    wait_until(LATE, "the fleet is closed", || [&a, &b, &c].iter().all(|b| b.state() == State::Closed));
    // The prober may hear of its success after the others.
    wait_until(LATE, "all know the epoch", || [&a, &b, &c].iter().all(|b| b.snapshot().epoch == 3));
}

#[test]
fn clock_set_back_does_not_delay_probes() {
    probes_in_time(-HOUR);
}

#[test]
fn clock_set_ahead_does_not_advance_probes_of_instances_that_know_the_opening() {
    let redis = RedisServer::start_with_movable_clock();
    let ((_a, a), (_b, b)) = (instance(&redis.url()), instance(&redis.url()));
    let opened = Instant::now();
    open(&[&a, &b]);
    redis.move_clock(HOUR);
    let took = first_probe(&[&a, &b], opened);
    assert!(took > EARLIEST, "probed {took:?} after the opening, due after {RESET:?}");
    wait_until(LATE, "the fleet is closed", || [&a, &b].iter().all(|b| b.state() == State::Closed));
}

#[test]
fn clock_set_back_does_not_keep_the_probe_of_an_instance_that_is_gone() {
    let redis = RedisServer::start_with_movable_clock();
    let proxy = Proxy::start(redis.port());
    let ((_a, a), (_b, b)) = (instance(&proxy.url()), instance(&redis.url()));
    open(&[&a, &b]);
    wait_until(RESET + LATE, "the probe is due", || a.snapshot().retry_after == Some(Duration::ZERO));
    let (ran, held) = std::sync::mpsc::channel();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let holder = std::thread::spawn(move || {
        block_on(a.call(async move || {
            ran.send(()).expect("the test waits for the probe");
            released.await.map_err(drop)
        }))
    });
    held.recv_timeout(LATE).expect("the probe runs");
    redis.move_clock(-HOUR);
    // The holder cannot renew its lease any more.
    proxy.cut();
    first_probe(&[&b], Instant::now());
    wait_until(LATE, "the circuit is closed", || b.state() == State::Closed);
    drop(release);
    assert!(holder.join().expect("the holder ends").is_err());
    assert_eq!(b.state(), State::Closed, "the late outcome changes nothing");
}

/// An override ends after its own span, whatever Redis' clock does meanwhile.
fn override_expires_in_time(jump: i64) {
    let redis = RedisServer::start_with_movable_clock();
    let ((_a, a), (_b, b)) = (instance(&redis.url()), instance(&redis.url()));
    let set = Instant::now();
    block_on(a.expires_in(RESET).force_open("maintenance")).expect("the store has the override");
    wait_until(LATE, "the override is everywhere", || b.state() == State::ForcedOpen);
    redis.move_clock(jump);
    wait_until(RESET + LATE, "the override has expired", || {
        [&a, &b].iter().all(|breaker| breaker.state() == State::Closed)
    });
    let took = set.elapsed();
    assert!(took > EARLIEST, "expired after {took:?}, due after {RESET:?}");
}

#[test]
fn clock_set_back_does_not_prolong_an_override() {
    override_expires_in_time(-HOUR);
}

#[test]
fn clock_set_ahead_does_not_shorten_an_override_for_instances_that_know_it() {
    override_expires_in_time(HOUR);
}

#[test]
fn counting_goes_on_after_the_clock_jumps() {
    let redis = RedisServer::start_with_movable_clock();
    let ((_a, a), (_b, b)) = (instance(&redis.url()), instance(&redis.url()));
    for (epoch, jump) in [-HOUR, HOUR, -30, 30, 0].into_iter().enumerate() {
        redis.move_clock(jump);
        call(&a, Ok(()));
        open(&[&b, &a]);
        assert_eq!(a.snapshot().epoch, 2 * epoch as u64 + 1);
        block_on(a.reset()).expect("the store has the reset");
        wait_until(LATE, "closed everywhere", || [&a, &b].iter().all(|b| b.state() == State::Closed));
    }
}
