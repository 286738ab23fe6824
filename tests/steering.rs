//! Manual overrides: their effect on the fleet, their expiry, and their actor.

mod common;

use std::time::Duration;

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::json;

use common::protocol::{Act, Ended, Event, Function, Override, Request};
use common::{Instance, T, within, within_t};

const NAME: &str = "orders";

fn good() -> Act {
    Act::Succeed(None)
}

fn force(reason: &str) -> Override {
    Override::ForceOpen(reason.into())
}

/// Two instances with a breaker that opens at the third consecutive failure.
fn pair(redis: &RedisServer) -> [Instance; 2] {
    [(); 2].map(|()| new_instance(redis))
}

fn new_instance(redis: &RedisServer) -> Instance {
    let instance = Instance::on(&redis.url());
    instance.create(NAME, json!({"failure_threshold": 3}));
    instance
}

/// Steers a breaker and repeats that until the store has it: on a machine that stalls, an answer may be lost.
#[track_caller]
fn steer_as(instance: &Instance, action: &Override, actor: &str, expires_in: Option<Duration>) {
    within_t("the store has the override", || {
        instance.try_steer_as(NAME, action.clone(), actor, expires_in).is_ok()
    });
}

#[track_caller]
fn all_are(fleet: &[&Instance], state: State) {
    within_t(&format!("all are {state}"), || fleet.iter().all(|instance| instance.is(NAME, state)));
}

#[test]
fn forced_open_survives_all_instances_with_reason_and_actor() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    steer_as(&a, &force("migration"), "alice", None);
    all_are(&[&a, &b], State::ForcedOpen);
    assert_eq!(b.look(NAME).actor, "alice");
    assert_eq!(b.fleet(NAME).actor, "alice");
    within_t("B has observed the actor", || b.transitions(NAME).iter().any(|change| change.actor == "alice"));
    a.kill();
    b.kill();
    // Unlike a closed breaker's key, it does not expire after an hour.
    assert_eq!(redis.cli(&["TTL", &format!("cb1:{{tests}}:b:{NAME}")]).trim(), "-1");
    let c = new_instance(&redis);
    assert!(c.call(NAME, good(), 3).all_rejected());
    let seen = c.look(NAME);
    assert_eq!((&*seen.reason, &*seen.actor, seen.retry_after_us), ("migration", "alice", None));
    steer_as(&c, &Override::Release, "bob", None);
    let d = new_instance(&redis);
    assert_eq!(d.call(NAME, good(), 3).ran, 3);
    assert_eq!(d.fleet(NAME).actor, "bob", "the actor of the release");
}

#[test]
fn override_without_a_store_is_an_error_and_is_not_applied_later() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    b.steer(NAME, &Override::Disable("for a release".into()));
    all_are(&[&a, &b], State::Disabled);
    redis.freeze();
    a.try_steer(NAME, force("no answer")).unwrap_err();
    redis.stop();
    within_t("A notices the loss", || a.events().contains(&Event::StoreLost));
    for action in [
        force("no"),
        Override::MetricsOnly("no".into()),
        Override::Disable("no".into()),
        Override::Release,
        Override::Reset,
    ] {
        a.try_steer(NAME, action).unwrap_err();
    }
    let reset_all: Result<(), String> = a.try_ask(&Request::ResetAll);
    reset_all.unwrap_err();
    assert_eq!(a.state(NAME), State::Disabled);
    redis.restart();
    for instance in [&a, &b] {
        within(2 * T, "the store is restored", || instance.events().contains(&Event::StoreRestored));
        assert_eq!(instance.state(NAME), State::Disabled);
        assert_eq!(instance.look(NAME).epoch, 1, "no override was applied");
    }
}

#[test]
fn metrics_only_counts_and_reports_each_trip_once() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    a.steer(NAME, &Override::MetricsOnly("observe first".into()));
    all_are(&[&a, &b], State::MetricsOnly);
    let would_have_opened = |instance: &Instance| {
        let reasons = instance.events().into_iter().filter_map(|event| match event {
            Event::WouldHaveOpened { breaker, reason } if breaker == NAME => Some(reason),
            _ => None,
        });
        reasons.collect::<Vec<_>>()
    };
    a.fail(NAME, 2);
    assert_eq!(would_have_opened(&a), Vec::<String>::new());
    let calls = a.fail(NAME, 10);
    assert_eq!((calls.ran, calls.rejected()), (10, 0));
    assert_eq!(would_have_opened(&a), ["3 consecutive failures (limit 3)"]);
    // B's own failure, after those of the fleet.
    within_t("the store has counted all failures", || {
        b.fleet(NAME).failures == 12 && b.look(NAME).streak == 12
    });
    within_t("B reports it, too", || would_have_opened(&b).len() == 1);
    assert_eq!(b.fail(NAME, 5).rejected(), 0);
    assert_eq!(would_have_opened(&b).len(), 1, "once per trip, not per call");
    // The streak ends and reaches the limit again.
    a.succeed(NAME, 1);
    a.fail(NAME, 3);
    within_t("a second report", || would_have_opened(&a).len() == 2);
    assert_eq!((a.state(NAME), a.look(NAME).epoch), (State::MetricsOnly, 1));
    // The override is durable, and can be released.
    let c = new_instance(&redis);
    assert_eq!(c.fail(NAME, 5).ran, 5);
    c.steer(NAME, &Override::Release);
    all_are(&[&a, &b, &c], State::Closed);
    a.fail(NAME, 3);
    all_are(&[&a, &b, &c], State::Open);
}

#[test]
fn metrics_only_reports_open_for_once() {
    let redis = RedisServer::start();
    let a = Instance::on(&redis.url());
    a.configure(Function::Obedient, json!({"failure_threshold": 100}));
    a.run(Function::Obedient, 1, good());
    within_t("the store has it", || a.try_steer("obedient", Override::MetricsOnly("watch".into())).is_ok());
    for _ in 0..5 {
        assert_eq!(a.run(Function::Obedient, 1, Act::RetryAfter(60_000)), Ended::Failed);
    }
    assert_eq!(a.state("obedient"), State::MetricsOnly);
    let would_have = |event: &Event| matches!(event, Event::WouldHaveOpened { .. });
    let reports: Vec<_> = a.events().into_iter().filter(would_have).collect();
    let reason = "the dependency asked for 1m (open_for)".into();
    assert_eq!(reports, [Event::WouldHaveOpened { breaker: "obedient".into(), reason }]);
}

#[test]
fn expiring_override_ends_once_for_the_fleet() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    for (turn, action) in
        [force("for now"), Override::Disable("for now".into()), Override::MetricsOnly("for now".into())]
            .into_iter()
            .enumerate()
    {
        let first = 2 * turn as u64 + 1;
        steer_as(&a, &action, "alice", Some(Duration::from_millis(600)));
        within_t("B has it", || b.look(NAME).epoch >= first);
        within(2 * T, "the override has expired", || {
            [&a, &b].iter().all(|i| i.look(NAME).epoch == first + 1)
        });
        all_are(&[&a, &b], State::Closed);
    }
    for instance in [&a, &b] {
        within_t("all transitions are observed", || instance.transitions(NAME).len() == 6);
        for change in instance.transitions(NAME) {
            let expiry = change.to == State::Closed;
            assert_eq!(change.reason, if expiry { "expired" } else { "for now" });
            assert_eq!(change.actor, if expiry { "" } else { "alice" });
        }
    }
    assert_eq!(a.fail(NAME, 3).ran, 3);
    all_are(&[&a, &b], State::Open);
}

#[test]
fn new_instance_after_the_expiry_finds_it_closed() {
    let redis = RedisServer::start();
    let a = new_instance(&redis);
    steer_as(&a, &force("for now"), "alice", Some(Duration::from_millis(300)));
    // No instance is left to end the override.
    a.kill();
    let b = new_instance(&redis);
    within(T + Duration::from_millis(300), "the override has expired", || b.is(NAME, State::Closed));
    assert_eq!(b.fleet(NAME).state, State::Closed);
    assert_eq!(b.succeed(NAME, 1).rejected(), 0);
}

#[test]
fn reset_all_closes_every_breaker_of_the_fleet() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    let names: Vec<_> = (0..30).map(|n| format!("breaker {n}")).collect();
    for (n, name) in names.iter().enumerate() {
        a.create(name, json!({"failure_threshold": 1}));
        match n % 3 {
            0 => a.steer(name, &force("x")),
            _ => assert_eq!(a.fail(name, 1).ran, 1),
        }
    }
    within_t("the store has all states", || names.iter().all(|name| b.fleet(name).state != State::Closed));
    within_t("B resets all, without having registered any", || {
        let reset: Result<(), String> = b.try_ask(&Request::ResetAll);
        reset.is_ok()
    });
    for name in &names {
        assert_eq!(b.fleet(name).state, State::Closed);
        within_t("A follows", || a.is(name, State::Closed));
    }
}
