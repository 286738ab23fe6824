//! Redis is away, frozen, slow, emptied, or cut off from one instance.

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

/// All calls were made and succeeded, and took next to no time.
#[track_caller]
fn undisturbed(calls: &Calls) {
    assert!(calls.ended.iter().all(|ended| *ended == Ended::value("fresh")), "{calls:?}");
    assert!(calls.took_us < 2_000_000, "{} calls took {} µs", calls.ended.len(), calls.took_us);
}

#[test]
fn with_redis_stopped_calls_neither_fail_nor_wait_and_failures_open_locally() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(3));
    undisturbed(&a.call(NAME, good(), 10));

    redis.stop();
    undisturbed(&a.call(NAME, good(), 1000));
    within_t("the loss is told", || a.events().contains(&Event::StoreLost));
    undisturbed(&a.call(NAME, good(), 1000));

    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected(), calls.ran), (3, 1, 3));
    assert_eq!(a.state(NAME), State::Open);
    within_t("it is known to be this instance's own doing", || a.look(NAME).local);
    within_t("and told", || {
        a.events().iter().any(|event| matches!(event, Event::Local(change) if change.to == State::Open))
    });
    assert_eq!(b.state(NAME), State::Closed);
    assert!(a.try_ask::<Value>(&Request::Fleet).is_err(), "who asks for the fleet gets an error");
    assert!(a.try_steer(NAME, Override::ForceOpen("away".into())).is_err(), "and so does an operator");
}

#[test]
fn failures_right_after_redis_has_gone_open_locally() {
    let redis = RedisServer::start();
    let a = instance(&redis.url(), &threshold(3));
    undisturbed(&a.call(NAME, good(), 10));
    // No time to notice that it has gone.
    redis.stop();
    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1));
    assert!(calls.took_us < 1_000_000, "{calls:?}");
}

#[test]
fn alone_an_instance_recovers_by_its_own_probes() {
    let redis = RedisServer::start();
    let config = json!({
        "failure_threshold": 2, "reset_timeout": "200ms", "half_open_max_calls": 2, "success_threshold": 2
    });
    let a = instance(&redis.url(), &config);
    redis.stop();
    a.fail(NAME, 2);
    assert_eq!(a.state(NAME), State::Open);
    within_t("it knows that it is alone", || a.events().contains(&Event::StoreLost));
    within_t("a probe is due", || a.look(NAME).retry_after_us == Some(0));
    let group = a.hold(NAME, 10);
    within_t("all are decided", || {
        let calls = a.progress(group);
        calls.ran + calls.ended.len() == 10
    });
    assert_eq!(a.progress(group).ran, 2, "its own limit");
    a.finish(group, good());
    assert_eq!(a.state(NAME), State::Closed);

    redis.restart();
    within_t("it has joined", || a.events().contains(&Event::StoreRestored));
    let fleet = a.fleet(NAME);
    assert_eq!((fleet.state, fleet.streak), (State::Closed, 0));
}

fn resident_kb(instance: &Instance) -> u64 {
    let ps = Command::new("ps").args(["-o", "rss=", "-p", &instance.pid().to_string()]).output();
    let text = String::from_utf8(ps.expect("ps can be run").stdout).expect("digits");
    text.trim().parse().expect("a number of kilobytes")
}

#[test]
fn with_redis_frozen_calls_go_on_nothing_grows_and_all_agree_after_the_thaw() {
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
    assert!(calls.took_us < 1_000_000, "{calls:?}");
    // It is a long freeze that is tested here: timeouts, retries and their limits all come by.
    std::thread::sleep(Duration::from_secs(10).saturating_sub(frozen.elapsed()));
    undisturbed(&b.call(NAME, good(), 1000));
    undisturbed(&c.call(NAME, good(), 1000));
    let grown = resident_kb(b).saturating_sub(before);
    assert!(grown < 4_000, "{grown} KB more than at the beginning");

    redis.thaw();
    within(Duration::from_secs(2), "all agree", || {
        let seen = fleet.each_ref().map(|instance| instance.look(NAME));
        let one = seen[0].clone();
        seen.iter().all(|s| !s.local && (s.state, s.epoch) == (one.state, one.epoch))
            && a.events().contains(&Event::StoreRestored)
    });
    // What had been counted meanwhile is counted once, by everyone.
    let expected = 55 * 2000;
    within_t("the counts are whole", || b.fleet("busy").failures == expected);
    assert_eq!(c.fleet("busy").successes, expected);
    // And the fleet goes on as one.
    for instance in &fleet {
        instance.create("after", threshold(2));
    }
    c.fail("after", 2);
    within_t("all open together", || fleet.iter().all(|i| i.is("after", State::Open)));
}

#[test]
fn failures_told_after_a_freeze_open_the_fleet() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(3));
    redis.freeze();
    a.fail(NAME, 3);
    assert_eq!(a.state(NAME), State::Open);
    within_t("it is alone", || a.look(NAME).local);
    redis.thaw();
    within(Duration::from_secs(2), "B is open", || b.is(NAME, State::Open));
    within_t("A is where the fleet is", || {
        let seen = a.look(NAME);
        !seen.local && seen.state == State::Open && seen.epoch == 1
    });
}

#[test]
fn an_emptied_redis_changes_nothing_for_an_open_circuit() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.fail(NAME, 2);
    all(&[&a, &b], State::Open);

    for round in 1..=3 {
        redis.cli(&["FLUSHALL"]);
        // A newcomer that never saw the time before.
        within_t("a newcomer finds it open", || {
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
    // The fleet still hears of changes: the stream that it followed is gone, too.
    b.steer(NAME, &Override::Reset);
    all(&[&a, &b], State::Closed);
    assert_eq!(a.look(NAME).epoch, 2);
    b.fail(NAME, 2);
    all(&[&a, &b], State::Open);
}

#[test]
fn an_emptied_redis_changes_nothing_for_a_circuit_that_is_forced_open() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.steer(NAME, &Override::ForceOpen("maintenance".into()));
    all(&[&a, &b], State::ForcedOpen);
    redis.cli(&["FLUSHALL"]);
    within_t("a newcomer finds it forced open", || {
        let seen = instance(&redis.url(), &threshold(2)).look(NAME);
        seen.state == State::ForcedOpen && seen.reason == "maintenance"
    });
    assert_eq!((a.state(NAME), b.state(NAME)), (State::ForcedOpen, State::ForcedOpen));
}

#[test]
fn a_redis_that_restarts_empty_changes_nothing_for_an_open_circuit() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(2));
    a.fail(NAME, 2);
    all(&[&a, &b], State::Open);
    redis.restart();
    within_t("a newcomer finds it open", || {
        instance(&redis.url(), &threshold(2)).look(NAME).state == State::Open
    });
    all(&[&a, &b], State::Open);
    assert_eq!((a.look(NAME).epoch, b.look(NAME).epoch), (1, 1));
}

#[test]
fn an_emptied_redis_while_closed_lets_counting_go_on() {
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
fn flushed_scripts_go_unnoticed() {
    let redis = RedisServer::start();
    let [a, b] = instances(&redis.url(), &threshold(4));
    for failures in 1..=3 {
        redis.cli(&["SCRIPT", "FLUSH"]);
        a.fail(NAME, 1);
        assert_eq!(a.fleet(NAME).streak, failures);
    }
    redis.cli(&["SCRIPT", "FLUSH"]);
    b.fail(NAME, 1);
    all(&[&a, &b], State::Open);
    for instance in [&a, &b] {
        assert!(instance.errors().is_empty(), "{:?}", instance.errors());
        assert!(!instance.events().contains(&Event::StoreLost));
    }
}

#[test]
fn without_redis_at_the_start_the_application_serves_and_joins_later() {
    let redis = RedisServer::start();
    redis.stop();
    let begun = Instant::now();
    let [a, b] = instances(&redis.url(), &threshold(3));
    assert!(begun.elapsed() < Duration::from_secs(5), "starting took {:?}", begun.elapsed());
    undisturbed(&a.call(NAME, good(), 1000));
    a.fail(NAME, 1);
    b.fail(NAME, 2);
    assert_eq!((a.state(NAME), b.state(NAME)), (State::Closed, State::Closed));
    assert!(a.errors().iter().any(|trouble| trouble.is_store), "{:?}", a.errors());

    redis.restart();
    // What each had counted alone counts together now: one and two are three.
    all(&[&a, &b], State::Open);
    within_t("both are part of the fleet", || {
        [&a, &b].iter().all(|i| !i.look(NAME).local && i.look(NAME).epoch == 1)
    });
}

#[test]
fn a_wrong_url_is_a_clear_error_at_once() {
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
        let order = Request::Install { url: Some(url.into()), namespace: "tests".into() };
        let begun = Instant::now();
        let error = Instance::bare().try_ask::<String>(&order).expect_err(url);
        assert!(begun.elapsed() < Duration::from_secs(5), "{url}");
        eprintln!("{url:?}: {error}");
        assert!(error.contains("address"), "{url}: {error}");
        assert!(error.contains("redis://"), "{url}: the error does not say what would be right: {error}");
        assert!(!error.contains("se:cret"), "{url}: the error tells the password: {error}");
    }
    let order = Request::Install { url: None, namespace: String::new() };
    let error = Instance::bare().try_ask::<String>(&order).unwrap_err();
    assert!(error.contains("namespace"), "{error}");
}

#[test]
fn who_is_cut_off_protects_itself_and_does_not_drag_the_fleet_along() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = instance(&proxy.url(), &threshold(3));
    let [b, c] = instances(&redis.url(), &threshold(3));
    undisturbed(&a.call(NAME, good(), 1));
    within_t("A is part of the fleet", || b.fleet(NAME).successes == 1);

    proxy.cut();
    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1));
    within_t("A knows that it is alone", || a.look(NAME).local);
    // Everyone else is fine all the while.
    let traffic = [&b, &c].map(|instance| instance.traffic(NAME, good(), Duration::from_millis(5)));
    within_t("B and C have told of many calls", || b.fleet(NAME).successes > 100);

    proxy.heal();
    let healed = Instant::now();
    within_t("A is where the fleet is", || {
        let seen = a.look(NAME);
        let agrees = seen.state == State::Closed && !seen.local;
        let late = || format!("{seen:?}, {:?}, {:?}, {:?}", b.fleet(NAME), a.events(), b.events());
        assert!(agrees || healed.elapsed() < PATIENCE, "{}", late());
        agrees
    });
    // A has told its failures by now; what they mean has been judged.
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
fn what_the_fleet_did_meanwhile_holds_for_who_was_cut_off() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = instance(&proxy.url(), &threshold(3));
    let [b, c] = instances(&redis.url(), &threshold(3));
    within_t("A is part of the fleet", || a.fleet(NAME).epoch == 0);
    proxy.cut();
    within_t("A knows that it is alone", || a.events().contains(&Event::StoreLost));
    b.fail(NAME, 3);
    all(&[&b, &c], State::Open);
    undisturbed(&a.call(NAME, good(), 10));

    proxy.heal();
    all(&[&a, &b, &c], State::Open);
    within_t("A has heard of the event", || a.transitions(NAME).len() == 1);
    assert_eq!(a.transitions(NAME)[0].originator, b.id());
    assert_eq!(b.look(NAME).epoch, 1);
}

#[test]
fn who_recovers_alone_does_not_close_the_fleet() {
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
    within_t("A knows that it is alone", || a.events().contains(&Event::StoreLost));
    within_t("A recovers by its own probe", || {
        a.call(NAME, good(), 1);
        a.is(NAME, State::Closed)
    });
    assert_eq!(b.look(NAME).epoch, 1);

    proxy.heal();
    within_t("A is where the fleet is", || {
        let seen = a.look(NAME);
        seen.state == State::Open && !seen.local && seen.epoch == 1
    });
    assert_eq!((b.state(NAME), b.fleet(NAME).epoch), (State::Open, 1));
    within_t("together they recover", || a.call(NAME, good(), 1).ran == 1);
    all(&[&a, &b], State::Closed);
}

#[test]
fn an_answer_that_is_lost_counts_nothing_twice() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = instance(&proxy.url(), &threshold(100));
    let b = instance(&redis.url(), &threshold(100));
    for round in 1..=5 {
        within_t("A is part of the fleet", || a.try_ask::<Value>(&Request::Fleet).is_ok());
        proxy.stall_answers();
        a.fail(NAME, 3);
        // All of them, or just the first: it is told at once, and what comes after it waits for the answer.
        within_t("failures have arrived", || b.fleet(NAME).failures > (round - 1) * 3);
        proxy.cut();
        proxy.heal();
        within_t("A is part of the fleet again", || a.try_ask::<Value>(&Request::Fleet).is_ok());
        assert_eq!(a.fleet(NAME).failures, round * 3);
        assert_eq!(b.fleet(NAME).streak, round * 3);
    }
}

#[test]
fn a_slow_redis_slows_no_call_down() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let [a, b] = instances(&proxy.url(), &threshold(3));
    proxy.slow(Duration::from_millis(150));
    undisturbed(&a.call(NAME, good(), 1000));
    let calls = a.fail(NAME, 4);
    assert_eq!((calls.failed(), calls.rejected()), (3, 1));
    assert!(calls.took_us < 500_000, "{calls:?}");
    all(&[&a, &b], State::Open);

    // Slower than anyone is willing to wait: as good as away.
    proxy.slow(Duration::from_secs(1));
    within(3 * T, "B is alone", || b.events().contains(&Event::StoreLost));
    let calls = b.call(NAME, good(), 1000);
    assert!(calls.all_rejected());
    assert!(calls.took_us < 2_000_000, "{} µs", calls.took_us);
    proxy.slow(Duration::ZERO);
    within(Duration::from_secs(2), "all agree", || {
        [&a, &b].iter().all(|i| {
            let seen = i.look(NAME);
            (seen.state, seen.epoch, seen.local) == (State::Open, 1, false)
        }) && b.events().contains(&Event::StoreRestored)
    });
}
