//! Health checks across processes: leader election, failover, and the fleet's transitions.
//!
//! When a check is due and whether its result counts is tested in `breaker::machine::health`, leases and
//! fencing tokens in the store's contract, and how a check is executed in
//! `cb-runtime/tests/health_check_execution.rs`.

mod common;

use std::array;
use std::time::Duration;

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::{Value, json};

use common::protocol::{Act, CheckStep, Ended, Event};
use common::{Checks, Instance, T, all, within, within_t};

const NAME: &str = "orders";
const KEY: &str = "cb1:{tests}:b:orders";
/// The leader lease expires this long after its last renewal.
const LEASE: Duration = Duration::from_secs(2);

fn down() -> CheckStep {
    CheckStep::Fail("down".into())
}

/// One failure opens. The interval is also a check's timeout, so it must suffice on a busy machine.
fn config(interval: &str) -> Value {
    json!({"failure_threshold": 1, "health_check_interval": interval})
}

fn instances<const N: usize>(redis: &RedisServer, config: &Value, checks: &Checks) -> [Instance; N] {
    array::from_fn(|_| {
        let instance = Instance::on(&redis.url());
        instance.create_checked(NAME, config.clone(), checks);
        instance
    })
}

/// Opens the circuit with one failed call.
#[track_caller]
fn open(instance: &Instance) {
    assert_eq!(instance.fail(NAME, 1).failed(), 1);
}

#[track_caller]
fn wait_for_checks(checks: &Checks, times: usize) {
    within_t(&format!("{times} checks are made"), || checks.count() >= times);
}

/// The leader's id in Redis; empty if there is none.
fn leader(redis: &RedisServer) -> String {
    redis.cli(&["HGET", KEY, "leader"])
}

/// Whether no instance lost the store. A machine that stalls can make an instance treat the store as lost; it
/// then makes checks of its own, and the scenario does not apply.
fn none_lost_the_store(instances: &[Instance]) -> bool {
    let kept = instances.iter().all(|instance| !instance.events().contains(&Event::StoreLost));
    if !kept {
        eprintln!("an instance lost the store because the machine stalled; repeating the scenario");
    }
    kept
}

/// Runs `scenario` until no instance lost the store during it, at most five times.
fn without_store_loss(scenario: impl Fn() -> bool) {
    assert!((0..5).any(|_| scenario()), "the machine stalls too often");
}

#[test]
fn leader_of_five_checks_three_times_and_another_closes() {
    without_store_loss(|| {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[down(), down(), down(), CheckStep::Pass]);
        let fleet: [Instance; 5] = instances(&redis, &config("1s"), &checks);
        open(&fleet[2]);
        within(Duration::from_secs(4) + T, "four checks are made", || checks.count() >= 4);
        all(NAME, &fleet, State::Closed);
        within_t("the leader lease is given up", || leader(&redis).is_empty());
        if !none_lost_the_store(&fleet) {
            return false;
        }

        let made_by = checks.pids();
        // A leader whose checks fail lets another instance try, as the fault may be its own.
        assert_eq!(made_by.len(), 4);
        assert!(made_by[..3].iter().all(|maker| *maker == made_by[0] && *maker != made_by[3]), "{made_by:?}");
        let first = fleet.iter().find(|instance| instance.pid() == made_by[0]).expect("one of the fleet");
        let maker = checks.latest_checker(&fleet).expect("one of the fleet");
        let failed = || Err("down".to_owned());
        assert_eq!(first.checks(NAME), [failed(), failed(), failed()]);
        assert_eq!(maker.checks(NAME), [Ok(())]);
        for instance in &fleet {
            within_t("both transitions are observed", || instance.transitions(NAME).len() == 2);
            let changes = instance.transitions(NAME);
            assert_eq!((changes[0].to, changes[1].to), (State::Open, State::Closed), "there are no others");
            assert_eq!(changes[1].reason, "health check passed");
            assert_eq!(changes[1].originator, maker.id());
            let checked = instance.id() == maker.id() || instance.id() == first.id();
            assert_eq!(instance.checks(NAME).is_empty(), !checked);
        }
        let seen = maker.look(NAME);
        assert_eq!((seen.failures, seen.successes), (0, 0), "checks are not counted as calls");
        true
    });
}

#[test]
fn health_checks_replace_probes_and_bound_retry_after() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 2] = instances(&redis, &config("300ms"), &checks);
    open(&fleet[0]);
    all(NAME, &fleet, State::Open);
    for round in 1..=4 {
        wait_for_checks(&checks, round);
        for instance in &fleet {
            let calls = instance.call(NAME, Act::Succeed(None), 20);
            assert_eq!((calls.ran, calls.rejected()), (0, 20));
            for ended in calls.ended {
                let Ended::Rejected { retry_after_us: Some(left) } = ended else { panic!("{ended:?}") };
                assert!((1..=300_000).contains(&left), "{left} µs");
            }
            let left = instance.look(NAME).retry_after_us.expect("open");
            assert!((1..=300_000).contains(&left), "{left} µs");
        }
    }
    assert_eq!(fleet[0].fleet(NAME).epoch, 1, "a failed check is not a transition");
}

#[test]
fn killed_leader_is_replaced_within_its_lease() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 3] = instances(&redis, &config("200ms"), &checks);
    open(&fleet[0]);
    wait_for_checks(&checks, 2);
    let first = checks.latest_checker(&fleet).expect("one of the fleet").pid();
    fleet.iter().find(|instance| instance.pid() == first).expect("it is").kill();
    within(LEASE + T, "another one checks", || checks.pids().last() != Some(&first));

    checks.set_script(&[CheckStep::Pass]);
    let rest: Vec<_> = fleet.iter().filter(|instance| instance.pid() != first).collect();
    within_t("the others are closed", || rest.iter().all(|instance| instance.is(NAME, State::Closed)));
}

#[test]
fn paused_leader_does_not_check_after_its_lease_was_taken() {
    without_store_loss(|| {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[down()]);
        let fleet: [Instance; 2] = instances(&redis, &config("500ms"), &checks);
        open(&fleet[0]);
        wait_for_checks(&checks, 1);
        let first = checks.latest_checker(&fleet).expect("one of the fleet");
        first.pause();
        within(LEASE + T, "the other one checks", || checks.pids().last() != Some(&first.pid()));
        let taken_over = checks.count();
        first.resume();
        // Fewer than a leader makes before it lets the other one try.
        wait_for_checks(&checks, taken_over + 2);
        // The resumed instance may find that Redis did not answer in time and act locally for a moment. That
        // is too short for a check of its own unless the machine stalls.
        let later = &checks.pids()[taken_over - 1..];
        let kept = later.iter().all(|maker| *maker != first.pid());
        assert!(kept || !none_lost_the_store(&fleet), "{later:?}");
        kept
    });
}

#[test]
fn leader_steps_down_at_shutdown() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 3] = instances(&redis, &config("100ms"), &checks);
    open(&fleet[0]);
    wait_for_checks(&checks, 2);
    let first = checks.latest_checker(&fleet).expect("one of the fleet");
    first.shut_down();
    assert_ne!(leader(&redis), first.id(), "the lease is given up, not left to expire");
    within(Duration::from_secs(1), "another one checks", || checks.pids().last() != Some(&first.pid()));
    let made = checks.pids();
    wait_for_checks(&checks, made.len() + 3);
    let later = &checks.pids()[made.len()..];
    assert!(!later.contains(&first.pid()), "the former leader makes no more checks: {later:?}");
}

#[test]
fn failed_idle_check_opens_and_a_passed_check_closes() {
    without_store_loss(|| {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[CheckStep::Pass, down(), CheckStep::Pass]);
        let mut config = config("1s");
        config["idle_health_check_interval"] = json!("300ms");
        let fleet: [Instance; 2] = instances(&redis, &config, &checks);
        for instance in &fleet {
            let due = Duration::from_secs(2) + T;
            within(due, "both transitions are observed", || instance.transitions(NAME).len() == 2);
            let changes = instance.transitions(NAME);
            assert_eq!(changes[0].reason, "health check failed: down");
            assert_eq!(changes[1].reason, "health check passed");
            assert_eq!((changes[0].to, changes[1].to), (State::Open, State::Closed));
        }
        let made = checks.count();
        wait_for_checks(&checks, made + 2);
        let makers = checks.pids();
        if !none_lost_the_store(&fleet) {
            return false;
        }
        assert!(
            makers.iter().all(|maker| *maker == makers[0]),
            "the leader keeps its lease for idle checks: {makers:?}"
        );
        all(NAME, &fleet, State::Closed);
        true
    });
}

#[test]
fn without_a_store_every_instance_checks_and_the_fleet_converges_later() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 2] = instances(&redis, &config("200ms"), &checks);
    open(&fleet[0]);
    all(NAME, &fleet, State::Open);
    wait_for_checks(&checks, 1);
    redis.stop();
    within_t("both check", || fleet.iter().all(|instance| checks.pids().contains(&instance.pid())));
    checks.set_script(&[CheckStep::Pass]);
    all(NAME, &fleet, State::Closed);
    for instance in &fleet {
        assert!(instance.look(NAME).local, "the closing is local");
    }

    // The fleet's state applies again, and a check finds that the dependency works.
    redis.restart();
    let agreed = || {
        let shared = fleet[0].try_ask::<common::protocol::FleetRows>(&common::protocol::Request::Fleet);
        let closed = shared.is_ok_and(|rows| rows.get(NAME).is_none_or(|row| row.state == State::Closed));
        closed && fleet.iter().all(|instance| instance.look(NAME).state == State::Closed)
    };
    within_t("all instances and the store are closed", agreed);
    within_t("no state is local", || fleet.iter().all(|instance| !instance.look(NAME).local));
}

#[test]
fn reload_applies_shorter_check_intervals_at_once() {
    let redis = RedisServer::start();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let write = |text| std::fs::write(file.path(), text).unwrap();
    write("[breakers.orders]\nhealth_check_interval = '1h'\n");
    let checks = Checks::scripted(&[down(), CheckStep::Pass]);
    let fleet: [Instance; 2] = array::from_fn(|_| {
        let instance = Instance::configured(&redis.url(), file.path(), &[]);
        instance.create_checked(NAME, json!({"failure_threshold": 1}), &checks);
        instance
    });
    open(&fleet[0]);
    all(NAME, &fleet, State::Open);
    write("[breakers.orders]\nhealth_check_interval = '500ms'\nidle_health_check_interval = '1h'\n");
    for instance in &fleet {
        instance.reload(file.path()).unwrap();
    }
    all(NAME, &fleet, State::Closed);
    let made = checks.count();
    write("[breakers.orders]\nhealth_check_interval = '500ms'\nidle_health_check_interval = '50ms'\n");
    for instance in &fleet {
        instance.reload(file.path()).unwrap();
    }
    wait_for_checks(&checks, made + 3);
}
