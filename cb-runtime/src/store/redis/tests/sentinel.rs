//! The master that Sentinel names, before and after a failover.

use std::time::{Duration, Instant};

use cb_testkit::{PATIENCE, RedisServer, Reply, wait_until};

use super::{about, batch, counting, events, exchange, forcing, say};
use crate::snapshot::State;
use crate::store::redis::{RedisStore, Target};
use crate::store::{Batch, Entry, Position, Store};

struct Sentinels {
    master: RedisServer,
    replica: RedisServer,
    sentinel: RedisServer,
}

fn fleet() -> Sentinels {
    let args = &["--repl-diskless-sync-delay", "0"];
    let master = RedisServer::start_with(args);
    let replica = RedisServer::start_with(args);
    replica.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    wait_until(PATIENCE, "the replication is up", || {
        replica.info("replication", "master_link_status") == "up"
    });
    let sentinel = RedisServer::start_sentinel("main", &master);
    wait_until(PATIENCE, "the sentinel knows the replica", || {
        sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).contains(&replica.port().to_string())
    });
    Sentinels { master, replica, sentinel }
}

/// The server's role. Empty while the server closes its connections, as it does when its role changes.
fn role(server: &RedisServer) -> String {
    let role = server.try_command(&["ROLE"]).ok();
    role.and_then(|role| role.items().first().map(Reply::text)).unwrap_or_default()
}

fn store(urls: &[String]) -> RedisStore {
    let target = Target::Sentinel { urls: urls.to_vec(), master: "main".into() };
    RedisStore::new(target, "test").unwrap()
}

async fn until_answered(store: &RedisStore, batch: Batch) -> crate::store::Answer {
    let start = Instant::now();
    loop {
        match Store::exchange(store, batch.clone()).await {
            Ok(answer) => return answer,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn new_master_is_used_after_a_failover() {
    let Sentinels { master, replica, sentinel } = fleet();
    // An unreachable sentinel is skipped.
    let store = store(&["redis://127.0.0.1:1".into(), sentinel.url()]);
    let known = say(&store, forcing("x", State::Open)).await.record;
    let from = Store::load(&store).await.unwrap().position;
    wait_until(PATIENCE, "the replica has all keys", || replica.cli(&["DBSIZE"]) == master.cli(&["DBSIZE"]));
    master.stop();
    let report = Batch {
        node: "".into(),
        instance: "a".into(),
        seq: 1,
        as_of_us: None,
        entries: vec![Entry { known: Some(known), ..about("x") }],
    };
    let answer = until_answered(&store, report).await;
    assert_eq!(answer.views[0].as_ref().unwrap().record.state, State::Open);
    wait_until(PATIENCE, "the replica is the master", || role(&replica) == "master");
    say(&store, forcing("x", State::Closed)).await;
    assert_eq!(events(&store, from, PATIENCE).await.unwrap().len(), 1);
}

#[tokio::test]
async fn silent_sentinels_delay_no_connection() {
    let master = RedisServer::start();
    let sentinel = RedisServer::start_sentinel("main", &master);
    let silent: Vec<_> = (0..4).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let urls = silent.iter().map(|listener| format!("redis://{}", listener.local_addr().unwrap()));
    let store = store(&urls.chain([sentinel.url()]).collect::<Vec<_>>()).patient();
    let exchange = Store::exchange(&store, batch(vec![]));
    let answer = tokio::time::timeout(store.timeouts.loss(), exchange).await;
    answer.expect("no silent sentinel is waited for").unwrap();
}

#[tokio::test]
async fn demoted_master_is_not_used() {
    let Sentinels { master, replica, sentinel } = fleet();
    let store = store(&[sentinel.url()]);
    exchange(&store, vec![counting("x", 1, 0)]).await;
    let watched = || events(&store, Position { id: "0-0".into(), ..Position::default() }, Duration::ZERO);
    watched().await.unwrap();
    wait_until(PATIENCE, "the sentinel accepts the replica", || {
        sentinel.command(&["SENTINEL", "FAILOVER", "main"]) == Reply::Status("OK".into())
    });
    wait_until(PATIENCE, "the roles have changed", || role(&replica) == "master" && role(&master) == "slave");
    until_answered(&store, batch(vec![forcing("x", State::Open)])).await;
    assert_eq!(replica.cli(&["HGET", "cb1:{test}:b:x", "state"]), "open");
    // The servers have closed the store's connection.
    let start = Instant::now();
    let events = loop {
        match watched().await {
            Ok(events) => break events,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(events.len(), 1);
    let named = |line: &&str| line.contains("cmd=xread");
    assert_eq!(
        replica.cli(&["CLIENT", "LIST"]).lines().filter(named).count(),
        1,
        "the watching connection has moved, too"
    );
}

#[tokio::test]
async fn credentials_and_database_are_the_masters() {
    let master = RedisServer::start_with(&["--requirepass", "secret"]);
    let sentinel = RedisServer::start_sentinel("main", &master);
    let url = sentinel.url().replace("redis://", "redis://:secret@") + "/3";
    let store = store(&[url]);
    exchange(&store, vec![counting("x", 1, 0)]).await;
    assert!(master.info("keyspace", "db3").contains("keys="));
    // A sentinel with a password.
    sentinel.cli(&["ACL", "SETUSER", "default", "resetpass", ">secret"]);
    let again = self::store(&[sentinel.url().replace("redis://", "redis://:secret@") + "/3"]);
    assert_eq!(say(&again, about("x")).await.counts.successes, 1);
}

#[tokio::test]
async fn errors_name_the_problem() {
    let master = RedisServer::start();
    let sentinel = RedisServer::start_sentinel("other", &master);
    let error = Store::exchange(&store(&[sentinel.url()]), batch(vec![])).await.unwrap_err();
    assert!(error.to_string().contains("no master with the name \"main\""), "{error}");
    let error = Store::exchange(&store(&[master.url()]), batch(vec![])).await.unwrap_err();
    assert!(error.is_store(), "{error}");
    let none = Target::Sentinel { urls: vec![], master: "main".into() };
    assert!(RedisStore::new(none, "test").err().unwrap().is_config());
}

#[test]
fn empty_name_of_a_master_is_an_error() {
    let target = Target::Sentinel { urls: vec!["redis://127.0.0.1:1".into()], master: String::new() };
    let error = RedisStore::new(target, "test").err().expect("the name is empty");
    assert!(error.is_config() && error.to_string().contains("the master's name is empty"), "{error}");
}
