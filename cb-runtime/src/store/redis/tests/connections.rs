//! Connections: their number, when they are made, and their failures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cb_testkit::{PATIENCE, Proxy, RedisServer, Reply, wait_until};

use super::{
    about, at, batch, counting, events, exchange, fleet, forcing, impatient, is_subscribed, say, store,
    unknown_position,
};
use crate::snapshot::State;
use crate::store::redis::RedisStore;
use crate::store::{Batch, Report, Reported, ResultStore, Store};
use crate::timeouts::Timeouts;

/// Repeats an exchange until it is answered: on a busy machine, a store with a short deadline may need
/// several.
async fn until_answered(store: &RedisStore) {
    let start = Instant::now();
    while let Err(error) = Store::exchange(store, batch(vec![])).await {
        assert!(start.elapsed() < PATIENCE, "{error}");
    }
}

#[tokio::test]
async fn two_connections_are_made_on_demand() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server));
    assert_eq!(server.connected_clients(), 0);
    for _ in 0..3 {
        let all = (0..20).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { exchange(&store, vec![counting("x", 1, 0)]).await })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        store.cache_get("k".into()).await.unwrap();
        Store::load(&*store).await.unwrap();
    }
    assert_eq!(server.connected_clients(), 1);
    assert_eq!(say(&store, about("x")).await.counts.successes, 60);
    for _ in 0..3 {
        assert_eq!(events(&store, unknown_position(), Duration::from_millis(5)).await.unwrap(), []);
    }
    assert_eq!(server.connected_clients(), 2);
}

#[tokio::test]
async fn exchange_is_one_command() {
    let server = RedisServer::start();
    let store = store(&server);
    exchange(&store, vec![]).await;
    let monitor = server.monitor();
    exchange(&store, (0..100).map(|i| counting(&format!("x{i}"), 1, 1)).collect()).await;
    let commands = monitor.finish();
    assert_eq!(commands.len(), 1, "{commands:?}");
    assert!(commands[0].starts_with("\"EVALSHA\""), "{commands:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_does_not_delay_commands() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server));
    let watcher = store.clone();
    let watching = tokio::spawn(async move { events(&watcher, unknown_position(), PATIENCE).await.unwrap() });
    wait_until(PATIENCE, "it waits", || is_subscribed(&server));
    say(&store, counting("x", 1, 0)).await;
    say(&store, forcing("x", State::Open)).await;
    assert_eq!(watching.await.unwrap().len(), 1);
}

#[tokio::test]
async fn abandoned_watch_does_not_delay_the_next() {
    let server = RedisServer::start();
    let store = store(&server);
    let given_up = events(&store, unknown_position(), Duration::from_secs(3600));
    tokio::time::timeout(Duration::from_millis(50), given_up).await.unwrap_err();
    say(&store, forcing("x", State::Open)).await;
    assert_eq!(events(&store, unknown_position(), PATIENCE).await.unwrap().len(), 1);
    wait_until(PATIENCE, "the old connection is closed", || server.connected_clients() == 2);
}

#[tokio::test]
async fn flushed_scripts_are_reloaded() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, forcing("x", State::Open)).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(say(&store, about("x")).await.record.state, State::Open);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(Store::load(&store).await.unwrap().held.len(), 1);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(fleet(&store).await.len(), 1);
}

#[tokio::test]
async fn server_outage_is_an_error_and_ends() {
    let server = RedisServer::start();
    let store = store(&server);
    exchange(&store, vec![]).await;
    events(&store, unknown_position(), Duration::ZERO).await.unwrap();
    server.stop();
    for _ in 0..2 {
        let error = Store::exchange(&store, batch(vec![])).await.unwrap_err();
        assert!(error.is_store(), "{error}");
        assert!(events(&store, unknown_position(), Duration::ZERO).await.unwrap_err().is_store());
    }
    let error = Store::exchange(&store, batch(vec![])).await.unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{}", server.port())), "{error}");
    server.restart();
    say(&store, forcing("x", State::Open)).await;
    assert_eq!(events(&store, unknown_position(), Duration::ZERO).await.unwrap().len(), 1);
    assert_eq!(server.connected_clients(), 2);
}

#[tokio::test]
async fn frozen_server_is_an_error_in_time() {
    let server = RedisServer::start();
    let store = impatient(&server.url());
    until_answered(&store).await;
    server.freeze();
    let start = Instant::now();
    // The first one has a connection, the second one makes a new one.
    let entries = || (0..10).map(|number| counting(&format!("breaker-{number}"), 1, 0)).collect();
    let first = Store::exchange(&store, batch(entries())).await.unwrap_err();
    assert!(first.is_store() && first.to_string().contains("no answer within 1s"), "{first}");
    assert!(Store::exchange(&store, batch(entries())).await.unwrap_err().is_store());
    assert!(events(&store, unknown_position(), Duration::ZERO).await.unwrap_err().is_store());
    assert!(start.elapsed() >= Timeouts::default().loss());
    assert!(start.elapsed() < PATIENCE);
    server.thaw();
    until_answered(&store).await;
}

#[tokio::test]
async fn concurrent_callers_make_one_attempt() {
    let server = RedisServer::start();
    // With RESP2 a connection is ready at once; with RESP3 it sends HELLO first.
    for protocol in ["", "?protocol=resp3"] {
        let proxy = Proxy::start(server.port());
        proxy.stall();
        let store = Arc::new(impatient(&format!("{}/{protocol}", proxy.url())));
        let all: Vec<_> = (0..50)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { Store::exchange(&*store, batch(vec![])).await.unwrap_err() })
            })
            .collect();
        for one in all {
            assert!(one.await.unwrap().is_store());
        }
        assert_eq!(proxy.accepted(), 1, "{protocol}");
        proxy.heal();
        until_answered(&store).await;
        assert!(proxy.accepted() >= 2, "{protocol}");
    }
}

#[tokio::test]
async fn retry_after_a_lost_answer_counts_once() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let store = impatient(&proxy.url());
    let report =
        Batch { instance: "a".into(), seq: 1, entries: vec![counting("x", 2, 1)], ..Batch::default() };
    until_answered(&store).await;
    proxy.stall_answers();
    let error = Store::exchange(&store, report.clone()).await.unwrap_err();
    assert!(error.is_store(), "{error}");
    let arrived = || server.cli(&["HGET", "cb1:{test}:b:x", "failures"]) == "1";
    wait_until(PATIENCE, "the request has arrived", arrived);
    proxy.cut();
    Store::exchange(&store, report.clone()).await.unwrap_err();
    proxy.heal();
    let store = at(&proxy.url());
    for _ in 0..2 {
        let view = Store::exchange(&store, report.clone()).await.unwrap().views.remove(0).unwrap();
        assert_eq!((view.counts.successes, view.counts.failures), (2, 1));
    }
}

#[tokio::test]
async fn acl_user_for_the_prefix_suffices() {
    let server = RedisServer::start();
    let page = include_str!("../../../../../docs/redis.md");
    let documented = page.lines().find(|line| line.starts_with("ACL SETUSER breaker ")).unwrap();
    let command = documented.replace(">secret", ">pa%ss@word");
    server.cli(&command.split(' ').collect::<Vec<_>>());
    let url = format!("redis://breaker:pa%25ss%40word@127.0.0.1:{}", server.port());
    let store = at(&url);
    say(&store, counting("x", 1, 1)).await;
    say(&store, forcing("x", State::HalfOpen)).await;
    assert_eq!(Store::load(&store).await.unwrap().held.len(), 1);
    assert_eq!(fleet(&store).await.len(), 1);
    assert_eq!(events(&store, unknown_position(), Duration::from_millis(5)).await.unwrap().len(), 1);
    store.cache_put("k".into(), vec![1], PATIENCE).await.unwrap();
    assert_eq!(store.cache_get("k".into()).await.unwrap().map(|cached| cached.value), Some(vec![1]));
    let log = server.command(&["ACL", "LOG"]);
    assert_eq!(log, Reply::Many(vec![]), "nothing was denied");
}

#[tokio::test]
async fn address_selects_protocol_and_database() {
    let server = RedisServer::start();
    let store = at(&format!("{}/3?protocol=resp3", server.url()));
    exchange(&store, vec![counting("x", 1, 1), forcing("y", State::Open)]).await;
    assert_eq!(Store::load(&store).await.unwrap().held.len(), 1);
    assert_eq!(fleet(&store).await.len(), 2);
    assert_eq!(events(&store, unknown_position(), PATIENCE).await.unwrap().len(), 1);
    let from = Store::load(&store).await.unwrap().position;
    assert_eq!(events(&store, from, Duration::from_millis(5)).await.unwrap(), []);
    store.cache_put("k".into(), vec![1], PATIENCE).await.unwrap();
    assert_eq!(store.cache_get("k".into()).await.unwrap().map(|cached| cached.value), Some(vec![1]));
    assert!(server.info("keyspace", "db3").contains("keys="));
}

#[tokio::test]
async fn wrong_password_error_has_no_password() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    for url in [
        format!("redis://:hunter2@127.0.0.1:{}", server.port()),
        format!("redis://hunter2:hunter2@127.0.0.1:{}", server.port()),
    ] {
        let error = Store::exchange(&at(&url), batch(vec![])).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert!(error.to_string().contains("uthentication"), "{error}");
    }
    let store = at(&format!("redis://127.0.0.1:{}", server.port()));
    let error = Store::exchange(&store, batch(vec![])).await.unwrap_err();
    assert!(error.to_string().contains("NOAUTH"), "{error}");
}

/// Redis refuses the first request, which has more than ten arguments, in other words than a short one, and
/// closes the connection.
#[tokio::test]
async fn missing_password_error_suggests_one() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let store = at(&format!("redis://127.0.0.1:{}", server.port()));
    assert_every_load_fails(&store, "requires a password").await;
}

/// The server closes the connection after this answer. It must not be used again, or the next error would be
/// that it is closed.
#[tokio::test]
async fn server_with_too_many_clients_is_the_error_of_every_attempt() {
    let server = RedisServer::start();
    // The test's own connection.
    server.cli(&["CONFIG", "SET", "maxclients", "1"]);
    assert_every_load_fails(&store(&server), "max number of clients").await;
}

async fn assert_every_load_fails(store: &RedisStore, words: &str) {
    for _ in 0..3 {
        let error = Store::load(store).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn denied_permission_error_refers_to_the_documentation() {
    let server = RedisServer::start();
    let allow = |rules: &[&str]| {
        server.cli(&[&["ACL", "SETUSER", "u", "reset", "on", ">p", "allchannels", "+@all"], rules].concat());
    };
    allow(&["~*", "-publish"]);
    let store = at(&format!("redis://u:p@127.0.0.1:{}", server.port()));
    let answer = Store::exchange(&store, batch(vec![forcing("x", State::Open)])).await.unwrap();
    assert!(answer.warnings[0].contains("docs/redis.md"), "{:?}", answer.warnings);
    allow(&["~other:*"]);
    let error = Store::load(&store).await.unwrap_err();
    assert!(error.to_string().contains("docs/redis.md"), "{error}");
}

#[tokio::test]
async fn refused_write_has_no_effect() {
    let master = RedisServer::start();
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, counting("x", 1, 0)).await;
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let report =
        Batch { instance: "a".into(), seq: 1, entries: vec![counting("x", 1, 0)], ..Batch::default() };
    let error = Store::exchange(&store, report.clone()).await.unwrap_err();
    assert!(error.to_string().contains("NOREPLICAS"), "{error}");
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = Store::exchange(&store, report.clone()).await.unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
    let nothing = Report { instance: "a".into(), seq: 2, ..Report::default() };
    Store::report(&store, nothing.clone()).await.expect("an instance that has nothing to report stays");
    let something = Report { entries: vec![Reported { name: "x".into(), ..Reported::default() }], ..nothing };
    let error = Store::report(&store, something).await.unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(server.connected_clients(), 1, "such an answer keeps the connection");
    let view = Store::exchange(&store, report.clone()).await.unwrap().views.remove(0).unwrap();
    assert_eq!(view.counts.successes, 2);

    // A replica is not the master any more, so both connections are made again.
    events(&store, unknown_position(), Duration::ZERO).await.unwrap();
    server.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    wait_until(PATIENCE, "the replication is up", || {
        server.info("replication", "master_link_status") == "up"
    });
    let before = server.info("stats", "total_connections_received");
    let error = Store::exchange(&store, report).await.unwrap_err();
    assert!(error.to_string().contains("READONLY") || error.to_string().contains("read only"), "{error}");
    events(&store, unknown_position(), Duration::ZERO).await.unwrap();
    assert_ne!(server.info("stats", "total_connections_received"), before);
}
