//! One instance cannot reach Redis, or does not get its answers.

use std::time::{Duration, Instant};

use cb_runtime::State;
use cb_testkit::{Proxy, RedisServer};
use serde_json::{Value, json};

use crate::common::protocol::{Calls, Event, Override, Request};
use crate::common::{PATIENCE, within_t};
use crate::{NAME, all, good, instance, instances, threshold, undisturbed};

#[test]
fn isolated_instance_opens_locally_and_adopts_the_fleets_state_when_healed() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = instance(&proxy.url(), &threshold(3));
    let [b, c] = instances(&redis.url(), &threshold(3));
    undisturbed(&a.call(NAME, good(), 1));
    within_t("A is part of the fleet", || b.fleet(NAME).successes == 1);

    proxy.cut();
    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1));
    within_t("A notices the loss", || a.look(NAME).local);
    // Meanwhile the calls of B and C succeed.
    let traffic = [&b, &c].map(|instance| instance.traffic(NAME, good(), Duration::from_millis(5)));
    // For some seconds: an instance's estimate of the store's time may be off by its shortest round trip,
    // which is long on a busy machine.
    within_t("B and C have reported many calls", || b.fleet(NAME).successes > 1200);

    proxy.heal();
    let healed = Instant::now();
    within_t("A has the fleet's state", || {
        let seen = a.look(NAME);
        let agrees = seen.state == State::Closed && !seen.local;
        let late = || format!("{seen:?}, {:?}, {:?}, {:?}", b.fleet(NAME), a.events(), b.events());
        assert!(agrees || healed.elapsed() < PATIENCE, "{}", late());
        agrees
    });
    // A's failures are in the shared window and did not trip it.
    let counts = a.fleet(NAME);
    assert_eq!((counts.state, counts.epoch, counts.streak, counts.failures), (State::Closed, 0, 0, 3));
    for (instance, traffic) in [&b, &c].into_iter().zip(traffic) {
        undisturbed(&Calls { took_us: 0, ..instance.finish(traffic, good()) });
    }
    for instance in [&a, &b, &c] {
        assert_eq!(instance.state(NAME), State::Closed);
        assert!(instance.transitions(NAME).is_empty());
    }
}

#[test]
fn isolated_instance_adopts_transitions_made_during_its_isolation() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = instance(&proxy.url(), &threshold(3));
    let [b, c] = instances(&redis.url(), &threshold(3));
    within_t("A is part of the fleet", || a.fleet(NAME).epoch == 0);
    proxy.cut();
    within_t("A notices the loss", || a.events().contains(&Event::StoreLost));
    b.fail(NAME, 3);
    all(&[&b, &c], State::Open);
    undisturbed(&a.call(NAME, good(), 10));

    proxy.heal();
    all(&[&a, &b, &c], State::Open);
    within_t("A has read the event", || a.transitions(NAME).len() == 1);
    assert_eq!(a.transitions(NAME)[0].originator, b.id());
    assert_eq!(b.look(NAME).epoch, 1);
}

#[test]
fn override_released_during_an_isolation_stays_released() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let [a, b] = [instance(&proxy.url(), &threshold(3)), instance(&redis.url(), &threshold(3))];
    // A does not register the second breaker before it is back.
    let names = [NAME, "reports"];
    b.create("reports", threshold(3));
    b.create("noise", threshold(3));
    for name in names {
        b.steer(name, &Override::ForceOpen("maintenance".into()));
    }
    all(&[&a, &b], State::ForcedOpen);
    proxy.cut();
    within_t("A notices the loss", || a.events().contains(&Event::StoreLost));
    for name in names {
        b.steer(name, &Override::Release);
    }
    for reason in ["one", "two", "three"] {
        b.steer("noise", &Override::Disable(reason.into()));
    }
    // As after an hour: the events are trimmed away, and the released breakers' keys have expired.
    redis.cli(&["XTRIM", "cb1:{tests}:events", "MAXLEN", "0"]);
    redis.cli(&["DEL", "cb1:{tests}:b:orders", "cb1:{tests}:b:reports"]);

    proxy.heal();
    all(&[&a, &b], State::Closed);
    a.create("reports", threshold(3));
    assert_eq!(a.state("reports"), State::Closed);
    for name in names {
        undisturbed(&a.call(name, good(), 10));
        assert_eq!(b.fleet(name).state, State::Closed, "{name}");
    }
    assert_eq!(b.state(NAME), State::Closed);
}

#[test]
fn local_recovery_does_not_close_the_fleet() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let config = json!({
        "failure_threshold": 2, "reset_timeout": "300ms", "half_open_max_calls": 1, "success_threshold": 1
    });
    let a = instance(&proxy.url(), &config);
    let b = instance(&redis.url(), &config);
    b.fail(NAME, 2);
    all(&[&a, &b], State::Open);
    proxy.cut();
    within_t("A notices the loss", || a.events().contains(&Event::StoreLost));
    within_t("A recovers by its own probe", || {
        a.call(NAME, good(), 1);
        a.is(NAME, State::Closed)
    });
    assert_eq!(b.look(NAME).epoch, 1);

    proxy.heal();
    within_t("A has the fleet's state", || {
        let seen = a.look(NAME);
        seen.state == State::Open && !seen.local && seen.epoch == 1
    });
    assert_eq!((b.state(NAME), b.fleet(NAME).epoch), (State::Open, 1));
    within_t("a shared probe runs", || a.call(NAME, good(), 1).ran == 1);
    all(&[&a, &b], State::Closed);
}

#[test]
fn retry_after_a_lost_answer_counts_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = instance(&proxy.url(), &threshold(100));
    let b = instance(&redis.url(), &threshold(100));
    for round in 1..=5 {
        within_t("A is part of the fleet", || a.try_ask::<Value>(&Request::Fleet).is_ok());
        let losses = || a.events().iter().filter(|event| **event == Event::StoreLost).count();
        let before = losses();
        proxy.stall_answers();
        a.fail(NAME, 3);
        // The first failure is sent at once, and later ones may wait for its answer. If an exchange was under
        // way as the answers stopped, no failure is sent before the store counts as lost.
        within_t("failures have arrived", || b.fleet(NAME).failures > (round - 1) * 3 || losses() > before);
        proxy.cut();
        proxy.heal();
        within_t("A is part of the fleet again", || a.try_ask::<Value>(&Request::Fleet).is_ok());
        assert_eq!(a.fleet(NAME).failures, round * 3);
        assert_eq!(b.fleet(NAME).streak, round * 3);
    }
}
