//! A cluster of three masters. The rules of the contract also run against one, see `contract`.

use std::time::Duration;

use cb_testkit::{PATIENCE, RedisCluster};

use super::{
    about, batch, busy_keys, calls_of_xread, counting, events, exchange, fleet, forcing, is_subscribed, say,
    unknown_position,
};
use crate::snapshot::State;
use crate::store::redis::{RedisStore, Target};
use crate::store::{Position, ResultStore, Store};
use crate::sync::lock;

fn store(cluster: &RedisCluster, namespace: &str) -> RedisStore {
    RedisStore::new(Target::Cluster(cluster.urls()), namespace).unwrap().patient()
}

#[tokio::test]
async fn namespaces_and_cached_results_spread_over_the_nodes() {
    let cluster = RedisCluster::start(3);
    for i in 0..20 {
        let store = store(&cluster, &format!("ns{i}"));
        exchange(&store, vec![counting("x", 1, 1), forcing("y", State::Open)]).await;
        assert_eq!(Store::load(&store).await.unwrap().held.len(), 1);
        assert_eq!(fleet(&store).await.len(), 2);
        let from = Position { id: "0-0".into(), ..Position::default() };
        assert_eq!(events(&store, from, PATIENCE).await.unwrap().len(), 1);
    }
    let store = store(&cluster, "cache");
    for i in 0..50 {
        store.cache_put(format!("k{i}"), vec![i], PATIENCE).await.unwrap();
    }
    for i in 0..50 {
        assert_eq!(store.cache_get(format!("k{i}")).await.unwrap().map(|cached| cached.value), Some(vec![i]));
    }
    for node in cluster.nodes() {
        let keys = busy_keys(node);
        assert!(
            keys.iter().any(|key| key.contains(":b:x")) && keys.iter().any(|key| key.contains(":c:k")),
            "{keys:?}"
        );
    }
}

#[tokio::test]
async fn flushed_scripts_are_reloaded() {
    let cluster = RedisCluster::start(3);
    let store = store(&cluster, "test");
    for _ in 0..3 {
        say(&store, counting("x", 1, 0)).await;
        for node in cluster.nodes() {
            node.cli(&["SCRIPT", "FLUSH"]);
        }
    }
    assert_eq!(say(&store, about("x")).await.counts.successes, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_does_not_delay_commands() {
    let cluster = RedisCluster::start(3);
    let store = std::sync::Arc::new(store(&cluster, "test"));
    exchange(&store, vec![]).await;
    let watcher = store.clone();
    let watching = tokio::spawn(async move { events(&watcher, unknown_position(), PATIENCE).await.unwrap() });
    cb_testkit::wait_until(PATIENCE, "it waits", || cluster.nodes().iter().any(is_subscribed));
    say(&store, counting("x", 1, 0)).await;
    say(&store, forcing("x", State::Open)).await;
    assert_eq!(watching.await.unwrap().len(), 1);
}

#[tokio::test]
async fn events_of_all_nodes_clients_come_as_messages() {
    let cluster = RedisCluster::start(3);
    let store = store(&cluster, "test");
    say(&store, forcing("x", State::Open)).await;
    let mut from = events(&store, unknown_position(), PATIENCE).await.unwrap().remove(0).position;
    let reads = || cluster.nodes().iter().map(calls_of_xread).sum::<u64>();
    let before = reads();
    for to in [State::Closed, State::Open, State::Closed] {
        say(&store, forcing("x", to)).await;
        from = events(&store, from, PATIENCE).await.unwrap().remove(0).position;
    }
    assert_eq!((from.number, reads()), (4, before));
}

#[tokio::test]
async fn node_outage_is_an_error_and_ends() {
    let cluster = RedisCluster::start(3);
    let store = RedisStore::new(Target::Cluster(cluster.urls()), "test").unwrap();
    let patient = self::store(&cluster, "test");
    say(&patient, forcing("x", State::Open)).await;
    let context = cluster.nodes().iter().find(|node| !busy_keys(node).is_empty()).unwrap();
    context.freeze();
    for _ in 0..2 {
        assert!(Store::exchange(&store, batch(vec![])).await.unwrap_err().is_store());
    }
    context.thaw();
    until_answered(&store).await;
    assert_eq!(say(&patient, about("x")).await.record.state, State::Open);
}

async fn until_answered(store: &RedisStore) {
    let start = std::time::Instant::now();
    while let Err(error) = Store::exchange(store, batch(vec![])).await {
        assert!(start.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A cluster that goes on without one of its nodes, a store on it, and the place of a node that has none of
/// its breakers.
async fn cluster_with_another_node() -> (RedisCluster, RedisStore, usize) {
    let cluster = RedisCluster::start(3);
    for node in cluster.nodes() {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let store = hasty(&cluster);
    until_answered(&store).await;
    let other = (owner(&cluster, &store.keys.meta()) + 1) % 3;
    (cluster, store, other)
}

/// The place of the node that has this key.
fn owner(cluster: &RedisCluster, key: &str) -> usize {
    let slot: usize = cluster.nodes()[0].cli(&["CLUSTER", "KEYSLOT", key]).trim().parse().unwrap();
    (0..3).rfind(|node| slot >= node * 16_384 / 3).unwrap()
}

fn hasty(cluster: &RedisCluster) -> RedisStore {
    RedisStore::new(Target::Cluster(cluster.urls()), "test").unwrap()
}

#[tokio::test]
async fn silent_node_keeps_no_instance_from_another_nodes_namespace() {
    let (cluster, before, other) = cluster_with_another_node().await;
    cluster.nodes()[other].freeze();
    until_answered(&before).await;
    // One that starts now.
    until_answered(&hasty(&cluster)).await;
    // Scripts are loaded on all nodes.
    cluster.nodes()[owner(&cluster, &before.keys.meta())].cli(&["SCRIPT", "FLUSH"]);
    until_answered(&before).await;
}

#[tokio::test]
async fn cached_result_of_a_silent_node_does_not_end_the_connection() {
    let (cluster, store, other) = cluster_with_another_node().await;
    let generation = || lock(&store.commands).as_ref().map(|(generation, _)| *generation);
    let connected = generation();
    cluster.nodes()[other].freeze();
    let is_there = |key: &String| owner(&cluster, &store.keys.cached(key)) == other;
    let key = (0..1000).map(|number| format!("k{number}")).find(is_there).unwrap();
    let error = store.cache_put(key.clone(), vec![1], PATIENCE).await.unwrap_err();
    assert!(error.is_store() && error.to_string().contains("no answer within"), "{error}");
    store.cache_get(key).await.unwrap_err();
    assert_eq!(generation(), connected);
}

#[test]
fn invalid_addresses_are_errors_at_once() {
    for urls in [
        vec![],
        vec!["redi://x".to_owned()],
        vec!["redis://:hunter1@a".into(), "redis://:hunter2@b".into()],
        vec!["unix:///x".into()],
    ] {
        let error = RedisStore::new(Target::Cluster(urls.clone()), "test").err().unwrap();
        assert!(error.is_config() && !error.to_string().contains("hunter2"), "{urls:?} {error}");
    }
}

#[tokio::test]
async fn denied_permission_error_refers_to_the_documentation() {
    let cluster = RedisCluster::start(3);
    for node in cluster.nodes() {
        node.cli(&["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-cluster|slots"]);
    }
    let urls = cluster.urls().iter().map(|url| url.replace("//", "//u:p@")).collect();
    let store = RedisStore::new(Target::Cluster(urls), "test").unwrap().patient();
    let error = Store::load(&store).await.unwrap_err();
    assert!(error.to_string().contains("docs/redis.md"), "{error}");
}

#[tokio::test]
async fn documented_user_suffices_while_a_cached_results_slot_moves() {
    let cluster = RedisCluster::start(3);
    let page = include_str!("../../../../../docs/redis.md");
    let documented = page.lines().find(|line| line.starts_with("ACL SETUSER breaker ")).unwrap();
    let (_, further) = page.split_once("In a cluster, add `").unwrap();
    let further = further.split('`').next().unwrap();
    let command = format!("{documented} {further}");
    for node in cluster.nodes() {
        node.cli(&command.split(' ').collect::<Vec<_>>());
    }
    let urls = cluster.urls().iter().map(|url| url.replace("//", "//breaker:secret@")).collect();
    let store = RedisStore::new(Target::Cluster(urls), "test").unwrap().patient();
    until_answered(&store).await;
    assert_eq!(events(&store, unknown_position(), Duration::ZERO).await.unwrap(), []);
    let key = store.keys.cached("k");
    let [from, to] = [0, 1].map(|place| &cluster.nodes()[(owner(&cluster, &key) + place) % 3]);
    let slot = from.cli(&["CLUSTER", "KEYSLOT", &key]).trim().to_owned();
    let [from_id, to_id] = [from, to].map(|node| node.cli(&["CLUSTER", "MYID"]).trim().to_owned());
    to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    store.cache_put("k".into(), vec![1], PATIENCE).await.unwrap();
    assert!(busy_keys(to).contains(&key));
    for node in cluster.nodes() {
        assert_eq!(node.command(&["ACL", "LOG"]), cb_testkit::Reply::Many(vec![]), "nothing was denied");
    }
}
