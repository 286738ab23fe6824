//! Cached results in Redis.

use std::time::Duration;

use cb_testkit::{RedisServer, wait_until};

use super::{fleet, store};
use crate::store::ResultStore;

const PATIENCE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn result_replaces_the_previous_one() {
    let server = RedisServer::start();
    let store = store(&server);
    let get = async |key: &str| store.cache_get(key.into()).await.unwrap().map(|cached| cached.value);
    assert_eq!(get("k").await, None);
    for value in [b"first".to_vec(), vec![0, 255, 10], vec![]] {
        store.cache_put("k".into(), value.clone(), TTL).await.unwrap();
        assert_eq!(get("k").await, Some(value));
    }
    assert_eq!(get("other").await, None);
    assert!(fleet(&store).await.is_empty());
}

#[tokio::test]
async fn any_text_is_a_valid_key() {
    let server = RedisServer::start();
    let store = store(&server);
    let keys = ["", "a:b", "a b", "{a}", "%7Ba%7D", "ß\n\u{0}"];
    for key in keys {
        store.cache_put(key.into(), key.as_bytes().to_vec(), TTL).await.unwrap();
    }
    for key in keys {
        let found = store.cache_get(key.into()).await.unwrap();
        assert_eq!(found.map(|cached| cached.value), Some(key.as_bytes().to_vec()));
    }
}

#[tokio::test]
async fn result_expires_after_its_ttl() {
    let server = RedisServer::start();
    let store = store(&server);
    store.cache_put("k".into(), vec![1], TTL).await.unwrap();
    let remaining = store.cache_get("k".into()).await.unwrap().unwrap().remaining;
    assert!(remaining.is_some_and(|remaining| remaining <= TTL && !remaining.is_zero()), "{remaining:?}");
    store.cache_put("k".into(), vec![2], Duration::from_millis(1)).await.unwrap();
    wait_until(PATIENCE, "the result's expiry", || server.cli(&["EXISTS", "cb1:test:c:k"]) == "0");
    assert_eq!(store.cache_get("k".into()).await.unwrap(), None);
    for odd in [Duration::ZERO, Duration::MAX] {
        store.cache_put("k".into(), vec![2], odd).await.unwrap();
    }
}
