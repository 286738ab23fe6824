//! Damaged keys in Redis are reported and survived, and other breakers are not affected.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cb_runtime::{Breaker, BreakerConfig, Error, Registry, State};
use cb_testkit::{RedisServer, Reply, wait_until};

use common::{PATIENCE, block_on, within_t};

const VICTIM: &str = "victim";
const OTHER: &str = "other";

/// An instance with two breakers.
struct Member {
    registry: Registry,
    victim: Breaker,
    other: Breaker,
    errors: Arc<Mutex<Vec<Error>>>,
}

impl Member {
    fn of(redis: &RedisServer, namespace: &str) -> Member {
        let errors = Arc::new(Mutex::new(Vec::new()));
        let reported = errors.clone();
        let registry = Registry::builder()
            .redis(redis.url())
            .namespace(namespace)
            .on_error(move |error| reported.lock().unwrap().push(error.clone()))
            .build()
            .unwrap();
        // Several rules, so that every kind of key exists.
        let config = BreakerConfig::default()
            .failure_threshold(3)
            .failure_rate_threshold(0.9)
            .minimum_calls(1000)
            .half_open_max_calls(1)
            .reset_timeout(Duration::from_millis(50));
        let victim = registry.get_or_create(VICTIM, config);
        let config = BreakerConfig::default().failure_threshold(3).reset_timeout(Duration::from_secs(3600));
        let other = registry.get_or_create(OTHER, config);
        Member { registry, victim, other, errors }
    }

    fn data_errors(&self) -> Vec<String> {
        self.errors.lock().unwrap().iter().filter(|e| e.is_data()).map(ToString::to_string).collect()
    }
}

/// Makes a call that must end, with any result.
#[track_caller]
fn call(breaker: &Breaker, success: bool) {
    let call = breaker.call(async || if success { Ok(()) } else { Err("broken") });
    let _any_result = block_on(call);
}

/// The victim's state at the time of the damage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Closed,
    Open,
    HalfOpen,
}

/// Two instances that have made calls and reported them.
fn fleet(redis: &RedisServer, namespace: &str, stage: Stage) -> [Member; 2] {
    let fleet = [Member::of(redis, namespace), Member::of(redis, namespace)];
    let [a, b] = &fleet;
    call(&a.victim, true);
    call(&b.other, true);
    call(&a.victim, false);
    if stage != Stage::Closed {
        call(&a.victim, false);
        call(&a.victim, false);
        within_t("both are open", || a.victim.state() == State::Open && b.victim.state() == State::Open);
    }
    if stage == Stage::HalfOpen {
        wait_until(PATIENCE, "a probe is made", || block_on(a.victim.call(async || Ok::<_, ()>(()))).is_ok());
    }
    wait_until(PATIENCE, "all counts are reported", || {
        fleet.iter().all(|m| block_on(m.registry.fleet()).is_ok())
    });
    fleet
}

fn keys(redis: &RedisServer, namespace: &str) -> Vec<String> {
    let keys = redis.command(&["KEYS", "cb1:*"]).items().into_iter().map(|key| key.text());
    let tag = format!("{{{namespace}}}");
    let mut keys: Vec<_> = keys.filter(|key| key.contains(&tag)).collect();
    keys.sort();
    keys
}

const NONSENSE: [&str; 10] = [
    "",
    "garbage",
    "-1",
    "nan",
    "1e400",
    "99999999999999999999999999",
    "0x10",
    "\u{0}\u{ff}",
    "9007199254740993",
    "{\"a\":[",
];

/// Applies damage `number` to a key and returns its description; `None` if the key's type has no such damage.
fn damage(redis: &RedisServer, key: &str, number: usize) -> Option<String> {
    let kind = redis.cli(&["TYPE", key]);
    let other_type = if kind == "hash" { &["RPUSH", key, "x"][..] } else { &["HSET", key, "x", "y"][..] };
    match number {
        0 => {
            // In one step: an instance may use the key at any moment.
            let script = "redis.call('DEL', KEYS[1]) return redis.call(unpack(ARGV))";
            redis.cli(&[&["EVAL", script, "1", key], other_type].concat());
            return Some(format!("{key} is no longer a {kind}"));
        }
        1 => {
            redis.cli(&["DEL", key]);
            redis.cli(&["SET", key, "garbage"]);
            return Some(format!("{key} is a string instead of a {kind}"));
        }
        2 => {
            redis.cli(&["DEL", key]);
            return Some(format!("{key} is gone"));
        }
        _ => {}
    }
    let nonsense = *NONSENSE.get(number - 3)?;
    match &*kind {
        "hash" => {
            for field in redis.command(&["HKEYS", key]).items() {
                redis.cli(&["HSET", key, &field.text(), nonsense]);
            }
            redis.cli(&["HSET", key, nonsense, nonsense]);
        }
        "string" => {
            redis.cli(&["SET", key, nonsense]);
        }
        "stream" => {
            redis.cli(&["XADD", key, "*", "n", nonsense, nonsense, "x"]);
            redis.cli(&["XADD", key, "*", "epoch", nonsense]);
        }
        "zset" => {
            let members = redis.command(&["ZRANGE", key, "0", "-1"]).items();
            let score = if number.is_multiple_of(2) { "inf" } else { "-inf" };
            for member in members {
                redis.cli(&["ZADD", key, score, &member.text()]);
            }
            redis.cli(&["ZADD", key, "1", nonsense]);
        }
        "set" => {
            redis.cli(&["SADD", key, nonsense]);
        }
        "list" => {
            redis.cli(&["RPUSH", key, nonsense]);
            redis.cli(&["LSET", key, "0", nonsense]);
        }
        other => panic!("{key} is a {other}, which this test does not know how to damage"),
    }
    Some(format!("{key} ({kind}) is full of {nonsense:?}"))
}

/// Applies one damage to one key of a fleet and asserts what must still hold. `false`: there is no such case.
fn survive(redis: &RedisServer, key_number: usize, number: usize, stage: Stage) -> bool {
    let namespace = format!("n{key_number}-{number}");
    let members = fleet(redis, &namespace, stage);
    let [a, b] = &members;
    let keys = keys(redis, &namespace);
    // Keys of leases exist only for a while.
    let Some(key) = keys.get(key_number) else { return false };
    let Some(what) = damage(redis, key, number) else { return false };
    let what = format!("{stage:?}: {what}");

    for breaker in [&a.victim, &b.victim] {
        call(breaker, true);
        call(breaker, false);
    }
    // The other breaker is not affected, and the exchange goes on.
    for _ in 0..3 {
        call(&a.other, false);
    }
    assert_eq!(a.other.state(), State::Open, "{what}");
    let reaches_b = || a.other.state() == State::Open && b.other.state() == State::Open;
    let key_is_others = key.contains(OTHER);
    if !key_is_others {
        within_t(&format!("{what}: the other breaker is open for all"), reaches_b);
    }
    // Each instance still opens the victim, at least locally.
    for member in &members {
        for _ in 0..3 {
            call(&member.victim, false);
        }
        assert!(!member.victim.state().admits(), "{what}: {:?}", member.victim.snapshot());
    }
    // While open nothing looks at a window; its buckets leave by themselves.
    // What pages show is written without being read.
    let is_shown = [":instances", ":figures", ":settings", ":watched"].iter().any(|end| key.ends_with(end));
    let is_used = !is_shown && (stage != Stage::Open || !key.contains(":w:"));
    if number < 2 && is_used {
        within_t(&format!("{what}: is reported"), || {
            !a.data_errors().is_empty() || !b.data_errors().is_empty()
        });
    }
    let reported = a.errors.lock().unwrap().len() + b.errors.lock().unwrap().len();
    assert!(reported < 60, "{what}: {reported} reports, such as {:?}", a.data_errors());

    // The store has the state back, and both instances are in it. What pages show is nobody's to repair.
    if is_shown {
        redis.cli(&["DEL", key]);
    }
    within_t(&format!("{what}: the victim's state is the fleet's again"), || {
        let rows = block_on(a.registry.fleet()).unwrap_or_default();
        let stored = rows.iter().find(|row| row.name == VICTIM).map(|row| row.state);
        members.iter().all(|m| Some(m.victim.state()) == stored && !m.victim.snapshot().local)
    });
    within_t(&format!("{what}: the fleet opens a new breaker"), || {
        let config = BreakerConfig::default().failure_threshold(1);
        let (on_a, on_b) =
            (a.registry.get_or_create("new", config.clone()), b.registry.get_or_create("new", config));
        if on_a.state() == State::Closed {
            call(&on_a, false);
        }
        on_b.state() != State::Closed
    });
    true
}

fn survive_all(stage: Stage) {
    let redis = RedisServer::start();
    drop(fleet(&redis, "reference", stage));
    let count = keys(&redis, "reference").len();
    assert!(count >= 3, "{:?}", keys(&redis, "reference"));
    let survived = AtomicUsize::new(0);
    let cases: Mutex<Vec<(usize, usize)>> =
        Mutex::new((0..count).flat_map(|key| (0..13).map(move |number| (key, number))).collect());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().unwrap().pop();
                    let Some((key, number)) = next else { return };
                    survived.fetch_add(usize::from(survive(&redis, key, number, stage)), Ordering::Relaxed);
                }
            });
        }
    });
    let survived = survived.into_inner();
    assert!(survived >= (count - 1) * 13, "only {survived} cases");
}

#[test]
fn closed_breaker_survives_damage_to_any_key() {
    survive_all(Stage::Closed);
}

#[test]
fn open_breaker_survives_damage_to_any_key() {
    survive_all(Stage::Open);
}

#[test]
fn half_open_breaker_survives_damage_to_any_key() {
    survive_all(Stage::HalfOpen);
}

#[test]
fn damage_to_all_keys_causes_few_commands_and_reports() {
    let redis = RedisServer::start();
    let members = fleet(&redis, "n", Stage::Open);
    for key in keys(&redis, "n") {
        damage(&redis, &key, 1);
    }
    for member in &members {
        call(&member.victim, false);
        call(&member.other, false);
    }
    within_t("it is reported", || members.iter().all(|member| !member.data_errors().is_empty()));
    let begun = std::time::Instant::now();
    let ((), commands) = redis.client_commands(|| {
        while begun.elapsed() < Duration::from_secs(3) {
            for member in &members {
                call(&member.victim, true);
                call(&member.other, true);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let spent = begun.elapsed();
    let limit = 15 * members.len() * usize::try_from(spent.as_secs()).unwrap();
    assert!(commands <= limit, "{commands} commands in {spent:?}");
    for member in &members {
        let reports = member.errors.lock().unwrap().len();
        assert!(reports < 60, "{reports} reports: {:?}", member.data_errors());
    }
}

#[test]
fn exhausted_stream_ids_do_not_stop_transitions() {
    let redis = RedisServer::start();
    let members = fleet(&redis, "n", Stage::Closed);
    let [a, b] = &members;
    call(&a.victim, false);
    call(&a.victim, false);
    within_t("both are open", || a.victim.state() == State::Open && b.victim.state() == State::Open);
    let is_stream = |key: &String| redis.cli(&["TYPE", key]) == "stream";
    let stream = keys(&redis, "n").into_iter().find(is_stream).expect("the event stream");
    let last = "18446744073709551615-18446744073709551615";
    assert!(matches!(redis.command(&["XADD", &stream, last, "a", "b"]), Reply::Bytes(_)));
    for _ in 0..3 {
        call(&a.other, false);
    }
    within_t("the other breaker is open for all", || b.other.state() == State::Open);
    within_t("it is reported", || !a.data_errors().is_empty() || !b.data_errors().is_empty());
}
