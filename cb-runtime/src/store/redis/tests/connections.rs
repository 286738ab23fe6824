//! Connections: how many, when they are made, and what becomes of them when something fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cb_testkit::{PATIENCE, Proxy, RedisServer, Reply, wait_until};

use super::{about, at, batch, counting, exchange, forcing, impatient, say, store};
use crate::snapshot::State;
use crate::store::redis::{RESPONSE_TIMEOUT, RedisStore};
use crate::store::{Batch, Position, Store};

/// However busy the machine is, an impatient store will have its answer at last.
async fn until_it_answers(store: &RedisStore) {
    let start = Instant::now();
    while let Err(error) = Store::exchange(store, batch(vec![])).await {
        assert!(start.elapsed() < PATIENCE, "{error}");
    }
}

fn nowhere() -> Position {
    Position { id: "0-0".into(), ..Position::default() }
}

#[tokio::test]
async fn two_connections_are_made_and_not_before_they_are_needed() {
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
        assert_eq!(Store::watch(&*store, nowhere(), Duration::from_millis(5)).await.unwrap(), []);
    }
    assert_eq!(server.connected_clients(), 2);
}

#[tokio::test]
async fn an_exchange_is_one_command() {
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
async fn a_watch_does_not_hold_commands_up() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server));
    let watcher = store.clone();
    let watching = tokio::spawn(async move { Store::watch(&*watcher, nowhere(), PATIENCE).await.unwrap() });
    wait_until(PATIENCE, "it waits", || server.info("clients", "blocked_clients") == "1");
    say(&store, counting("x", 1, 0)).await;
    say(&store, forcing("x", State::Open)).await;
    assert_eq!(watching.await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_watch_that_was_given_up_does_not_delay_the_next() {
    let server = RedisServer::start();
    let store = store(&server);
    let given_up = Store::watch(&store, nowhere(), Duration::from_secs(3600));
    tokio::time::timeout(Duration::from_millis(50), given_up).await.unwrap_err();
    say(&store, forcing("x", State::Open)).await;
    assert_eq!(Store::watch(&store, nowhere(), PATIENCE).await.unwrap().len(), 1);
    wait_until(PATIENCE, "the old connection is gone", || server.connected_clients() == 2);
}

#[tokio::test]
async fn emptied_scripts_go_unnoticed() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, forcing("x", State::Open)).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(say(&store, about("x")).await.record.state, State::Open);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(Store::load(&store).await.unwrap().held.len(), 1);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(Store::fleet(&store).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_and_is_found_again() {
    let server = RedisServer::start();
    let store = store(&server);
    exchange(&store, vec![]).await;
    Store::watch(&store, nowhere(), Duration::ZERO).await.unwrap();
    server.stop();
    for _ in 0..2 {
        let error = Store::exchange(&store, batch(vec![])).await.unwrap_err();
        assert!(error.is_store(), "{error}");
        assert!(Store::watch(&store, nowhere(), Duration::ZERO).await.unwrap_err().is_store());
    }
    let error = Store::exchange(&store, batch(vec![])).await.unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{}", server.port())), "{error}");
    server.restart();
    say(&store, forcing("x", State::Open)).await;
    assert_eq!(Store::watch(&store, nowhere(), Duration::ZERO).await.unwrap().len(), 1);
    assert_eq!(server.connected_clients(), 2);
}

#[tokio::test]
async fn a_frozen_server_is_an_error_in_time() {
    let server = RedisServer::start();
    let store = impatient(&server.url());
    until_it_answers(&store).await;
    server.freeze();
    let start = Instant::now();
    // The first one has a connection already, the second one makes one anew.
    for _ in 0..2 {
        assert!(Store::exchange(&store, batch(vec![])).await.unwrap_err().is_store());
    }
    assert!(Store::watch(&store, nowhere(), Duration::ZERO).await.unwrap_err().is_store());
    assert!(start.elapsed() >= RESPONSE_TIMEOUT);
    assert!(start.elapsed() < PATIENCE);
    server.thaw();
    until_it_answers(&store).await;
}

#[tokio::test]
async fn a_crowd_makes_one_attempt() {
    let server = RedisServer::start();
    // In the second protocol a connection is ready once it is there, in the third it greets the server.
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
        until_it_answers(&store).await;
        assert!(proxy.accepted() >= 2, "{protocol}");
    }
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_counts_once() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    let store = impatient(&proxy.url());
    let report = Batch { instance: "a".into(), seq: 1, as_of_us: None, entries: vec![counting("x", 2, 1)] };
    until_it_answers(&store).await;
    proxy.stall_answers();
    let error = Store::exchange(&store, report.clone()).await.unwrap_err();
    assert!(error.is_store(), "{error}");
    let arrived = || server.cli(&["HGET", "cb1:{test}:b:x", "failures"]) == "1";
    wait_until(PATIENCE, "it has arrived all the same", arrived);
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
async fn a_user_who_may_touch_only_our_keys_is_enough() {
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
    assert_eq!(Store::fleet(&store).await.unwrap().len(), 1);
    assert_eq!(Store::watch(&store, nowhere(), Duration::from_millis(5)).await.unwrap().len(), 1);
    store.cache_put("k".into(), vec![1], PATIENCE).await.unwrap();
    assert_eq!(store.cache_get("k".into()).await.unwrap().map(|cached| cached.value), Some(vec![1]));
    let log = server.command(&["ACL", "LOG"]);
    assert_eq!(log, Reply::Many(vec![]), "nothing was denied");
}

#[tokio::test]
async fn an_address_may_ask_for_the_third_protocol_and_a_database() {
    let server = RedisServer::start();
    let store = at(&format!("{}/3?protocol=resp3", server.url()));
    exchange(&store, vec![counting("x", 1, 1), forcing("y", State::Open)]).await;
    assert_eq!(Store::load(&store).await.unwrap().held.len(), 1);
    assert_eq!(Store::fleet(&store).await.unwrap().len(), 2);
    assert_eq!(Store::watch(&store, nowhere(), PATIENCE).await.unwrap().len(), 1);
    let from = Store::load(&store).await.unwrap().position;
    assert_eq!(Store::watch(&store, from, Duration::from_millis(5)).await.unwrap(), []);
    store.cache_put("k".into(), vec![1], PATIENCE).await.unwrap();
    assert_eq!(store.cache_get("k".into()).await.unwrap().map(|cached| cached.value), Some(vec![1]));
    assert!(server.info("keyspace", "db3").contains("keys="));
}

#[tokio::test]
async fn a_wrong_password_is_said_without_saying_it() {
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

#[tokio::test]
async fn a_server_that_takes_no_writes_does_nothing_of_a_batch() {
    let master = RedisServer::start();
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, counting("x", 1, 0)).await;
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let report = Batch { instance: "a".into(), seq: 1, as_of_us: None, entries: vec![counting("x", 1, 0)] };
    let error = Store::exchange(&store, report.clone()).await.unwrap_err();
    assert!(error.to_string().contains("NOREPLICAS"), "{error}");
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = Store::exchange(&store, report.clone()).await.unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(server.connected_clients(), 1, "such an answer is no reason to connect anew");
    let view = Store::exchange(&store, report.clone()).await.unwrap().views.remove(0).unwrap();
    assert_eq!(view.counts.successes, 2);

    // A replica: the master is somewhere else now, so both connections are made anew.
    Store::watch(&store, nowhere(), Duration::ZERO).await.unwrap();
    server.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    wait_until(PATIENCE, "it is a replica", || server.info("replication", "master_link_status") == "up");
    let before = server.info("stats", "total_connections_received");
    let error = Store::exchange(&store, report).await.unwrap_err();
    assert!(error.to_string().contains("READONLY") || error.to_string().contains("read only"), "{error}");
    Store::watch(&store, nowhere(), Duration::ZERO).await.unwrap();
    assert_ne!(server.info("stats", "total_connections_received"), before);
}
