//! Health checks: one instance of the fleet asks the dependency, in place of live traffic.

mod common;

use std::array;
use std::time::Duration;

use cb_runtime::State;
use cb_testkit::RedisServer;
use serde_json::{Value, json};

use common::protocol::{Act, CheckStep, Ended, Event, Override};
use common::{Checks, Instance, T, within, within_t};

const NAME: &str = "orders";
const KEY: &str = "cb1:{tests}:b:orders";
/// The role lapses so long after its holder was last heard of.
const LEASE: Duration = Duration::from_secs(2);

fn down() -> CheckStep {
    CheckStep::Fail("down".into())
}

/// One failure opens. Where results matter, the interval must leave a check enough time on a busy machine.
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

/// An instance whose guarded code fails opens the circuit.
#[track_caller]
fn open(instance: &Instance) {
    assert_eq!(instance.fail(NAME, 1).failed(), 1);
}

#[track_caller]
fn all(instances: &[Instance], state: State) {
    within_t(&format!("all are {state}"), || instances.iter().all(|i| i.is(NAME, state)));
}

#[track_caller]
fn checked(checks: &Checks, times: usize) {
    within_t(&format!("{times} checks are made"), || checks.count() >= times);
}

/// Who has the role, as Redis knows it.
fn leader(redis: &RedisServer) -> String {
    redis.cli(&["HGET", KEY, "leader"])
}

/// Whether all have had Redis all along. Where the machine stalls for so long that an instance takes Redis
/// for lost, it checks by itself, and what is shown here does not apply.
fn together(instances: &[Instance]) -> bool {
    let together = instances.iter().all(|instance| !instance.events().contains(&Event::StoreLost));
    if !together {
        eprintln!("took Redis for lost: this machine stalls; once more");
    }
    together
}

/// Shows `scenario`, which says whether all were [`together`] while it lasted.
fn show(scenario: impl Fn() -> bool) {
    assert!((0..5).any(|_| scenario()), "this machine is too busy");
}

#[test]
fn one_instance_of_five_checks_until_one_passes() {
    show(|| {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[down(), down(), down(), CheckStep::Pass]);
        let fleet: [Instance; 5] = instances(&redis, &config("1s"), &checks);
        open(&fleet[2]);
        within(Duration::from_secs(4) + T, "four checks are made", || checks.count() >= 4);
        all(&fleet, State::Closed);
        within_t("nobody has the role any more", || leader(&redis).is_empty());
        if !together(&fleet) {
            return false;
        }

        let made_by = checks.pids();
        assert_eq!(made_by.len(), 4);
        assert!(made_by.iter().all(|maker| *maker == made_by[0]), "{made_by:?}");
        let maker = checks.latest_checker(&fleet).expect("one of the fleet");
        let failed = || Err("down".to_owned());
        assert_eq!(maker.checks(NAME), [failed(), failed(), failed(), Ok(())]);
        for instance in &fleet {
            within_t("both changes are told", || instance.transitions(NAME).len() == 2);
            let changes = instance.transitions(NAME);
            assert_eq!((changes[0].to, changes[1].to), (State::Open, State::Closed), "and no others");
            assert_eq!(changes[1].reason, "health check passed after 3 failures");
            assert_eq!(changes[1].originator, maker.id());
            assert_eq!(instance.checks(NAME).is_empty(), instance.id() != maker.id());
        }
        let seen = maker.look(NAME);
        assert_eq!((seen.failures, seen.successes), (0, 0), "checks are no calls");
        true
    });
}

#[test]
fn while_open_live_traffic_does_not_probe_and_is_told_to_come_back_within_an_interval() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 2] = instances(&redis, &config("300ms"), &checks);
    open(&fleet[0]);
    all(&fleet, State::Open);
    for round in 1..=4 {
        checked(&checks, round);
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
    assert_eq!(fleet[0].fleet(NAME).epoch, 1, "a failed check is no change");
}

#[test]
fn checks_that_hang_block_or_panic_count_as_failed_and_the_next_one_is_made() {
    let redis = RedisServer::start();
    let script = [CheckStep::Hang, CheckStep::Block, CheckStep::Panic, CheckStep::Block, CheckStep::Pass];
    let checks = Checks::scripted(&script);
    let [a] = instances(&redis, &config("1s"), &checks);
    open(&a);
    within(Duration::from_secs(5) + T, "all are made", || checks.count() >= script.len());
    within_t("the last one closes", || a.is(NAME, State::Closed));
    let results = a.checks(NAME);
    let timed_out = || Err("no result within 1s".to_owned());
    assert_eq!(results, [timed_out(), timed_out(), Err("panicked".into()), timed_out(), Ok(())]);
    assert_eq!(a.call(NAME, Act::Succeed(None), 1).ended, [Ended::Value(None)]);
}

#[test]
fn a_killed_leader_is_replaced_within_the_lease() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 3] = instances(&redis, &config("200ms"), &checks);
    open(&fleet[0]);
    checked(&checks, 2);
    let first = checks.latest_checker(&fleet).expect("one of the fleet").pid();
    fleet.iter().find(|instance| instance.pid() == first).expect("it is").kill();
    within(LEASE + T, "another one checks", || checks.pids().last() != Some(&first));

    checks.set_script(&[CheckStep::Pass]);
    let rest: Vec<_> = fleet.iter().filter(|instance| instance.pid() != first).collect();
    within_t("the others are closed", || rest.iter().all(|instance| instance.is(NAME, State::Closed)));
}

#[test]
fn a_paused_leader_leaves_the_role_to_who_has_taken_it_over() {
    show(|| {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[down()]);
        let fleet: [Instance; 2] = instances(&redis, &config("500ms"), &checks);
        open(&fleet[0]);
        checked(&checks, 1);
        let first = checks.latest_checker(&fleet).expect("one of the fleet");
        first.pause();
        within(LEASE + T, "the other one checks", || checks.pids().last() != Some(&first.pid()));
        let taken_over = checks.count();
        first.resume();
        checked(&checks, taken_over + 4);
        // One that was paused for so long may find that Redis has not answered; it is alone for a moment, which
        // is not long enough for a check of its own (unless the machine stalls).
        let later = &checks.pids()[taken_over - 1..];
        let kept = later.iter().all(|maker| *maker != first.pid());
        assert!(kept || !together(&fleet), "{later:?}");
        kept
    });
}

#[test]
fn a_leader_that_stops_in_good_order_is_replaced_within_a_second() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 3] = instances(&redis, &config("100ms"), &checks);
    open(&fleet[0]);
    checked(&checks, 2);
    let first = checks.latest_checker(&fleet).expect("one of the fleet");
    first.shut_down();
    assert_ne!(leader(&redis), first.id(), "given up, and not just left to lapse");
    within(Duration::from_secs(1), "another one checks", || checks.pids().last() != Some(&first.pid()));
    let made = checks.pids();
    checked(&checks, made.len() + 3);
    let later = &checks.pids()[made.len()..];
    assert!(!later.contains(&first.pid()), "who has stopped checks no more: {later:?}");
}

#[test]
fn who_has_lost_the_role_does_not_act_on_a_result_that_it_was_waiting_for() {
    show(|| {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[CheckStep::PassAfter("go".into()), down()]);
        let fleet: [Instance; 1] = instances(&redis, &config("8s"), &checks);
        let [a] = &fleet;
        // Open for a moment only: the first check comes when the opening's time is over.
        open(a);
        within(Duration::from_secs(8) + T, "the first check is under way", || checks.count() == 1);
        // Another instance takes the role over, as it might after a long pause of this one.
        let token: u64 = redis.cli(&["HGET", KEY, "leader_token"]).parse().expect("a number");
        let [later, token] = [token + 3_600_000_000, token + 1].map(|number| number.to_string());
        redis.cli(&["HSET", KEY, "leader", "another", "leader_token", &token, "leader_until_us", &later]);
        checks.signal("go");
        within_t("the check ends", || a.checks(NAME).len() == 1);
        if !together(&fleet) {
            return false;
        }
        assert_eq!(a.checks(NAME), [Ok(())]);
        let fleet_has = a.fleet(NAME);
        assert_eq!((fleet_has.state, fleet_has.epoch), (State::Open, 1), "nothing has come of it");
        within_t("nor here", || a.is(NAME, State::Open));

        // The other one has gone.
        redis.cli(&["HSET", KEY, "leader_until_us", "0"]);
        checks.set_script(&[CheckStep::Pass]);
        within(Duration::from_secs(8) + T, "it checks again", || a.is(NAME, State::Closed));
        true
    });
}

#[test]
fn a_failed_idle_check_opens_and_the_next_one_that_passes_closes() {
    show(|| {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[CheckStep::Pass, down(), CheckStep::Pass]);
        let mut config = config("1s");
        config["idle_health_check_interval"] = json!("300ms");
        let fleet: [Instance; 2] = instances(&redis, &config, &checks);
        for instance in &fleet {
            let due = Duration::from_secs(2) + T;
            within(due, "both changes are told", || instance.transitions(NAME).len() == 2);
            let changes = instance.transitions(NAME);
            assert_eq!(changes[0].reason, "health check failed: down");
            assert_eq!(changes[1].reason, "health check passed");
            assert_eq!((changes[0].to, changes[1].to), (State::Open, State::Closed));
        }
        let made = checks.count();
        checked(&checks, made + 2);
        let makers = checks.pids();
        if !together(&fleet) {
            return false;
        }
        assert!(makers.iter().all(|maker| *maker == makers[0]), "idle checks keep the role: {makers:?}");
        all(&fleet, State::Closed);
        true
    });
}

#[test]
fn the_role_of_idle_checks_is_handed_over_too() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[CheckStep::Pass]);
    let mut config = config("100ms");
    config["idle_health_check_interval"] = json!("100ms");
    let fleet: [Instance; 3] = instances(&redis, &config, &checks);
    checked(&checks, 1);
    let first = checks.latest_checker(&fleet).expect("one of the fleet");
    first.shut_down();
    assert_ne!(leader(&redis), first.id(), "given up, and not just left to lapse");
    within(Duration::from_secs(1), "another one checks", || checks.pids().last() != Some(&first.pid()));
    let second = *checks.pids().last().expect("many");
    fleet.iter().find(|instance| instance.pid() == second).expect("it is").kill();
    within(LEASE + T, "and the third", || {
        checks.pids().last().is_some_and(|last| *last != first.pid() && *last != second)
    });
}

#[test]
fn the_result_of_a_check_that_an_operator_has_overtaken_does_nothing() {
    for word in [Override::ForceOpen("maintenance".into()), Override::Reset] {
        let redis = RedisServer::start();
        let checks = Checks::scripted(&[CheckStep::PassAfter("go".into())]);
        let mut config = config("3s");
        config["failure_threshold"] = json!(1);
        let [a] = instances(&redis, &config, &checks);
        open(&a);
        within(Duration::from_secs(3) + T, "the check is under way", || checks.count() == 1);
        a.steer(NAME, &word);
        let before = a.fleet(NAME);
        checks.signal("go");
        within_t("the check ends", || !a.checks(NAME).is_empty());
        let after = a.fleet(NAME);
        assert_eq!((after.state, after.epoch), (before.state, before.epoch), "{word:?}");
        assert_eq!(a.state(NAME), before.state);
        within_t("and nobody has the role", || leader(&redis).is_empty());
    }
}

#[test]
fn without_redis_every_instance_checks_for_itself_and_afterwards_the_fleet_agrees() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let fleet: [Instance; 2] = instances(&redis, &config("200ms"), &checks);
    open(&fleet[0]);
    all(&fleet, State::Open);
    checked(&checks, 1);
    redis.stop();
    within_t("both check", || fleet.iter().all(|instance| checks.pids().contains(&instance.pid())));
    checks.set_script(&[CheckStep::Pass]);
    all(&fleet, State::Closed);
    for instance in &fleet {
        assert!(instance.look(NAME).local, "by itself");
    }

    // The others' word counts again; and it is found once more that the dependency works.
    redis.restart();
    let agreed = || {
        let shared = fleet[0].try_ask::<common::protocol::FleetRows>(&common::protocol::Request::Fleet);
        let closed = shared.is_ok_and(|rows| rows.get(NAME).is_none_or(|row| row.state == State::Closed));
        closed && fleet.iter().all(|instance| instance.look(NAME).state == State::Closed)
    };
    within_t("all are closed, in Redis, too", agreed);
    within_t("and none of them alone", || fleet.iter().all(|instance| !instance.look(NAME).local));
}

#[test]
fn a_newcomer_checks_where_nobody_does() {
    let redis = RedisServer::start();
    let checks = Checks::scripted(&[down()]);
    let [a] = instances(&redis, &config("200ms"), &checks);
    open(&a);
    checked(&checks, 1);
    a.kill();
    checks.set_script(&[CheckStep::Pass]);
    let [b] = instances(&redis, &config("200ms"), &checks);
    assert_eq!(b.state(NAME), State::Open);
    within(LEASE + T, "the newcomer has found out that it works", || b.is(NAME, State::Closed));
}

#[test]
fn a_reload_that_asks_for_checks_more_often_is_followed_at_once() {
    let redis = RedisServer::start();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let say = |text| std::fs::write(file.path(), text).unwrap();
    say("[breakers.orders]\nhealth_check_interval = '1h'\n");
    let checks = Checks::scripted(&[down(), CheckStep::Pass]);
    let fleet: [Instance; 2] = array::from_fn(|_| {
        let instance = Instance::configured(&redis.url(), file.path(), &[]);
        instance.create_checked(NAME, json!({"failure_threshold": 1}), &checks);
        instance
    });
    open(&fleet[0]);
    all(&fleet, State::Open);
    say("[breakers.orders]\nhealth_check_interval = '500ms'\nidle_health_check_interval = '1h'\n");
    for instance in &fleet {
        instance.reload(file.path()).unwrap();
    }
    all(&fleet, State::Closed);
    let made = checks.count();
    say("[breakers.orders]\nhealth_check_interval = '500ms'\nidle_health_check_interval = '50ms'\n");
    for instance in &fleet {
        instance.reload(file.path()).unwrap();
    }
    checked(&checks, made + 3);
}
