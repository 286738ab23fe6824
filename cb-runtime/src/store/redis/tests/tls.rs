//! Cluster and Sentinel over TLS.

#[cfg(feature = "cluster")]
use cb_testkit::RedisCluster;
use cb_testkit::{Authority, Certificate, PATIENCE, RedisServer};

use super::{about, counting, events, forcing, say};
use crate::snapshot::State;
use crate::store::redis::{RedisStore, Target};
use crate::store::{ResultStore, Store};

/// The servers' certificate, and an authority that only the address names.
fn authority() -> (Authority, Certificate) {
    let authority = Authority::new();
    let certificate = authority.sign("server", &["127.0.0.1"]);
    (authority, certificate)
}

fn trusting(server: &RedisServer, authority: &Authority) -> String {
    format!("{}?cacert={}", server.tls_url(), authority.file().display())
}

/// Repeats a request until its result satisfies `fits`. A cluster's client has half a second for a
/// connection, which may not suffice on a busy machine.
async fn until(store: &RedisStore, fits: impl Fn(&Result<(), String>) -> bool) {
    let start = std::time::Instant::now();
    loop {
        let result = Store::load(store).await.map(|_| ()).map_err(|error| error.to_string());
        if fits(&result) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{result:?}");
        tokio::task::yield_now().await;
    }
}

async fn until_error_has(store: &RedisStore, hint: &str) {
    until(store, |result| result.as_ref().is_err_and(|error| error.contains(hint))).await;
}

async fn works(store: &RedisStore) {
    until(store, Result::is_ok).await;
    say(store, counting("x", 1, 1)).await;
    let from = Store::load(store).await.unwrap().position;
    say(store, forcing("x", State::Open)).await;
    let start = std::time::Instant::now();
    let events = loop {
        // The watch uses a second connection.
        match events(store, from.clone(), PATIENCE).await {
            Ok(events) => break events,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(events.len(), 1);
    assert_eq!(say(store, about("x")).await.record.state, State::Open);
    for key in 0..20 {
        store.cache_put(format!("k{key}"), vec![key], PATIENCE).await.unwrap();
        assert_eq!(store.cache_get(format!("k{key}")).await.unwrap().unwrap().value, [key]);
    }
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn all_nodes_of_a_cluster_use_tls() {
    let (authority, certificate) = authority();
    let cluster = RedisCluster::start_tls(3, &authority, &certificate);
    // The client finds the other nodes through this one.
    let known = vec![trusting(&cluster.nodes()[0], &authority)];
    let store =
        |namespace: &str| RedisStore::new(Target::Cluster(known.clone()), namespace).unwrap().patient();
    for i in 0..10 {
        works(&store(&format!("ns{i}"))).await;
    }
    for node in cluster.nodes() {
        assert!(!super::busy_keys(node).is_empty(), "each node has keys");
    }
}

#[cfg(feature = "cluster")]
#[tokio::test]
async fn cluster_errors_have_hints() {
    let (authority, certificate) = authority();
    let cluster = RedisCluster::start_tls(3, &authority, &certificate);
    let stranger = Authority::new();
    let known = vec![trusting(&cluster.nodes()[0], &stranger)];
    let store = RedisStore::new(Target::Cluster(known), "test").unwrap().patient();
    until_error_has(&store, "?cacert=").await;

    let plain = vec![cluster.nodes()[0].tls_url().replace("rediss", "redis")];
    let store = RedisStore::new(Target::Cluster(plain), "test").unwrap().patient();
    until_error_has(&store, "write rediss://").await;

    let nobody = vec!["redis://127.0.0.1:1".to_owned()];
    let store = RedisStore::new(Target::Cluster(nobody), "test").unwrap().patient();
    let error = Store::load(&store).await.unwrap_err();
    assert!(error.is_store() && !error.to_string().contains("rediss://"), "{error}");
}

#[cfg(feature = "sentinel")]
#[tokio::test]
async fn sentinel_and_master_use_tls() {
    let (authority, certificate) = authority();
    let master = RedisServer::start_tls(&authority, &certificate, &[]);
    let sentinel = RedisServer::start_sentinel_tls("main", &master, &authority, &certificate);
    let target = Target::Sentinel { urls: vec![trusting(&sentinel, &authority)], master: "main".into() };
    works(&RedisStore::new(target, "test").unwrap().patient()).await;
    assert!(master.cli(&["KEYS", "cb1:*"]).contains("cb1:{test}:b:x"));

    let target = Target::Sentinel { urls: vec![sentinel.tls_url()], master: "main".into() };
    let store = RedisStore::new(target, "test").unwrap().patient();
    until_error_has(&store, "?cacert=").await;
}
