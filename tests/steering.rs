//! States held by hand: for the whole fleet, as long as they were meant to hold, by whom.

mod common;

use std::time::Duration;

use cb_runtime::State;
use cb_testkit::{Proxy, RedisServer};
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

/// Two instances with a breaker that opens at the third failure in a row.
fn pair(redis: &RedisServer) -> [Instance; 2] {
    [(); 2].map(|()| newcomer(redis))
}

fn newcomer(redis: &RedisServer) -> Instance {
    let instance = Instance::on(&redis.url());
    instance.create(NAME, json!({"failure_threshold": 3}));
    instance
}

/// Says it until the store has it: on a machine that stalls, the answer may be lost.
#[track_caller]
fn order_as(instance: &Instance, word: &Override, actor: &str, at_most: Option<Duration>) {
    within_t("the store has the operator's word", || {
        instance.try_steer_as(NAME, word.clone(), actor, at_most).is_ok()
    });
}

#[track_caller]
fn all_are(fleet: &[&Instance], state: State) {
    within_t(&format!("all are {state}"), || fleet.iter().all(|instance| instance.is(NAME, state)));
}

#[test]
fn forced_open_outlives_every_instance_with_its_reason_and_its_actor() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    order_as(&a, &force("migration"), "alice", None);
    all_are(&[&a, &b], State::ForcedOpen);
    assert_eq!(b.look(NAME).actor, "alice");
    assert_eq!(b.fleet(NAME).actor, "alice");
    within_t("B has heard who it was", || b.transitions(NAME).iter().any(|change| change.actor == "alice"));
    a.kill();
    b.kill();
    // Not only for an hour, as what is closed and idle.
    assert_eq!(redis.cli(&["TTL", &format!("cb1:{{tests}}:b:{NAME}")]).trim(), "-1");
    let c = newcomer(&redis);
    assert!(c.call(NAME, good(), 3).all_rejected());
    let seen = c.look(NAME);
    assert_eq!((&*seen.reason, &*seen.actor, seen.retry_after_us), ("migration", "alice", None));
    order_as(&c, &Override::Release, "bob", None);
    let d = newcomer(&redis);
    assert_eq!(d.call(NAME, good(), 3).ran, 3);
    assert_eq!(d.fleet(NAME).actor, "bob", "who has released it");
}

#[test]
fn an_order_that_the_store_cannot_take_is_an_error_and_is_not_carried_out_later() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    b.steer(NAME, &Override::Disable("so that there is something to release".into()));
    all_are(&[&a, &b], State::Disabled);
    redis.freeze();
    a.try_steer(NAME, force("no answer")).unwrap_err();
    redis.stop();
    within_t("A knows that it is alone", || a.events().contains(&Event::StoreLost));
    for word in [
        force("no"),
        Override::MetricsOnly("no".into()),
        Override::Disable("no".into()),
        Override::Release,
        Override::Reset,
    ] {
        a.try_steer(NAME, word).unwrap_err();
    }
    let reset_all: Result<(), String> = a.try_ask(&Request::ResetAll);
    reset_all.unwrap_err();
    assert_eq!(a.state(NAME), State::Disabled);
    redis.restart();
    for instance in [&a, &b] {
        within(2 * T, "it is back", || instance.events().contains(&Event::StoreRestored));
        assert_eq!(instance.state(NAME), State::Disabled);
        assert_eq!(instance.look(NAME).epoch, 1, "nothing was changed");
    }
}

#[test]
fn metrics_only_rejects_nothing_counts_and_tells_once_when_it_would_have_opened() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    a.steer(NAME, &Override::MetricsOnly("first we watch".into()));
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
    // B's own failure, after those that the fleet has told it of.
    within_t("the fleet has counted", || b.fleet(NAME).failures == 12 && b.look(NAME).streak == 12);
    within_t("B tells it, too", || would_have_opened(&b).len() == 1);
    assert_eq!(b.fail(NAME, 5).rejected(), 0);
    assert_eq!(would_have_opened(&b).len(), 1, "once, not for every call");
    // It would have closed, and opened again.
    a.succeed(NAME, 1);
    a.fail(NAME, 3);
    within_t("told again", || would_have_opened(&a).len() == 2);
    assert_eq!((a.state(NAME), a.look(NAME).epoch), (State::MetricsOnly, 1));
    // Durable, and taken back.
    let c = newcomer(&redis);
    assert_eq!(c.fail(NAME, 5).ran, 5);
    c.steer(NAME, &Override::Release);
    all_are(&[&a, &b, &c], State::Closed);
    a.fail(NAME, 3);
    all_are(&[&a, &b, &c], State::Open);
}

#[test]
fn metrics_only_tells_once_of_a_dependency_that_asks_for_time_too() {
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
    let told: Vec<_> = a.events().into_iter().filter(would_have).collect();
    let reason = "the dependency asked for 1m (open_for)".into();
    assert_eq!(told, [Event::WouldHaveOpened { breaker: "obedient".into(), reason }]);
}

#[test]
fn what_is_held_for_some_time_ends_for_all_and_once() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    for (turn, word) in
        [force("for now"), Override::Disable("for now".into()), Override::MetricsOnly("for now".into())]
            .into_iter()
            .enumerate()
    {
        let first = 2 * turn as u64 + 1;
        order_as(&a, &word, "alice", Some(Duration::from_millis(600)));
        within_t("B has it", || b.look(NAME).epoch >= first);
        within(2 * T, "it is over", || [&a, &b].iter().all(|i| i.look(NAME).epoch == first + 1));
        all_are(&[&a, &b], State::Closed);
    }
    for instance in [&a, &b] {
        within_t("all changes were heard", || instance.transitions(NAME).len() == 6);
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
fn a_newcomer_after_the_expiry_finds_it_closed() {
    let redis = RedisServer::start();
    let a = newcomer(&redis);
    order_as(&a, &force("for now"), "alice", Some(Duration::from_millis(300)));
    // Nobody is there to end it.
    a.kill();
    let b = newcomer(&redis);
    within(T + Duration::from_millis(300), "it is closed", || b.is(NAME, State::Closed));
    assert_eq!(b.fleet(NAME).state, State::Closed);
    assert_eq!(b.succeed(NAME, 1).rejected(), 0);
}

#[test]
fn an_instance_that_is_cut_off_leaves_what_has_expired_and_stays_so_after_the_heal() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.port());
    let a = Instance::on(&proxy.url());
    a.create(NAME, json!({"failure_threshold": 3}));
    order_as(&a, &force("for now"), "alice", Some(Duration::from_secs(2)));
    assert!(a.call(NAME, good(), 1).all_rejected());
    proxy.cut();
    within_t("A knows that it is alone", || a.events().contains(&Event::StoreLost));
    within(3 * T, "A has left it by itself", || a.is(NAME, State::Closed));
    let seen = a.look(NAME);
    assert_eq!((seen.local, seen.epoch, &*seen.reason), (true, 1, "expired"));
    proxy.heal();
    within(2 * T, "the fleet has left it, too", || a.fleet(NAME).epoch == 2);
    assert_eq!(a.state(NAME), State::Closed);
    within_t("A has heard of it", || a.transitions(NAME).len() >= 2);
    let changes: Vec<_> = a.transitions(NAME).into_iter().map(|change| change.to).collect();
    assert_eq!(changes, [State::ForcedOpen, State::Closed], "and not back and forth");
}

#[test]
fn a_release_counts_even_where_the_force_has_not_been_heard_of() {
    let redis = RedisServer::start();
    let [a, b] = pair(&redis);
    for turn in 0..20_u64 {
        a.steer(NAME, &force("x"));
        b.steer(NAME, &Override::Release);
        assert_eq!(b.look(NAME).epoch, 2 * turn + 2, "it was forced open, and released");
        assert_eq!(b.state(NAME), State::Closed);
    }
    // What is not held by hand is left alone.
    all_are(&[&a, &b], State::Closed);
    a.fail(NAME, 3);
    all_are(&[&a, &b], State::Open);
    b.steer(NAME, &Override::Release);
    assert_eq!(b.state(NAME), State::Open);
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
    within_t("the fleet has it", || names.iter().all(|name| b.fleet(name).state != State::Closed));
    within_t("B resets them all, though it has none of them", || {
        let reset: Result<(), String> = b.try_ask(&Request::ResetAll);
        reset.is_ok()
    });
    for name in &names {
        assert_eq!(b.fleet(name).state, State::Closed);
        within_t("A follows", || a.is(name, State::Closed));
    }
}
