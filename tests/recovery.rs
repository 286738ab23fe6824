//! The time a circuit stays open, and how it closes.

mod common;

use std::array;
use std::time::Duration;

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::{Value, json};

use common::protocol::{Act, Ended, Function};
use common::{Instance, T, all, all_due, instances, within, within_t};

const NAME: &str = "orders";

/// Waits until the instance has observed this many openings and returns the latest one's duration in
/// milliseconds.
#[track_caller]
fn open_for(instance: &Instance, openings: usize) -> u64 {
    let opened = || {
        let transitions = instance.transitions(NAME).into_iter();
        transitions
            .filter(|change| change.to == State::Open)
            .map(|change| change.open_for_ms)
            .collect::<Vec<_>>()
    };
    within_t("the opening is observed", || opened().len() == openings);
    opened()[openings - 1].expect("an opening has a duration")
}

#[test]
fn backoff_grows_fleet_wide_to_its_cap_and_restarts_after_a_close() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(
        &redis,
        NAME,
        &json!({
            "failure_threshold": 1,
            "success_threshold": 1,
            "reset_timeout": "100ms",
            "backoff": {"factor": 3, "cap": "500ms"},
        }),
    );
    let mut openings = 0;
    for _ in 0..2 {
        // The instances take turns to fail.
        for expected in [100, 300, 500, 500] {
            fleet[openings % 2].probe(NAME, &Act::Fail, 1);
            openings += 1;
            for instance in &fleet {
                assert_eq!(open_for(instance, openings), expected);
            }
            all_due(NAME, &fleet);
        }
        fleet[1].probe(NAME, &Act::Succeed(None), 1);
        all(NAME, &fleet, State::Closed);
    }
}

#[test]
fn jitter_varies_the_open_time() {
    let redis = RedisServer::start();
    let config = json!({"failure_threshold": 1, "reset_timeout": "1h", "backoff": {"jitter": 0.5}});
    let a = Instance::on(&redis.url());
    let minutes: Vec<_> = (0..20)
        .map(|number| {
            let name = format!("orders-{number}");
            a.create(&name, config.clone());
            a.fail(&name, 1);
            a.look(&name).retry_after_us.expect("it is open") / 60_000_000
        })
        .collect();
    assert!(minutes.iter().all(|span| (29..=90).contains(span)), "{minutes:?}");
    assert!(minutes.iter().any(|span| *span != minutes[0]), "{minutes:?}");
}

#[test]
fn recovery_rate_decides_after_the_sample() {
    let redis = RedisServer::start();
    let config = json!({
        "failure_threshold": 1,
        "reset_timeout": "100ms",
        "half_open_max_calls": 4,
        "recovery_rate": 0.5,
    });
    let fleet: [Instance; 2] = instances(&redis, NAME, &config);
    fleet[0].fail(NAME, 1);
    all_due(NAME, &fleet);
    fleet[0].probe(NAME, &Act::Fail, 1);
    all(NAME, &fleet, State::HalfOpen);
    fleet[1].probe(NAME, &Act::Succeed(None), 1);
    fleet[0].probe(NAME, &Act::Fail, 1);
    all(NAME, &fleet, State::HalfOpen);
    fleet[1].probe(NAME, &Act::Succeed(None), 1);
    all(NAME, &fleet, State::Closed);

    fleet[0].fail(NAME, 1);
    all_due(NAME, &fleet);
    fleet[0].probe(NAME, &Act::Succeed(None), 1);
    fleet[1].probe(NAME, &Act::Fail, 3);
    all(NAME, &fleet, State::Open);
    assert_eq!(fleet[0].look(NAME).reason, "25.0 % of 4 probes succeeded (needed 50.0 %)");
}

fn ramping() -> Value {
    json!({
        "failure_threshold": 1,
        "success_threshold": 1,
        "reset_timeout": "100ms",
        "backoff": {"factor": 4},
        "ramp_up": "1h",
    })
}

/// Opens the circuit and closes it with a probe.
#[track_caller]
fn recover(fleet: &[Instance]) {
    fleet[0].fail(NAME, 1);
    all_due(NAME, fleet);
    fleet[0].probe(NAME, &Act::Succeed(None), 1);
    all(NAME, fleet, State::Closed);
}

#[test]
fn ramp_up_starts_at_a_tenth_of_the_calls() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &ramping());
    assert_eq!(fleet[1].succeed(NAME, 100).ran, 100, "a circuit that was never open does not ramp up");
    recover(&fleet);
    for instance in &fleet {
        let calls = instance.succeed(NAME, 100);
        assert!((9..=12).contains(&calls.ran), "{}", calls.ran);
        assert_eq!(
            calls.ended.iter().filter(|ended| **ended == Ended::RampRejected).count(),
            100 - calls.ran
        );
        assert_eq!(instance.look(NAME).ramp_rejected, 100 - calls.ran as u64);
    }
    let new_instance = Instance::on(&redis.url());
    new_instance.create(NAME, ramping());
    within_t("it knows the recovery's epoch", || new_instance.look(NAME).epoch == fleet[0].look(NAME).epoch);
    assert!(new_instance.succeed(NAME, 100).ran <= 12);
}

#[test]
fn ramp_up_ends_with_all_calls_admitted() {
    let redis = RedisServer::start();
    let mut config = ramping();
    config["ramp_up"] = json!("300ms");
    let fleet: [Instance; 2] = instances(&redis, NAME, &config);
    recover(&fleet);
    within(Duration::from_millis(300) + T, "all are admitted", || {
        fleet.iter().all(|instance| instance.succeed(NAME, 50).ran == 50)
    });
}

#[test]
fn trip_during_ramp_up_uses_the_next_backoff() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = instances(&redis, NAME, &ramping());
    recover(&fleet);
    assert_eq!(open_for(&fleet[1], 1), 100);
    // The ramp admits one of ten calls.
    assert_eq!(fleet[1].fail(NAME, 10).ran, 1);
    assert_eq!(open_for(&fleet[0], 2), 400);
    all(NAME, &fleet, State::Open);
}

#[test]
fn open_for_opens_the_fleet_for_the_requested_time() {
    let redis = RedisServer::start();
    let fleet: [Instance; 2] = array::from_fn(|_| {
        let instance = Instance::on(&redis.url());
        instance.configure(Function::Obedient, json!({"failure_threshold": 5, "success_threshold": 1}));
        instance
    });
    for instance in &fleet {
        assert_eq!(instance.run(Function::Obedient, 1, Act::Fail), Ended::Failed);
    }
    assert_eq!(fleet[0].run(Function::Obedient, 1, Act::RetryAfter(5000)), Ended::Failed);
    within_t("all are open", || fleet.iter().all(|instance| instance.is("obedient", State::Open)));
    for instance in &fleet {
        let seen = instance.look("obedient");
        assert!(seen.retry_after_us <= Some(5_000_000), "{seen:?}");
        assert_eq!(seen.reason, "the dependency asked for 5s (open_for)");
        assert!(instance.run(Function::Obedient, 1, Act::Fail).is_rejected());
    }
    within(Duration::from_secs(5) + T, "a probe is made", || {
        fleet[1].run(Function::Obedient, 1, Act::Succeed(None)) == Ended::Value(None)
    });
    within_t("all are closed", || fleet.iter().all(|instance| instance.is("obedient", State::Closed)));
}

#[test]
fn slow_probes_reopen() {
    let redis = RedisServer::start();
    let config = json!({
        "slow_call_duration": "500ms",
        "slow_call_rate_threshold": 0.5,
        "minimum_calls": 2,
        "success_threshold": 2,
        "reset_timeout": "100ms",
        "backoff": {"factor": 3},
    });
    let fleet: [Instance; 2] = instances(&redis, NAME, &config);
    let slow = || Act::After(550, Box::new(Act::Succeed(None)));
    fleet[0].call(NAME, slow(), 2);
    assert_eq!(open_for(&fleet[1], 1), 100);
    all_due(NAME, &fleet);
    for instance in &fleet {
        instance.probe(NAME, &slow(), 1);
    }
    assert_eq!(open_for(&fleet[0], 2), 300);
    assert_eq!(fleet[1].look(NAME).reason, "100.0 % of 2 probes took longer than 500ms (limit 50.0 %)");
}
