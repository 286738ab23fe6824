//! What the store shows of the whole fleet: figures, pages, instances, settings; on both stores.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::{
    BreakerConfig, FleetBreaker, FleetQuery, InstanceInfo, Origin, Registry, RegistryBuilder, State,
    circuit_breaker,
};
use cb_testkit::{PATIENCE, RedisServer, wait_until};
use common::Broken;

const HOUR: Duration = Duration::from_secs(3600);

fn on(redis: &RedisServer) -> RegistryBuilder {
    Registry::builder().redis(redis.url())
}

async fn fail(registry: &Registry, name: &str) {
    let breaker = registry.breaker(name).unwrap();
    breaker.call(async || Err::<(), _>(())).await.unwrap_err();
}

async fn succeed(registry: &Registry, name: &str) {
    let breaker = registry.breaker(name).unwrap();
    let _ = breaker.call(async || Ok::<_, ()>(())).await;
}

async fn row(registry: &Registry, name: &str) -> FleetBreaker {
    let fleet = registry.fleet().await.unwrap();
    fleet.into_iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name} is there"))
}

/// Asks until it holds.
async fn eventually<T>(what: &str, ask: impl AsyncFn() -> T, holds: impl Fn(&T) -> bool) -> T {
    let start = Instant::now();
    loop {
        let answer = ask().await;
        if holds(&answer) {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn near(time: Option<SystemTime>) -> bool {
    time.is_some_and(|time| time.elapsed().unwrap_or_else(|error| error.duration()) < 2 * PATIENCE)
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_all_instances_are_summed_up_while_somebody_looks() {
    let redis = RedisServer::start();
    let [a, b, watching] = [(); 3].map(|()| on(&redis).build().unwrap());
    let config = BreakerConfig::default()
        .failure_rate_threshold(0.9)
        .minimum_calls(1000)
        .slow_call_duration(Duration::from_micros(1));
    for registry in [&a, &b] {
        registry.get_or_create("orders", config.clone());
        for _ in 0..3 {
            fail(registry, "orders").await;
        }
        succeed(registry, "orders").await;
    }
    a.control("orders").force_open("now").await.unwrap();
    eventually("B is open", async || b.breaker("orders").unwrap().state(), |s| *s == State::ForcedOpen).await;
    for _ in 0..5 {
        succeed(&b, "orders").await;
    }
    let seen = eventually(
        "all have told",
        async || row(&watching, "orders").await,
        |row| row.outcomes.success + row.outcomes.failure == 8 && row.outcomes.rejected == 5,
    )
    .await;
    assert_eq!((seen.outcomes.success, seen.outcomes.failure), (2, 6));
    assert!(near(seen.since) && near(seen.last_failure_at), "{seen:?}");
    assert!(watching.breakers().is_empty());
    // Nobody looks any more: the key that says so has expired, and nobody tells of calls.
    redis.cli(&["DEL", "cb1:{default}:watched", "cb1:{default}:figures"]);
    let told = watching.instances().await.unwrap();
    let later =
        |now: &Vec<InstanceInfo>| now.iter().zip(&told).all(|(now, then)| now.last_seen > then.last_seen);
    for _ in 0..2 {
        eventually("all are alive", async || watching.instances().await.unwrap(), later).await;
    }
    redis.cli(&["DEL", "cb1:{default}:figures"]);
    let told = watching.instances().await.unwrap();
    let later =
        |now: &Vec<InstanceInfo>| now.iter().zip(&told).all(|(now, then)| now.last_seen > then.last_seen);
    eventually("all are alive", async || watching.instances().await.unwrap(), later).await;
    assert_eq!(redis.cli(&["EXISTS", "cb1:{default}:figures"]).trim(), "0");
}

#[circuit_breaker(name = "tenant-{id}", registry = registry)]
async fn serve(registry: &Registry, id: u32) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    Ok(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_breaker_is_listed_before_its_first_call() {
    let redis = RedisServer::start();
    let names = async |registry: &Registry| {
        let fleet = registry.fleet().await.unwrap();
        assert!(fleet.iter().all(|row| row.state == State::Closed && row.epoch == 0), "{fleet:?}");
        fleet.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    for registry in [on(&redis).namespace("own").build().unwrap(), Registry::builder().build().unwrap()] {
        for name in ["orders", "users"] {
            registry.get_or_create(name, BreakerConfig::default());
        }
        serve(&registry, 7).await.unwrap();
        assert_eq!(names(&registry).await, ["orders", "tenant-7", "users"]);
        let page = registry.fleet_page(&FleetQuery::default().search("order")).await.unwrap();
        assert_eq!((page.total, page.by_state[State::Closed]), (1, 1));
    }
    let [serving, steering] = [(); 2].map(|()| on(&redis).build().unwrap());
    serving.get_or_create("orders", BreakerConfig::default());
    serve(&serving, 7).await.unwrap();
    let listed = |names: &Vec<String>| names.iter().any(|name| name == "orders");
    let seen = eventually("its instance has told", async || names(&steering).await, listed).await;
    assert!(!seen.iter().any(|name| name.contains('{')), "a pattern is no breaker: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_shows_the_window_probes_openings_and_times() {
    let redis = RedisServer::start();
    for (store, registry) in
        [("redis", on(&redis).build().unwrap()), ("memory", Registry::builder().build().unwrap())]
    {
        let config = BreakerConfig::default()
            .failure_rate_threshold(0.5)
            .minimum_calls(4)
            .half_open_max_calls(2)
            .success_threshold(2)
            .reset_timeout(Duration::from_millis(10));
        let breaker = registry.get_or_create("orders", config);
        for _ in 0..3 {
            succeed(&registry, "orders").await;
        }
        fail(&registry, "orders").await;
        let closed = row(&registry, "orders").await;
        let window = closed.window.expect("it judges by one");
        assert_eq!((window.calls, window.failures), (4, 1), "{store}");
        assert!((window.failure_rate - 0.25).abs() < 1e-9);
        assert!(closed.since.is_none() && closed.opened_at.is_none(), "{store}: {closed:?}");
        assert!(near(closed.last_failure_at), "{store}: {closed:?}");
        for _ in 0..3 {
            fail(&registry, "orders").await;
        }
        let open =
            eventually("it is open", async || row(&registry, "orders").await, |row| row.state == State::Open)
                .await;
        assert!(near(open.opened_at) && near(open.since) && open.openings == 1, "{store}: {open:?}");
        let hold = Arc::new(tokio::sync::Notify::new());
        let (probing, released) = (breaker.clone(), hold.clone());
        let probe = tokio::spawn(async move {
            loop {
                let begun = probing
                    .call(async || {
                        released.notified().await;
                        Ok::<_, ()>(())
                    })
                    .await;
                if begun.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let probed = eventually(
            "a probe is under way",
            async || row(&registry, "orders").await,
            |row| row.probes == 1 && row.state == State::HalfOpen,
        )
        .await;
        assert_eq!(probed.openings, 1, "{store}");
        hold.notify_one();
        probe.await.unwrap();
        eventually("it has ended", async || row(&registry, "orders").await, |row| row.probes == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_names_the_instance_that_checks_health() {
    let redis = RedisServer::start();
    for (store, registry) in
        [("redis", on(&redis).build().unwrap()), ("memory", Registry::builder().build().unwrap())]
    {
        let config = BreakerConfig::default()
            .failure_threshold(1)
            .health_check(|| async { false })
            .health_check_interval(Duration::from_millis(20));
        registry.get_or_create("orders", config);
        fail(&registry, "orders").await;
        let leader = Some(registry.instance().to_owned());
        eventually(store, async || row(&registry, "orders").await, |row| row.leader == leader).await;
    }
}

#[tokio::test]
async fn a_cached_answer_is_counted() {
    #[circuit_breaker(name = "cached", registry = registry, cache_ttl = "1h", cache_key = 0)]
    async fn call(registry: &Registry, fails: bool) -> Result<u32, Broken> {
        if fails { Err(Broken::Down) } else { Ok(7) }
    }
    let registry = Registry::builder().build().unwrap();
    call(&registry, false).await.unwrap();
    for _ in 0..3 {
        assert_eq!(call(&registry, true).await, Ok(7));
    }
    assert_eq!(registry.breaker("cached").unwrap().snapshot().outcomes.cached, 3);
    assert_eq!(row(&registry, "cached").await.outcomes.cached, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_breaker_once_the_worst_first() {
    let redis = RedisServer::start();
    for (store, registry) in
        [("redis", on(&redis).build().unwrap()), ("memory", Registry::builder().build().unwrap())]
    {
        let config = BreakerConfig::default().failure_threshold(1).reset_timeout(HOUR);
        for number in 0..50 {
            let name = format!("User {number:02}: {{größe}}");
            registry.get_or_create(&name, config.clone());
            match number % 5 {
                0 => fail(&registry, &name).await,
                1 => registry.control(&name).disable("off").await.unwrap(),
                _ => succeed(&registry, &name).await,
            }
        }
        registry.get_or_create("other", config.clone());
        succeed(&registry, "other").await;
        registry.fleet().await.unwrap();

        let mut query = FleetQuery::default().search("uSER").limit(7);
        let mut seen = Vec::new();
        loop {
            let page = registry.fleet_page(&query).await.unwrap();
            assert_eq!(
                (page.total, page.by_state[State::Open], page.by_state[State::Closed]),
                (50, 10, 30),
                "{store}"
            );
            assert!(page.breakers.len() == 7 || page.next.is_none());
            seen.extend(page.breakers.into_iter().map(|row| (row.state, row.name)));
            match page.next {
                Some(next) => query = query.after(next),
                None => break,
            }
        }
        let names: std::collections::BTreeSet<_> = seen.iter().map(|(_, name)| name).collect();
        assert_eq!((seen.len(), names.len()), (50, 50), "{store}");
        let states: Vec<_> =
            seen.chunk_by(|a, b| a.0 == b.0).map(|chunk| (chunk[0].0, chunk.len())).collect();
        assert_eq!(states, [(State::Open, 10), (State::Disabled, 10), (State::Closed, 30)], "{store}");

        let query = FleetQuery::default().state(State::Open).state(State::HalfOpen).limit(3);
        let page = registry.fleet_page(&query).await.unwrap();
        assert_eq!((page.total, page.breakers.len(), page.by_state[State::Disabled]), (10, 3, 10), "{store}");
        let none = registry.fleet_page(&FleetQuery::default().search("nothing")).await.unwrap();
        assert!(none.breakers.is_empty() && none.next.is_none() && none.total == 0);
        for after in ["", "x", "9:z", ":", "0:"] {
            registry.fleet_page(&FleetQuery::default().after(after)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_listed_while_they_live_and_leave_at_shutdown() {
    let redis = RedisServer::start();
    let [a, b] = ["rack-1", "rack-2"].map(|node| on(&redis).node(node).build().unwrap());
    let both =
        eventually("both are there", async || a.instances().await.unwrap(), |all| all.len() == 2).await;
    assert_eq!((&*both[0].node, &*both[1].node), ("rack-1", "rack-2"));
    assert_eq!((&*both[0].id, &*both[1].id), (a.instance(), b.instance()));
    assert!(both[0].own && !both[1].own && both.iter().all(|instance| !instance.degraded));
    assert_eq!((both[0].pid, &*both[0].version), (std::process::id(), env!("CARGO_PKG_VERSION")));
    assert!(near(Some(both[1].last_seen)) && near(Some(both[1].started_at)), "{both:?}");
    b.shutdown().await;
    let rest = a.instances().await.unwrap();
    assert_eq!(rest.iter().map(|instance| &*instance.node).collect::<Vec<_>>(), ["rack-1"]);
    assert!(serde_json::to_string(&rest).unwrap().contains("\"last_seen\":\"20"));
    let keeps: u64 = redis.cli(&["TTL", "cb1:{default}:instances"]).trim().parse().unwrap();
    assert!(keeps <= 3600, "it goes with the last instance");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_silent_is_degraded_and_at_last_forgotten() {
    let redis = RedisServer::start();
    let registry = on(&redis).build().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let silent_for = |seconds: u128| {
        let seen = now - seconds * 1_000_000;
        format!(r#"{{"node":"n","host":"h","pid":1,"version":"0","started_us":1,"seen_us":{seen}}}"#)
    };
    let key = "cb1:{default}:instances";
    redis.cli(&["HSET", key, "silent", &silent_for(60), "gone", &silent_for(4000), "odd", "\u{1}{not json"]);
    let all =
        eventually("this one is there", async || registry.instances().await.unwrap(), |all| all.len() == 2)
            .await;
    let silent = all.iter().find(|instance| instance.id == "silent").unwrap();
    assert!(silent.degraded && !silent.own);
    assert_eq!(redis.cli(&["HKEYS", key]).lines().count(), 2, "what is gone is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_text_is_reported_and_hides_nothing() {
    for protocol in ["resp2", "resp3"] {
        let redis = RedisServer::start();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let reported = errors.clone();
        let registry = Registry::builder()
            .redis(format!("{}/?protocol={protocol}", redis.url()))
            .on_error(move |error| reported.lock().unwrap().push(error.to_string()))
            .build()
            .unwrap();
        registry.get_or_create("orders", BreakerConfig::default());
        registry.control("orders").force_open("now").await.unwrap();
        let instances = async || registry.instances().await.unwrap();
        eventually("this instance is there", instances, |all| all.len() == 1).await;
        for (command, key, name, value) in [
            ("ZADD", "held", &b"9999999999999"[..], &b"in-held-\xff"[..]),
            ("ZADD", "names", b"9999999999999", b"in-names-\xff"),
            ("HSET", "quiet", b"in-quiet-\xff", b"0|0|||1"),
            ("HSET", "quiet", b"damaged", b"\xff"),
            ("HSET", "instances", b"\xff", b"{}"),
            ("HSET", "instances", b"damaged", b"\xff"),
            ("HSET", "settings", b"\xff", b"\xff"),
            ("HSET", "figures", b"\xff", b"\xff"),
        ] {
            let key = format!("cb1:{{default}}:{key}");
            redis.cli(&[command.as_bytes(), key.as_bytes(), name, value]);
        }
        assert_eq!(row(&registry, "orders").await.state, State::ForcedOpen);
        let page = registry.fleet_page(&FleetQuery::default()).await.unwrap();
        assert!(page.breakers.iter().any(|row| row.name == "orders"), "{page:?}");
        assert_eq!(instances().await.len(), 1);
        registry.fleet_settings().await.unwrap();
        // A thread of its own tells of them.
        for name in ["in-held-\u{fffd}", "in-names-\u{fffd}", "in-quiet-\u{fffd}"] {
            let is_reported = || errors.lock().unwrap().iter().any(|error| error.contains(name));
            wait_until(PATIENCE, &format!("{name} is reported"), is_reported);
        }
        assert!(registry.store_status().is_up(), "{errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_every_instance_show_who_differs() {
    #[circuit_breaker(name = "tenant-{id}", registry = registry, failure_threshold = 4)]
    async fn tenant(registry: &Registry, id: u32) -> Result<(), Broken> {
        Ok(())
    }
    let redis = RedisServer::start();
    let fleet = ["a", "b", "c"]
        .map(|node| on(&redis).node(node).configure("tenant-1", |config| config.failure_threshold(50)));
    let fleet = fleet.map(|builder| builder.build().unwrap());
    let watching = on(&redis).node("watching").build().unwrap();
    for (number, registry) in fleet.iter().enumerate() {
        let threshold = if number == 2 { 9 } else { 3 };
        registry.get_or_create("orders", BreakerConfig::default().failure_threshold(threshold));
        for id in 0..10 {
            tenant(registry, id).await.unwrap();
        }
    }
    watching.control("orders").reset().await.unwrap();
    let ask = async || watching.settings("orders").await.unwrap();
    let told = eventually("all have told", ask, |told| told.len() == 3).await;
    let drift: Vec<_> =
        told.iter().map(|told| (&*told.node, &*told.settings["failure_threshold"], told.drift)).collect();
    assert_eq!(drift, [("a", "3", false), ("b", "3", false), ("c", "9", true)]);
    assert_eq!(told[0].origins["failure_threshold"], Origin::Attribute);
    let tenants = async || watching.settings("tenant-{id}").await.unwrap();
    eventually("tenants' too", tenants, |told| told.len() == 3 && told.iter().all(|told| !told.drift)).await;
    assert_eq!(watching.drifting().await.unwrap(), ["orders"]);
    let all = watching.fleet_settings().await.unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["orders", "tenant-1", "tenant-{id}"]);
    assert_eq!(all["orders"], watching.settings("orders").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_through_all_pages_reads_names_once_and_thousands_of_breakers_in_small_requests() {
    const BREAKERS: usize = 3000;
    let redis = RedisServer::start();
    let [registry, watching] = [(); 2].map(|()| on(&redis).build().unwrap());
    for number in 0..BREAKERS {
        let name = format!("tenant-{number:04}");
        registry.get_or_create(&name, BreakerConfig::default());
        // A third of them have a key of their own, of the others reports have told everything.
        if number % 3 == 0 { fail(&registry, &name).await } else { succeed(&registry, &name).await }
    }
    registry.control("tenant-0001").disable("off").await.unwrap();
    registry.fleet().await.unwrap();
    redis.cli(&["CONFIG", "RESETSTAT"]);
    let mut query = FleetQuery::default().limit(1000);
    let mut rows = Vec::new();
    loop {
        let page = watching.fleet_page(&query).await.unwrap();
        rows.extend(page.breakers);
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    assert_eq!((rows.len(), rows[0].state), (BREAKERS, State::Disabled));
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row.name, format!("tenant-{number:04}"));
        let expected = if number % 3 == 0 { (1, 0) } else { (0, u64::from(number != 1)) };
        assert_eq!((row.failures, row.successes), expected, "{row:?}");
        assert_eq!(row.last_failure_at.is_some(), number % 3 == 0, "{row:?}");
    }
    let calls = |command: &str| {
        let stats = redis.cli(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse::<usize>().unwrap())
    };
    // The table of a hash may have up to twice as many places as members, and each look is at 500 of them.
    let looks = 2 * BREAKERS.next_power_of_two() / 500 + 2;
    assert!((2..=looks).contains(&calls("hscan")) && calls("zscan") <= looks, "{}", calls("hscan"));
    assert_eq!(calls("hkeys"), 0, "no command looks at all at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_at_one_time_share_a_reading_and_each_sees_what_was_before_it_asked() {
    let redis = RedisServer::start();
    let registry = on(&redis).build().unwrap();
    for round in 0..20 {
        let name = format!("orders-{round}");
        registry.control(&name).disable("off").await.unwrap();
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let registry = registry.clone();
            readers.spawn(async move { registry.fleet_page(&FleetQuery::default()).await });
        }
        for page in readers.join_all().await {
            assert!(page.unwrap().breakers.iter().any(|breaker| breaker.name == name), "{name} is there");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_metrics_only_breaker_would_have_done_is_told_by_all_instances() {
    let redis = RedisServer::start();
    let [a, b, watching] = [(); 3].map(|()| on(&redis).build().unwrap());
    let config = BreakerConfig::default().failure_threshold(2);
    a.control("orders").metrics_only("watching").await.unwrap();
    for registry in [&a, &b] {
        let breaker = registry.get_or_create("orders", config.clone());
        let state = async || breaker.state();
        eventually("it is metrics-only", state, |state| *state == State::MetricsOnly).await;
        for _ in 0..2 {
            fail(registry, "orders").await;
        }
    }
    let told = eventually(
        "both have told",
        async || row(&watching, "orders").await,
        |row| row.would_have_opened >= 2,
    )
    .await;
    assert!(near(told.would_have_opened_at), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_opened_for_itself_only_is_named() {
    let redis = RedisServer::start();
    let [a, watching] = [(); 2].map(|()| on(&redis).build().unwrap());
    let config = BreakerConfig::default().failure_threshold(2).min_failing_instances(2);
    a.get_or_create("orders", config);
    for _ in 0..2 {
        fail(&a, "orders").await;
    }
    assert_eq!(a.breaker("orders").unwrap().state(), State::Open);
    a.fleet().await.unwrap();
    let told =
        eventually("it has told", async || row(&watching, "orders").await, |row| !row.isolated.is_empty())
            .await;
    assert_eq!((told.state, &*told.isolated), (State::Closed, &[a.instance().to_owned()][..]));
}
