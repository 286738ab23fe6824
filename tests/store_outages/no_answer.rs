//! Redis is stopped, frozen or slow.

use std::process::Command;
use std::time::{Duration, Instant};

use cb_runtime::State;
use cb_testkit::{Proxy, RedisServer};
use serde_json::{Value, json};

use crate::common::protocol::{Act, Event, Override, Request};
use crate::common::{Instance, T, within, within_t};
use crate::{NAME, WAITED_US, all, good, instance, instances, threshold, undisturbed};

#[test]
fn stopped_store_delays_no_call_and_failures_open_locally() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(3));
    undisturbed(&a.call(NAME, good(), 10));

    redis.stop();
    undisturbed(&a.call(NAME, good(), 1000));
    within_t("the loss is reported", || a.events().contains(&Event::StoreLost));
    undisturbed(&a.call(NAME, good(), 1000));

    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected(), calls.ran), (3, 1, 3));
    assert_eq!(a.state(NAME), State::Open);
    within_t("the opening is marked as local", || a.look(NAME).local);
    within_t("the local transition is reported", || {
        a.events().iter().any(|event| matches!(event, Event::Local(change) if change.to == State::Open))
    });
    assert_eq!(b.state(NAME), State::Closed);
    assert!(a.try_ask::<Value>(&Request::Fleet).is_err(), "the fleet's overview is an error");
    assert!(a.try_steer(NAME, Override::ForceOpen("away".into())).is_err(), "so is an override");
}

#[test]
fn failures_before_the_outage_is_noticed_open_locally() {
    let redis = RedisServer::start();
    let a = instance(&redis.url(), &threshold(3));
    undisturbed(&a.call(NAME, good(), 10));
    redis.stop();
    // The instance has not noticed the outage yet.
    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1));
    assert!(calls.took_us < WAITED_US, "{calls:?}");
}

#[test]
fn isolated_instance_recovers_by_its_own_probes() {
    let redis = RedisServer::start();
    let config = json!({
        "failure_threshold": 2, "reset_timeout": "200ms", "half_open_max_calls": 2, "success_threshold": 2
    });
    let a = instance(&redis.url(), &config);
    redis.stop();
    a.fail(NAME, 2);
    assert_eq!(a.state(NAME), State::Open);
    within_t("the loss is noticed", || a.events().contains(&Event::StoreLost));
    within_t("a probe is due", || a.look(NAME).retry_after_us == Some(0));
    let group = a.hold(NAME, 10);
    within_t("every call runs or is rejected", || {
        let calls = a.progress(group);
        calls.ran + calls.ended.len() == 10
    });
    assert_eq!(a.progress(group).ran, 2, "the instance's own budget");
    a.finish(group, good());
    assert_eq!(a.state(NAME), State::Closed);

    redis.restart();
    within_t("the store is restored", || a.events().contains(&Event::StoreRestored));
    let fleet = a.fleet(NAME);
    assert_eq!((fleet.state, fleet.streak), (State::Closed, 0));
}

fn resident_kb(instance: &Instance) -> u64 {
    let ps = Command::new("ps").args(["-o", "rss=", "-p", &instance.pid().to_string()]).output();
    let text = String::from_utf8(ps.expect("ps can be run").stdout).expect("digits");
    text.trim().parse().expect("a number of kilobytes")
}

#[test]
fn frozen_store_delays_no_call_and_counts_are_complete_after_the_thaw() {
    let redis = RedisServer::start();
    let config = json!({
        "failure_threshold": 3, "failure_rate_threshold": 0.9, "window": "60s", "minimum_calls": 1_000_000,
        "reset_timeout": "1h",
    });
    let fleet: [Instance; 3] = instances(&redis.url(), &config);
    let [a, b, c] = &fleet;
    for instance in &fleet {
        instance.create("busy", json!({"failure_threshold": 1_000_000}));
        undisturbed(&instance.call(NAME, good(), 1));
    }

    redis.freeze();
    let frozen = Instant::now();
    undisturbed(&a.call(NAME, good(), 1000));
    undisturbed(&b.call(NAME, good(), 1000));
    let noise = || {
        for _ in 0..5 {
            b.call("busy", Act::Fail, 2000);
            b.call("busy", good(), 2000);
        }
    };
    noise();
    let before = resident_kb(b);
    for _ in 0..10 {
        noise();
    }
    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1));
    assert!(calls.took_us < WAITED_US, "{calls:?}");
    // The test needs a long freeze, in which every timeout and every limit of retries is reached.
    std::thread::sleep(Duration::from_secs(10).saturating_sub(frozen.elapsed()));
    undisturbed(&b.call(NAME, good(), 1000));
    undisturbed(&c.call(NAME, good(), 1000));
    let grown = resident_kb(b).saturating_sub(before);
    assert!(grown < 4_000, "{grown} KB of growth");

    redis.thaw();
    within(Duration::from_secs(2), "all agree", || {
        let seen = fleet.each_ref().map(|instance| instance.look(NAME));
        let one = seen[0].clone();
        seen.iter().all(|s| !s.local && (s.state, s.epoch) == (one.state, one.epoch))
            && a.events().contains(&Event::StoreRestored)
    });
    // Outcomes of the freeze are counted exactly once.
    let expected = 55 * 2000;
    within_t("the counts are whole", || b.fleet("busy").failures == expected);
    assert_eq!(c.fleet("busy").successes, expected);
    // The fleet shares a state again.
    for instance in &fleet {
        instance.create("after", threshold(2));
    }
    c.fail("after", 2);
    within_t("all open together", || fleet.iter().all(|i| i.is("after", State::Open)));
}

#[test]
fn failures_reported_after_a_freeze_open_the_fleet() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(3));
    redis.freeze();
    a.fail(NAME, 3);
    assert_eq!(a.state(NAME), State::Open);
    within_t("A acts locally", || a.look(NAME).local);
    redis.thaw();
    within(Duration::from_secs(2), "B is open", || b.is(NAME, State::Open));
    within_t("A has the fleet's state", || {
        let seen = a.look(NAME);
        !seen.local && seen.state == State::Open && seen.epoch == 1
    });
}

#[test]
fn slow_store_delays_no_call() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let [a, b] = instances(&proxy.url(), &threshold(100));
    proxy.slow(Duration::from_millis(150));
    undisturbed(&a.call(NAME, good(), 1000));
    let calls = a.fail(NAME, 101);
    assert_eq!((calls.failed(), calls.rejected()), (100, 1));
    assert!(calls.took_us < WAITED_US, "{calls:?}");
    all(&[&a, &b], State::Open);

    // Slower than any limit of a loss: the instance treats the store as lost.
    proxy.slow(Duration::from_secs(10));
    within(3 * T, "B notices the loss", || b.events().contains(&Event::StoreLost));
    let calls = b.call(NAME, good(), 1000);
    assert!(calls.all_rejected());
    assert!(calls.took_us < WAITED_US, "{} µs", calls.took_us);
    proxy.slow(Duration::ZERO);
    within(Duration::from_secs(2), "all agree", || {
        [&a, &b].iter().all(|i| {
            let seen = i.look(NAME);
            (seen.state, seen.epoch, seen.local) == (State::Open, 1, false)
        }) && b.events().contains(&Event::StoreRestored)
    });
}
