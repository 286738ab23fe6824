//! Redis stops, freezes, is slow, loses its data, or is unreachable for one instance.

mod common;

use std::array;
use std::process::Command;
use std::time::{Duration, Instant};

use cb_runtime::State;
use cb_testkit::{Proxy, RedisServer};
use serde_json::{Value, json};

use common::protocol::{Act, Calls, Ended, Event, Override, Request};
use common::{Instance, PATIENCE, T, within, within_t};

const NAME: &str = "orders";

/// A hundred calls that waited for the store would take longer than this. One that does not wait may still
/// be held up by a busy machine.
const WAITED_US: u64 = 10_000_000;

fn good() -> Act {
    Act::Succeed(Some("fresh".into()))
}

fn threshold(failures: u32) -> Value {
    json!({"failure_threshold": failures, "reset_timeout": "1h"})
}

fn instance(url: &str, config: &Value) -> Instance {
    let instance = Instance::on(url);
    instance.create(NAME, config.clone());
    instance
}

fn instances<const N: usize>(url: &str, config: &Value) -> [Instance; N] {
    array::from_fn(|_| instance(url, config))
}

#[track_caller]
fn all(instances: &[&Instance], state: State) {
    within_t(&format!("all are {state}"), || instances.iter().all(|i| i.is(NAME, state)));
}

/// Asserts that all calls were made, succeeded and did not wait.
#[track_caller]
fn undisturbed(calls: &Calls) {
    assert!(calls.ended.iter().all(|ended| *ended == Ended::value("fresh")), "{calls:?}");
    assert!(calls.took_us < WAITED_US, "{} calls took {} µs", calls.ended.len(), calls.took_us);
}

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
fn open_state_survives_an_emptied_store() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.fail(NAME, 2);
    all(&[&a, &b], State::Open);

    for round in 1..=3 {
        redis.cli(&["FLUSHALL"]);
        // This instance never saw the epoch before the loss.
        within_t("a new instance finds it open", || {
            let c = instance(&redis.url(), &threshold(2));
            let seen = c.look(NAME);
            seen.state == State::Open && seen.epoch == 1 && c.succeed(NAME, 1).all_rejected()
        });
        for instance in [&a, &b] {
            let seen = instance.look(NAME);
            assert_eq!((seen.state, seen.epoch, seen.local), (State::Open, 1, false), "round {round}");
            assert!(seen.retry_after_us.unwrap() > 3_500_000_000, "{seen:?}");
            assert!(instance.succeed(NAME, 1).all_rejected());
        }
    }
    // Later transitions arrive although the stream was lost, too.
    b.steer(NAME, &Override::Reset);
    all(&[&a, &b], State::Closed);
    assert_eq!(a.look(NAME).epoch, 2);
    b.fail(NAME, 2);
    all(&[&a, &b], State::Open);
}

#[test]
fn forced_open_state_survives_an_emptied_store() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.steer(NAME, &Override::ForceOpen("maintenance".into()));
    all(&[&a, &b], State::ForcedOpen);
    redis.cli(&["FLUSHALL"]);
    within_t("a new instance finds it forced open", || {
        let seen = instance(&redis.url(), &threshold(2)).look(NAME);
        seen.state == State::ForcedOpen && seen.reason == "maintenance"
    });
    assert_eq!((a.state(NAME), b.state(NAME)), (State::ForcedOpen, State::ForcedOpen));
}

#[test]
fn open_state_survives_a_store_that_restarts_empty() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.fail(NAME, 2);
    all(&[&a, &b], State::Open);
    redis.restart();
    within_t("a new instance finds it open", || {
        instance(&redis.url(), &threshold(2)).look(NAME).state == State::Open
    });
    all(&[&a, &b], State::Open);
    assert_eq!((a.look(NAME).epoch, b.look(NAME).epoch), (1, 1));
}

#[test]
fn counting_continues_after_the_store_is_emptied() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(3));
    a.fail(NAME, 2);
    assert_eq!(a.fleet(NAME).streak, 2);
    redis.cli(&["FLUSHALL"]);
    a.fail(NAME, 3);
    assert_eq!(a.state(NAME), State::Open);
    all(&[&a, &b], State::Open);
}

#[test]
fn flushed_scripts_are_reloaded_without_an_error() {
    let redis = RedisServer::start();
    // A busy machine must not look like a lost store.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cb.toml");
    std::fs::write(&file, "response_timeout = \"2s\"").expect("it is written");
    let [a, b]: [Instance; 2] = array::from_fn(|_| {
        let instance = Instance::configured(&redis.url(), &file, &[]);
        instance.create(NAME, threshold(4));
        instance
    });
    for failures in 1..=3 {
        redis.cli(&["SCRIPT", "FLUSH"]);
        a.fail(NAME, 1);
        assert_eq!(a.fleet(NAME).streak, failures);
    }
    redis.cli(&["SCRIPT", "FLUSH"]);
    b.fail(NAME, 1);
    all(&[&a, &b], State::Open);
    for instance in [&a, &b] {
        let errors = instance.errors();
        assert!(!errors.iter().any(|error| error.text.contains("NOSCRIPT")), "{errors:?}");
    }
}

#[test]
fn instances_started_without_a_store_serve_and_join_later() {
    let redis = RedisServer::start();
    redis.stop();
    let begun = Instant::now();
    let [a, b] = [(); 2].map(|()| Instance::without_store(&redis.url()));
    [&a, &b].iter().for_each(|instance| instance.create(NAME, threshold(3)));
    assert!(begun.elapsed() < PATIENCE, "starting took {:?}", begun.elapsed());
    undisturbed(&a.call(NAME, good(), 1000));
    a.fail(NAME, 1);
    b.fail(NAME, 2);
    assert_eq!((a.state(NAME), b.state(NAME)), (State::Closed, State::Closed));
    assert!(a.errors().iter().any(|trouble| trouble.is_store), "{:?}", a.errors());

    redis.restart();
    // The counts of both add up to the threshold of three.
    all(&[&a, &b], State::Open);
    within_t("both are part of the fleet", || {
        [&a, &b].iter().all(|i| !i.look(NAME).local && i.look(NAME).epoch == 1)
    });
}

#[test]
fn invalid_address_is_an_error_that_shows_a_valid_one() {
    let urls = [
        "",
        "not a url",
        "127.0.0.1:6379",
        "http://127.0.0.1:6379",
        "redis://127.0.0.1:no-port",
        "redis://127.0.0.1:99999",
        "redis://user:se:cret@:6379:1",
        "redis://127.0.0.1:6379/not-a-number",
        "unix://",
    ];
    for url in urls {
        let order = Request::Install { url: Some(url.into()), namespace: "tests".into(), connects: false };
        let begun = Instant::now();
        let error = Instance::bare().try_ask::<String>(&order).expect_err(url);
        assert!(begun.elapsed() < PATIENCE, "{url}");
        eprintln!("{url:?}: {error}");
        assert!(error.contains("address"), "{url}: {error}");
        assert!(error.contains("redis://"), "{url}: the error does not show a valid address: {error}");
        assert!(!error.contains("se:cret"), "{url}: the error contains the password: {error}");
    }
    let order = Request::Install { url: None, namespace: String::new(), connects: false };
    let error = Instance::bare().try_ask::<String>(&order).unwrap_err();
    assert!(error.contains("namespace"), "{error}");
}

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
