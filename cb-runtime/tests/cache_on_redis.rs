//! The cached fallback on a real Redis: what one instance has been told answers for another.

mod common;

use std::cell::Cell;
use std::error::Error;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cb_runtime::{BreakerError, CacheTier, Event, Events, Registry, circuit_breaker};
use cb_testkit::{RedisServer, wait_until};
use common::Broken;

const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    static HERE: Cell<Option<&'static Registry>> = const { Cell::new(None) };
    static DOWN: Cell<bool> = const { Cell::new(false) };
}

/// Nothing here is about states, so the circuit stays closed.
macro_rules! guarded {
    ($name:ident, $ttl:literal) => {
        #[circuit_breaker(
            name = "users", registry = HERE.get().unwrap(), failure_threshold = 1_000_000, cache_ttl = $ttl,
            fallback = |id: u64| Ok(format!("fallback {id}"))
        )]
        async fn $name(id: u64) -> Result<String, Broken> {
            if DOWN.get() { Err(Broken::Down) } else { Ok(format!("user {id}")) }
        }
    };
}

guarded!(get_user, 300);
guarded!(get_soon_gone, "1s");

/// Its error is not `Send`.
#[circuit_breaker(
    name = "users", registry = HERE.get().unwrap(), failure_threshold = 1_000_000, cache_ttl = 300
)]
async fn get_or_any_error(id: u64) -> Result<String, Box<dyn Error>> {
    if DOWN.get() { Err(Broken::Down.into()) } else { Ok(format!("user {id}")) }
}

/// One instance of the fleet.
struct Instance {
    registry: &'static Registry,
    events: Mutex<Events>,
}

impl Instance {
    fn new(server: &RedisServer) -> Self {
        let registry = Registry::builder().redis(server.url()).namespace("app").build().unwrap();
        // For ever, so that attributes can name it: it is a test's.
        let registry: &'static Registry = Box::leak(Box::new(registry));
        let instance = Instance { registry, events: Mutex::new(registry.subscribe()) };
        // An instance that gets the fleet's overview is connected.
        instance.run(async { registry.fleet().await.unwrap() });
        instance
    }

    fn run<F: Future>(&self, work: F) -> F::Output {
        HERE.set(Some(self.registry));
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// What a call gives while the dependency works.
    fn succeed(&self, id: u64) -> String {
        DOWN.set(false);
        self.run(get_user(id)).unwrap()
    }

    /// What a call gives while it does not.
    fn fail(&self, id: u64) -> String {
        DOWN.set(true);
        self.run(get_user(id)).unwrap()
    }

    fn hits(&self) -> Vec<(CacheTier, Duration)> {
        let mut hits = Vec::new();
        let mut events = self.events.lock().unwrap();
        while let Some(event) = events.try_recv() {
            if let Event::CacheHit { tier, age, .. } = event {
                hits.push((tier, age));
            }
        }
        hits
    }

    /// The next thing that was wrong with the cache.
    fn trouble(&self) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut events = self.events.lock().unwrap();
        while Instant::now() < deadline {
            match events.try_recv() {
                Some(Event::Error(error)) if error.is_cache() => return error.to_string(),
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        panic!("nothing was reported");
    }
}

/// The one cached result's key, once it is there.
fn cached_key(server: &RedisServer) -> String {
    let keys = || server.cli(&["KEYS", "cb1:app:c:users:*"]).lines().map(str::to_owned).collect::<Vec<_>>();
    wait_until(LIMIT, "a result is in Redis", || keys().len() == 1);
    keys().remove(0)
}

#[test]
fn success_on_one_instance_answers_a_failure_on_another() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    assert_eq!(a.succeed(1), "user 1");
    let key = cached_key(&server);
    assert_eq!(b.fail(1), "user 1");
    assert_eq!(b.fail(2), "fallback 2");
    assert_eq!(b.fail(1), "user 1");
    let tiers: Vec<_> = b.hits().into_iter().map(|(tier, _)| tier).collect();
    assert_eq!(tiers, [CacheTier::Shared, CacheTier::Local]);

    let ttl: u64 = server.cli(&["PTTL", &key]).parse().unwrap();
    assert!((250_000..=300_000).contains(&ttl), "{ttl}");
    let value: serde_json::Value = serde_json::from_str(&server.cli(&["GET", &key])).unwrap();
    assert_eq!((&value["v"], &value["value"]), (&1.into(), &"user 1".into()));
}

#[test]
fn error_that_is_not_send_is_answered_locally_and_a_rejection_by_the_store() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    DOWN.set(false);
    assert_eq!(a.run(get_or_any_error(1)).unwrap(), "user 1");
    cached_key(&server);
    DOWN.set(true);
    assert_eq!(a.run(get_or_any_error(1)).unwrap(), "user 1");
    let error = b.run(get_or_any_error(1)).unwrap_err();
    assert!(error.is::<Broken>(), "{error}");
    b.run(async { b.registry.control("users").force_open("a test").await.unwrap() });
    assert_eq!(b.run(get_or_any_error(1)).unwrap(), "user 1");
    let tiers: Vec<_> = b.hits().into_iter().map(|(tier, _)| tier).collect();
    assert_eq!(tiers, [CacheTier::Shared]);
    let error = b.run(get_or_any_error(2)).unwrap_err();
    assert!(error.is::<BreakerError>(), "{error}");
}

#[test]
fn age_does_not_depend_on_wall_clocks() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    a.succeed(1);
    let key = cached_key(&server);
    // As if it had been written a hundred seconds ago, by a machine whose clock stands in the year 2001.
    let value = server.cli(&["GET", &key]);
    let (head, tail) = value.split_once("\"ttl_ms\"").unwrap();
    assert!(head.contains("stored_at_ms"));
    let value = format!("{{\"v\":1,\"stored_at_ms\":999999999999,\"ttl_ms\"{tail}");
    server.cli(&["SET", &key, &value, "PX", "200000"]);
    assert_eq!(b.fail(1), "user 1");
    let (tier, age) = b.hits()[0];
    assert_eq!(tier, CacheTier::Shared);
    assert!((100..110).contains(&age.as_secs()), "{age:?}");
}

#[test]
fn after_the_ttl_the_fallback_answers() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    DOWN.set(false);
    let stored = Instant::now();
    a.run(get_soon_gone(1)).unwrap();
    let key = cached_key(&server);
    DOWN.set(true);
    let answer = b.run(get_soon_gone(1)).unwrap();
    assert!(answer == "user 1" || stored.elapsed() >= Duration::from_secs(1), "{answer}");
    wait_until(LIMIT, "Redis lets it go", || server.cli(&["EXISTS", &key]) == "0");
    for instance in [&a, &b] {
        wait_until(LIMIT, "it is too old", || instance.run(get_soon_gone(1)).unwrap() == "fallback 1");
    }
    assert!(stored.elapsed() >= Duration::from_secs(1));
}

#[test]
fn successes_cost_one_write_per_interval_and_failures_of_one_key_few_reads() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    let stored = Instant::now();
    a.succeed(1);
    cached_key(&server);
    let monitor = server.monitor();
    DOWN.set(false);
    a.run(async {
        for _ in 0..10_000 {
            get_user(1).await.unwrap();
        }
    });
    // A result is written anew once it is five seconds old.
    let writes = stored.elapsed().as_secs() / 5;
    let start = Instant::now();
    DOWN.set(true);
    b.run(async {
        for _ in 0..10_000 {
            assert_eq!(get_user(7).await.unwrap(), "fallback 7");
        }
    });
    let spent = start.elapsed();
    let commands = monitor.finish();
    let of = |name: &str| commands.iter().filter(|command| command.starts_with(name)).count();
    assert!(of("\"SET\"") as u64 <= writes, "the result is fresh");
    // A miss is remembered for a quarter of a second by a coarse clock, which may be late on a busy machine.
    let most = spent.as_millis() / 50 + 2;
    assert!((1..=most).contains(&(of("\"GET\"") as u128)), "{} in {spent:?}", of("\"GET\""));
}

#[test]
fn without_redis_the_instance_that_knows_still_answers() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    a.succeed(1);
    cached_key(&server);
    server.stop();
    assert_eq!(a.fail(1), "user 1");
    assert_eq!(b.fail(1), "fallback 1");
    assert_eq!(a.succeed(2), "user 2");
    assert_eq!(a.fail(2), "user 2", "while Redis is away, too");
}

#[test]
fn result_cached_during_an_outage_is_shared_afterwards() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    server.stop();
    wait_until(LIMIT, "its absence is noticed", || {
        a.succeed(0);
        let mut events = a.events.lock().unwrap();
        std::iter::from_fn(|| events.try_recv()).any(|event| matches!(event, Event::StoreLost(_)))
    });
    a.succeed(1);
    server.restart();
    wait_until(LIMIT, "both have told", || b.fail(1) == "user 1");
}

#[test]
fn frozen_redis_delays_a_failed_call_only_briefly() {
    let server = RedisServer::start();
    let b = Instance::new(&server);
    server.freeze();
    let start = Instant::now();
    for id in 0..1000 {
        assert_eq!(b.fail(id), format!("fallback {id}"));
    }
    let spent = start.elapsed();
    server.thaw();
    assert!(spent < LIMIT, "{spent:?}");
}

#[test]
fn damage_under_the_key_leads_to_the_fallback_and_a_report_until_the_next_success() {
    let server = RedisServer::start();
    let a = Instance::new(&server);
    a.succeed(1);
    let key = cached_key(&server);
    for damage in [
        &["SET", &key, "\u{0}garbage\u{7}", "PX", "100000"][..],
        &["SET", &key, "{\"v\":9,\"payload\":{}}", "PX", "100000"],
        &["SET", &key, "{\"v\":1,\"ttl_ms\":300000,\"value\":[1,2]}", "PX", "100000"],
        &["PERSIST", &key],
        &["LPUSH", &key, "a list"],
    ] {
        if damage[0] == "LPUSH" {
            server.cli(&["DEL", &key]);
        }
        server.cli(damage);
        let newcomer = Instance::new(&server);
        assert_eq!(newcomer.fail(1), "fallback 1", "{damage:?}");
        assert!(newcomer.trouble().contains("\"users\""), "{damage:?}");
    }
    let another = Instance::new(&server);
    another.succeed(1);
    wait_until(LIMIT, "a success repairs it", || Instance::new(&server).fail(1) == "user 1");
}

#[test]
fn shutdown_writes_pending_results() {
    let server = RedisServer::start();
    let (a, b) = (Instance::new(&server), Instance::new(&server));
    DOWN.set(false);
    a.run(async {
        for id in 0..500 {
            get_user(id).await.unwrap();
        }
        a.registry.shutdown().await;
    });
    for id in 0..500 {
        assert_eq!(b.fail(id), format!("user {id}"));
    }
}
