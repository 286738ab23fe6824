//! The fleet's history: times, cursors, retention; on both stores.

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cb_runtime::clock::Clock;
use cb_runtime::{BreakerConfig, Cursor, Event, Events, Registry, State, Transition};
use cb_testkit::{PATIENCE, RedisServer, wait_until};

/// The error of an instance's estimate of the store's time is at most a round trip, which can take long on a
/// busy machine.
const TOLERANCE: Duration = Duration::from_secs(20);

/// Two instances that share a store, and what keeps it; on the memory store one instance twice.
fn pairs() -> Vec<(&'static str, Option<RedisServer>, [Registry; 2])> {
    let redis = RedisServer::start();
    let shared = [(); 2].map(|()| Registry::builder().redis(redis.url()).build().unwrap());
    let alone = Registry::builder().build().unwrap();
    vec![("redis", Some(redis), shared), ("memory", None, [alone.clone(), alone])]
}

async fn next(events: &mut Events) -> Transition {
    loop {
        let event = common::bounded(events.recv()).await.expect("the registry lives");
        if let Event::Transition(transition) = event {
            return (*transition).clone();
        }
    }
}

async fn force(registry: &Registry, name: &str, reason: &str) {
    registry.control(name).by("alice").force_open(reason).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn history_has_the_subscribers_transitions_newest_first() {
    for (store, _server, [a, b]) in pairs() {
        let mut events = b.subscribe();
        let before = SystemTime::now() - TOLERANCE;
        for number in 0..5 {
            force(&a, "orders", &number.to_string()).await;
        }
        let mut told = Vec::new();
        for _ in 0..5 {
            told.push(next(&mut events).await);
        }
        told.reverse();
        assert_eq!(b.history(10).await.unwrap(), told, "{store}");
        assert_eq!(b.history(2).await.unwrap(), told[..2], "{store}");
        assert!(b.history(0).await.unwrap().is_empty());
        assert_eq!((&*told[0].reason, &*told[0].actor, told[0].from), ("4", "alice", State::ForcedOpen));
        let after = SystemTime::now() + TOLERANCE;
        assert!(told.iter().all(|change| before <= change.at && change.at <= after), "{store}: {told:?}");
        assert!(told.is_sorted_by(|newer, older| newer.at >= older.at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_from_a_cursor_neither_misses_nor_repeats_transitions() {
    for (store, _server, [a, b]) in pairs() {
        for number in 0..300 {
            force(&a, "orders", &number.to_string()).await;
        }
        let seen = b.history(300).await.unwrap().into_iter().find(|change| change.reason == "10").unwrap();
        let cursor: Cursor = seen.cursor.unwrap().to_string().parse().unwrap();
        let mut events = b.subscribe_from(&cursor).await.unwrap();
        for number in 300..320 {
            force(&a, "orders", &number.to_string()).await;
        }
        for number in 11..320 {
            assert_eq!(next(&mut events).await.reason, number.to_string(), "{store}");
        }
        assert_eq!(events.lost(), 0, "{store}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transitions_beyond_the_retention_count_as_lost() {
    let redis = RedisServer::start();
    for (store, builder) in
        [("redis", Registry::builder().redis(redis.url())), ("memory", Registry::builder())]
    {
        let registry = builder.retain_history(5, Duration::from_secs(60)).build().unwrap();
        force(&registry, "orders", "first").await;
        let first = registry.history(1).await.unwrap().remove(0).cursor.unwrap();
        for number in 0..300 {
            force(&registry, "orders", &number.to_string()).await;
        }
        let ahead = format!("{}:{}:0-0", first.to_string().split(':').next().unwrap(), u64::MAX);
        assert_eq!(registry.subscribe_from(&ahead.parse().unwrap()).await.unwrap().lost(), 0, "{store}");
        // Redis frees whole blocks of some hundred entries.
        let kept = registry.history(1000).await.unwrap().len();
        assert!((5..=250).contains(&kept), "{store}: {kept}");
        let events = registry.subscribe_from(&first).await.unwrap();
        assert_eq!(events.lost(), 300 - kept as u64, "{store}");
    }
}

#[tokio::test]
async fn transitions_beyond_the_retention_are_not_shown() {
    let (clock, hands) = Clock::manual();
    let registry =
        Registry::builder().clock(clock).retain_history(100, Duration::from_secs(60)).build().unwrap();
    force(&registry, "orders", "seen").await;
    let seen = registry.history(1).await.unwrap().remove(0).cursor.unwrap();
    force(&registry, "orders", "first").await;
    hands.advance(Duration::from_secs(50));
    force(&registry, "orders", "second").await;
    hands.advance(Duration::from_secs(50));
    let history = registry.history(10).await.unwrap();
    let reasons: Vec<_> = history.iter().map(|change| &*change.reason).collect();
    assert_eq!(reasons, ["second"]);
    assert_eq!(registry.subscribe_from(&seen).await.unwrap().lost(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn transitions_of_a_stream_that_has_expired_count_as_lost() {
    let redis = RedisServer::start();
    let registry = Registry::builder().redis(redis.url()).build().unwrap();
    for reason in ["first", "second", "third"] {
        force(&registry, "orders", reason).await;
    }
    let seen = registry.history(3).await.unwrap().into_iter().map(|change| change.cursor.unwrap());
    let [third, _, first] = &seen.collect::<Vec<_>>()[..] else { panic!("three transitions") };
    // As Redis does an hour after the latest transition.
    redis.cli(&["PEXPIRE", "cb1:{default}:events", "1"]);
    wait_until(PATIENCE, "it has expired", || redis.cli(&["EXISTS", "cb1:{default}:events"]).trim() == "0");
    assert_eq!(registry.subscribe_from(first).await.unwrap().lost(), 2);
    assert_eq!(registry.subscribe_from(third).await.unwrap().lost(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_were_written_back_do_not_hide_the_transitions_before() {
    let redis = RedisServer::start();
    let registry = Registry::builder().redis(redis.url()).build().unwrap();
    force(&registry, "orders", "before").await;
    redis.cli(&["SAVE"]);
    // More than one read of the stream.
    let config = BreakerConfig::default().failure_threshold(1);
    let breakers: Vec<_> =
        (0..300).map(|tenant| registry.get_or_create(&format!("tenant-{tenant}"), config.clone())).collect();
    for breaker in &breakers {
        breaker.call(async || Err::<(), _>(())).await.unwrap_err();
    }
    wait_until(PATIENCE, "the store has them", || breakers.iter().all(|breaker| !breaker.snapshot().local));
    redis.restart_from_snapshot();
    wait_until(PATIENCE, "the states are there again", || {
        redis.cli(&["XLEN", "cb1:{default}:events"]).trim().parse::<u32>().unwrap() > 300
    });
    let history = registry.history(1000).await.unwrap();
    assert_eq!(history.len(), 1, "{history:?}");
    assert_eq!(history[0].reason, "before");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_stream_and_numbering_for_the_retention() {
    let redis = RedisServer::start();
    let week = Duration::from_secs(7 * 86_400);
    let registry = Registry::builder().redis(redis.url()).retain_history(5000, week).build().unwrap();
    force(&registry, "orders", "now").await;
    registry.control("orders").release().await.unwrap();
    for key in ["events", "meta"] {
        let ttl: u64 = redis.cli(&["TTL", &format!("cb1:{{default}}:{key}")]).trim().parse().unwrap();
        assert!(ttl > 6 * 86_400, "{key}: {ttl}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn program_that_sets_no_retention_leaves_the_history_as_it_is() {
    let redis = RedisServer::start();
    let week = Duration::from_secs(7 * 86_400);
    let service = Registry::builder().redis(redis.url()).retain_history(2000, week).build().unwrap();
    let operator = Registry::builder().redis(redis.url()).build().unwrap();
    for number in 0..1500 {
        force(&service, "orders", &number.to_string()).await;
    }
    operator.control("users").force_open("migration").await.unwrap();
    assert_eq!(service.history(2000).await.unwrap().len(), 1501);
    let ttl: u64 = redis.cli(&["TTL", "cb1:{default}:events"]).trim().parse().unwrap();
    assert!(ttl > 6 * 86_400, "{ttl}");
    // Two hours ago, a transition happened that the stream still has.
    let long_ago = (SystemTime::now() - Duration::from_secs(7200)).duration_since(UNIX_EPOCH).unwrap();
    let latest = redis.cli(&["XREVRANGE", "cb1:{default}:events", "+", "-", "COUNT", "1"]);
    let mut fields: Vec<_> = latest.lines().skip(1).map(str::to_owned).collect();
    let at = fields.iter().position(|field| field == "at_us").unwrap();
    fields[at + 1] = long_ago.as_micros().to_string();
    let add = ["XADD", "cb1:{default}:events", "*"];
    redis.cli(&add.into_iter().chain(fields.iter().map(String::as_str)).collect::<Vec<_>>());
    assert_eq!(operator.history(2000).await.unwrap().len(), 1502);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_has_no_upper_limit() {
    let redis = RedisServer::start();
    let registry =
        Registry::builder().redis(redis.url()).retain_history(usize::MAX, Duration::MAX).build().unwrap();
    force(&registry, "orders", "for ever").await;
    assert_eq!(registry.history(1).await.unwrap()[0].reason, "for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_after_a_loss_of_data_begins_with_the_existing_transitions() {
    let redis = RedisServer::start();
    let registry = Registry::builder().redis(redis.url()).build().unwrap();
    registry.get_or_create("orders", BreakerConfig::default());
    force(&registry, "orders", "before").await;
    let cursor = registry.history(1).await.unwrap().remove(0).cursor.unwrap();
    redis.cli(&["FLUSHALL"]);
    wait_until(PATIENCE, "the state is there again", || {
        redis.cli(&["EXISTS", "cb1:{default}:b:orders"]).trim() == "1"
    });
    force(&registry, "orders", "after").await;
    let mut events = registry.subscribe_from(&cursor).await.unwrap();
    assert_ne!(events.lost(), 0);
    assert_eq!(next(&mut events).await.reason, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_have_wall_clock_times() {
    for (store, _server, [a, b]) in pairs() {
        let config = BreakerConfig::default().failure_threshold(2);
        let breaker = a.get_or_create("orders", config.clone());
        assert_eq!(breaker.snapshot().since, None, "it has always been closed");
        let before = SystemTime::now() - TOLERANCE;
        for _ in 0..2 {
            breaker.call(async || Err::<(), _>(())).await.unwrap_err();
        }
        a.fleet().await.unwrap();
        let history = a.history(1).await.unwrap();
        let other = b.get_or_create("orders", config);
        wait_until(PATIENCE, "both are open", || other.state() == State::Open);
        let after = SystemTime::now() + TOLERANCE;
        let near = |time: SystemTime| before <= time && time <= after;
        let here = breaker.snapshot();
        assert!(here.last_failure_at.is_some_and(near), "{store}: {here:?}");
        for snapshot in [here, other.snapshot()] {
            let since = snapshot.since.expect("it has changed");
            assert!(near(since) && near(snapshot.opened_at.unwrap()), "{store}: {snapshot:?}");
            let apart = since.duration_since(history[0].at).unwrap_or_else(|error| error.duration());
            assert!(apart < TOLERANCE, "{store}: {apart:?}");
            let json = serde_json::to_value(&snapshot).unwrap();
            assert!(json["since"].as_str().is_some_and(|time| time.ends_with('Z')), "{json}");
        }
    }
}
