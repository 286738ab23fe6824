//! Time as Redis has it: its own clock, and how long keys live.

use std::sync::Arc;
use std::time::Duration;

use cb_testkit::{PATIENCE, RedisServer, Reply, wait_until};

use super::{SECOND, Target, about, batch, counting, exchange, fleet, forcing, say, store};
use crate::snapshot::State;
use crate::store::{
    CountWindowRequest, Counts, Delta, Entry, LeaderRequest, LeaseRequest, OutcomeKind, Report, Reported,
    Store, Streak, WindowRequest,
};

const WINDOW: WindowRequest = WindowRequest { length_us: 10 * SECOND, width_us: SECOND, since: 0 };

fn ttl(server: &RedisServer, key: &str) -> i64 {
    match server.command(&["TTL", key]) {
        Reply::Number(-2) => panic!("there is no {key}"),
        Reply::Number(ttl) => ttl,
        other => panic!("TTL {key}: {other:?}"),
    }
}

#[tokio::test]
async fn time_is_the_servers_own() {
    let server = RedisServer::start();
    let store = store(&server);
    let time = server.cli(&["TIME"]);
    let (seconds, micros) = time.split_once('\n').unwrap();
    let before = seconds.parse::<u64>().unwrap() * SECOND + micros.parse::<u64>().unwrap();
    let opened = say(&store, forcing("x", State::Open)).await.record;
    assert_eq!((opened.remaining_us, opened.since_us), (Some(60 * SECOND), 0));
    let now = exchange(&store, vec![]).await.now_us;
    assert!((before..before + 60 * SECOND).contains(&now));
    // It goes on by itself, and both spans add up to what there was.
    let mut later = say(&store, about("x")).await.record;
    while later.since_us == 0 {
        later = say(&store, about("x")).await.record;
    }
    assert_eq!(later.remaining_us.unwrap() + later.since_us, 60 * SECOND);
}

#[tokio::test]
async fn lease_lapses_by_the_servers_clock() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, forcing("x", State::HalfOpen)).await;
    let asking = |term_us| {
        let leases = LeaseRequest { want: vec![1], limit: 1, term_us, ..LeaseRequest::default() };
        Entry { leases, ..about("x") }
    };
    assert_eq!(say(&store, asking(50_000)).await.granted, [1]);
    // Another instance, until it succeeds.
    let start = std::time::Instant::now();
    loop {
        let view = say(&store, asking(60 * SECOND)).await;
        if view.granted == [1] {
            break;
        }
        assert!(view.lease_wait_us.unwrap() <= 50_000);
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_micros(view.lease_wait_us.unwrap())).await;
    }
}

#[tokio::test]
async fn closed_and_open_breakers_live_for_an_hour_and_overrides_until_they_are_released() {
    let server = RedisServer::start();
    let store = store(&server);
    let counting = Entry { window: Some(WINDOW), ..counting("x", 1, 1) };
    let buckets = vec![(0, counting.delta.counts)];
    let streak = Streak { success: None, failures: vec![(0, 1)] };
    let counting = Entry { delta: Delta { streak, buckets, ..counting.delta }, ..counting };
    say(&store, counting.clone()).await;
    let (hour, week) = (3590..=3600, 604_790..=604_800);
    for key in ["cb1:{test}:b:x", "cb1:{test}:names"] {
        assert!(hour.contains(&ttl(&server, key)), "{key}");
    }
    assert!(week.contains(&ttl(&server, "cb1:{test}:meta")));
    let windows = server.cli(&["KEYS", "cb1:{test}:w:10000000/1000000:*"]);
    assert!((60..=72).contains(&ttl(&server, &windows)), "one bucket, for its window and a minute");
    let every_sequence = server.cli(&["KEYS", "cb1:{test}:s:*"]);
    assert!(hour.contains(&ttl(&server, &every_sequence)));

    for state in [State::Open, State::HalfOpen, State::ForcedOpen, State::Disabled, State::MetricsOnly] {
        say(&store, forcing("x", state)).await;
        say(
            &store,
            Entry {
                leases: LeaseRequest {
                    want: vec![1],
                    limit: 1,
                    term_us: 10 * SECOND,
                    ..LeaseRequest::default()
                },
                ..counting.clone()
            },
        )
        .await;
        assert!(ttl(&server, "cb1:{test}:meta") == -1 || !state.is_manual(), "{state}");
        for key in ["cb1:{test}:b:x", "cb1:{test}:names", "cb1:{test}:held"] {
            let life = match state {
                _ if state.is_manual() => -1..=-1,
                // What all breakers share lives for an hour longer.
                State::Open => 3650..=2 * 3600 + 65,
                // Rounded up to whole seconds, once for the state and once for what is shared.
                _ => 3590..=2 * 3600 + 5,
            };
            assert!(life.contains(&ttl(&server, key)), "{key} {state}: {}", ttl(&server, key));
        }
        if state == State::HalfOpen {
            assert!((9..=11).contains(&ttl(&server, "cb1:{test}:l:x")));
        }
    }
    assert!(hour.contains(&ttl(&server, "cb1:{test}:events")));

    say(&store, forcing("y", State::Disabled)).await;
    say(&store, forcing("x", State::Closed)).await;
    assert!(hour.contains(&ttl(&server, "cb1:{test}:b:x")));
    assert_eq!(ttl(&server, "cb1:{test}:meta"), -1, "y is held still");
    say(&store, forcing("y", State::Closed)).await;
    let keys = server.cli(&["KEYS", "*"]);
    for key in keys.lines() {
        let longest = if key.ends_with(":meta") { 604_800 } else { 3600 };
        assert!((1..=longest).contains(&ttl(&server, key)), "{key}");
    }
}

#[tokio::test]
async fn count_window_expires_an_hour_after_its_last_use() {
    let server = RedisServer::start();
    let (clock, hands) = crate::clock::Clock::manual();
    let store = super::RedisStore::on_clock(Target::Single(server.url()), "test", clock);
    let (key, hour) = ("cb1:{test}:n:10:x", 3590..=3600);
    let asking = || Entry { last: Some(CountWindowRequest { calls: 10, since: 0 }), ..about("x") };
    say(&store, asking()).await;
    assert_eq!(server.cli(&["KEYS", "*:n:*"]), "", "to ask after them does not make them");
    let calls = [(OutcomeKind { failed: true, slow: false }, 1)].into_iter().collect();
    let delta = Delta { calls, ..Delta::default() };
    say(&store, Entry { delta, ..asking() }).await;
    assert!(hour.contains(&ttl(&server, key)));
    server.cli(&["EXPIRE", key, "100"]);
    hands.advance(Duration::from_secs(299));
    say(&store, asking()).await;
    assert!(ttl(&server, key) <= 100, "not at every sync");
    hands.advance(Duration::from_secs(2));
    assert_eq!(say(&store, asking()).await.last.unwrap().place, 1);
    assert!(hour.contains(&ttl(&server, key)));
    // Also while the breaker is held.
    say(&store, forcing("x", State::HalfOpen)).await;
    assert_eq!(say(&store, asking()).await.last.unwrap().place, 0);
    assert!(ttl(&server, key) > 0);
}

#[tokio::test]
async fn role_keeps_its_breaker_as_long_as_it_is_renewed() {
    let server = RedisServer::start();
    let (clock, hands) = crate::clock::Clock::manual();
    let store = super::RedisStore::on_clock(Target::Single(server.url()), "test", clock);
    let key = "cb1:{test}:b:x";
    let mut seq = 0;
    let mut ask = async |want| {
        seq += 1;
        let entry = Entry { role: Some(LeaderRequest { want, term_us: 60 * SECOND }), ..about("x") };
        let batch = crate::store::Batch { instance: "a".into(), seq, ..batch(vec![entry]) };
        Store::exchange(&store, batch).await.unwrap().views.remove(0).unwrap()
    };
    ask(false).await;
    assert_eq!(server.cli(&["KEYS", "cb1:{test}:b:*"]), "", "there is nothing to give up");
    ask(true).await;
    assert!((3590..=3600).contains(&ttl(&server, key)));
    assert_eq!(server.cli(&["ZRANGE", "cb1:{test}:names", "0", "-1"]), "x");
    server.cli(&["EXPIRE", key, "100"]);
    hands.advance(Duration::from_secs(301));
    ask(true).await;
    assert!((3590..=3600).contains(&ttl(&server, key)));
    ask(false).await;
    assert_eq!(server.cli(&["HGET", key, "leader"]), "");
    assert!(ttl(&server, key) > 0, "and goes as any other");
}

#[tokio::test]
async fn written_back_override_does_not_expire() {
    let server = RedisServer::start();
    let store = store(&server);
    let known = say(&store, forcing("x", State::ForcedOpen)).await.record;
    server.cli(&["FLUSHALL"]);
    say(&store, counting("x", 1, 1)).await;
    assert!(ttl(&server, "cb1:{test}:b:x") > 0);
    say(&store, Entry { known: Some(known), ..about("x") }).await;
    for key in ["cb1:{test}:b:x", "cb1:{test}:meta", "cb1:{test}:names", "cb1:{test}:held"] {
        assert_eq!(ttl(&server, key), -1, "{key}");
    }
}

#[tokio::test]
async fn use_prolongs_a_life_but_not_at_every_sync() {
    let server = RedisServer::start();
    let (clock, hands) = crate::clock::Clock::manual();
    let store = super::RedisStore::on_clock(Target::Single(server.url()), "test", clock);
    let key = "cb1:{test}:b:x";
    say(&store, counting("x", 1, 1)).await;
    server.cli(&["EXPIRE", key, "100"]);
    hands.advance(Duration::from_secs(299));
    say(&store, counting("x", 1, 0)).await;
    assert!(ttl(&server, key) <= 100);
    hands.advance(Duration::from_secs(2));
    say(&store, about("x")).await;
    assert!(ttl(&server, key) > 3500, "asking after it is use enough");
    assert!(ttl(&server, "cb1:{test}:meta") > 3500);
}

#[tokio::test]
async fn list_of_names_drops_expired_breakers() {
    let server = RedisServer::start();
    let (clock, hands) = crate::clock::Clock::manual();
    let store = super::RedisStore::on_clock(Target::Single(server.url()), "test", clock);
    say(&store, counting("gone", 1, 1)).await;
    say(&store, forcing("open", State::Open)).await;
    say(&store, forcing("held", State::Disabled)).await;
    hands.advance(Duration::from_secs(2 * 3600));
    say(&store, counting("new", 1, 1)).await;
    assert_eq!(server.cli(&["ZRANGE", "cb1:{test}:names", "0", "-1"]), "new\nheld");
}

#[tokio::test]
async fn thousand_idle_breakers_leave_nothing_behind() {
    let server = RedisServer::start();
    let store = store(&server);
    let entries = (0..1000).map(|i| Entry { window: Some(WINDOW), ..counting(&format!("b{i}"), 1, 1) });
    exchange(&store, entries.collect()).await;
    let keys = server.cli(&["KEYS", "*"]);
    assert!(keys.lines().count() > 1000);
    for key in keys.lines() {
        assert!(ttl(&server, key) > 0, "{key}");
        server.cli(&["PEXPIRE", key, "1"]);
    }
    wait_until(PATIENCE, "all have expired", || server.cli(&["KEYS", "*"]).is_empty());
    assert_eq!(fleet(&store).await, []);
}

#[tokio::test]
async fn exchange_of_successes_costs_few_commands_inside_the_script() {
    let server = RedisServer::start();
    let store = store(&server);
    let many = |count: usize, window: Option<WindowRequest>| {
        let entry = |i| {
            let buckets = vec![(0, counting("", 3, 0).delta.counts)];
            let streak = Streak { success: Some(0), failures: vec![] };
            let delta = Delta { streak, buckets, ..counting("", 3, 0).delta };
            let since = if window.is_some() { u64::MAX } else { 0 };
            let window = window.map(|ask| WindowRequest { since, ..ask });
            Entry { delta, window, ..about(&format!("x{i}")) }
        };
        batch((0..count).map(entry).collect())
    };
    // One INFO and one EVALSHA are in between.
    let cost = async |batch: crate::store::Batch| {
        let before = server.commands_processed();
        Store::exchange(&store, batch).await.unwrap();
        server.commands_processed() - before - 2
    };
    let steady = Some(WindowRequest { length_us: 10_000 * SECOND, width_us: 1_000 * SECOND, since: 0 });
    for window in [None, steady] {
        cost(many(50, window)).await;
    }
    // TIME, SET, HMGET of what is shared; what reports have added: HMGET, HSET, EXPIRE, HLEN; then one HMGET
    // per breaker.
    assert_eq!(cost(many(1, None)).await, 8);
    assert_eq!(cost(many(50, None)).await, 8 + 49);
    // HMGET, HSET and PEXPIRE for the one bucket that is current.
    assert_eq!(cost(many(1, steady)).await, 8 + 3);
    assert_eq!(cost(many(50, steady)).await, 8 + 3 + 49);
}

#[tokio::test]
async fn report_of_fifty_breakers_costs_as_many_commands_as_one() {
    let server = RedisServer::start();
    let store = store(&server);
    let window = WindowRequest { length_us: 10_000 * SECOND, width_us: 1_000 * SECOND, since: 0 };
    let mut seq = 0;
    let mut cost = async |count: usize| {
        seq += 1;
        let counts = Counts { successes: 40, failures: 4, slow: 0 };
        let entry = |i| Reported {
            name: format!("x{i}").into(),
            counts,
            success_age_us: Some(0),
            window: Some(window),
            buckets: vec![(0, counts)],
            ..Reported::default()
        };
        let entries = (0..count).map(entry).collect();
        let report = Report { instance: "a".into(), seq, as_of_us: None, entries };
        let before = server.commands_processed();
        Store::report(&store, report).await.unwrap();
        server.commands_processed() - before - 2
    };
    cost(50).await;
    assert_eq!(cost(1).await, 11);
    assert_eq!(cost(50).await, 11);
}

#[tokio::test]
async fn hundred_thousand_names_that_only_succeed_leave_no_key_of_their_own() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, about("first")).await;
    for (seq, names) in (2..).zip((0..100_000).collect::<Vec<_>>().chunks(1_000)) {
        let counts = Counts { successes: 1, ..Counts::default() };
        let name = |i: &usize| -> Arc<str> { format!("tenant-{i}").into() };
        let exchanged = names.iter().take(100).map(|i| counting(&name(i), 1, 0)).collect();
        exchange(&store, exchanged).await;
        let entries =
            names.iter().skip(100).map(|i| Reported { name: name(i), counts, ..Reported::default() });
        let report = Report { instance: "a".into(), seq, as_of_us: None, entries: entries.collect() };
        Store::report(&store, report).await.unwrap();
    }
    let keys = server.cli(&["KEYS", "*"]);
    let of_breakers = keys.lines().filter(|key| key.contains(":b:")).count();
    assert_eq!(of_breakers, 0);
    let known = server.cli(&["HLEN", "cb1:{test}:quiet"]).parse::<usize>().unwrap();
    assert!(known <= 20_000, "{known}");
    for key in keys.lines() {
        let longest = if key.ends_with(":meta") { 604_800 } else { 3600 };
        assert!((1..=longest).contains(&ttl(&server, key)), "{key}");
    }
}

#[tokio::test]
async fn count_windows_of_successes_alone_have_no_keys_of_their_own() {
    let server = RedisServer::start();
    let store = store(&server);
    let called = |name: &str, failed: bool| {
        let counts = Counts { successes: u64::from(!failed), failures: u64::from(failed), slow: 0 };
        let calls = [(OutcomeKind { failed, slow: false }, 1)].into_iter().collect();
        let last = Some(CountWindowRequest { calls: 10, since: 0 });
        Entry { delta: Delta { counts, calls, ..Delta::default() }, last, ..about(name) }
    };
    let names: Vec<_> = (0..100).map(|i| format!("tenant-{i}")).collect();
    for _ in 0..2 {
        exchange(&store, names.iter().map(|name| called(name, false)).collect()).await;
    }
    let own = || -> Vec<String> {
        let keys = server.cli(&["KEYS", "*tenant*"]);
        keys.lines().map(ToOwned::to_owned).collect()
    };
    assert_eq!(own(), [""; 0]);
    let quiet = || server.cli(&["HLEN", "cb1:{test}:quiet"]);
    assert_eq!(quiet(), "200", "the counts and the window of each");
    let rows = fleet(&store).await;
    assert_eq!((rows.len(), rows.iter().all(|row| row.name.starts_with("tenant-"))), (100, true));

    say(&store, called("tenant-7", true)).await;
    let mut found = own();
    found.sort();
    assert_eq!(found, ["cb1:{test}:b:tenant-7", "cb1:{test}:n:10:tenant-7"]);
    assert_eq!(server.cli(&["HGET", &found[1], "outcomes"]), "ssf");
    assert!((1..=3600).contains(&ttl(&server, &found[1])));
    assert_eq!(quiet(), "199", "its window has moved");
    let view = say(&store, called("tenant-7", false)).await;
    assert_eq!((view.counts.successes, view.counts.failures, view.last.unwrap().place), (3, 1, 4));
}

/// Lets this time pass for all keys.
fn expire(server: &RedisServer, span: Duration) {
    for key in server.cli(&["KEYS", "*"]).lines() {
        let left = ttl(server, key) - i64::try_from(span.as_secs()).unwrap();
        if ttl(server, key) >= 0 {
            server.cli(&["EXPIRE", key, &left.to_string()]);
        }
    }
}

#[tokio::test]
async fn store_in_which_everything_has_expired_is_not_one_that_has_lost_its_data() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, forcing("x", State::ForcedOpen)).await;
    let known = Store::load(&store).await.unwrap().position;
    say(&store, forcing("x", State::Closed)).await;
    expire(&server, Duration::from_secs(3 * 3600));
    assert_eq!(server.cli(&["KEYS", "*"]), "cb1:{test}:meta");
    let load = Store::load(&store).await.unwrap();
    assert_eq!(load.held.len(), 0);
    assert_eq!(
        (load.position.incarnation, load.position.number),
        (known.incarnation.clone(), known.number + 1)
    );
    // After more than a week it knows nothing, and instances that were away meanwhile claim nothing.
    expire(&server, crate::store::REMEMBERED);
    assert_ne!(Store::load(&store).await.unwrap().position.incarnation, known.incarnation);
}
