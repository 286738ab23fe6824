//! An instance starts without Redis, or with an address that is invalid.

use std::time::Instant;

use cb_runtime::State;
use cb_testkit::RedisServer;

use crate::common::protocol::Request;
use crate::common::{Instance, PATIENCE, within_t};
use crate::{NAME, all, good, threshold, undisturbed};

#[test]
fn instances_started_without_a_store_serve_and_join_later() {
    let redis = RedisServer::start();
    redis.stop();
    let begun = Instant::now();
    let [a, b] = [(); 2].map(|()| Instance::without_store(&redis.url()));
    for instance in [&a, &b] {
        instance.create(NAME, threshold(3));
    }
    assert!(begun.elapsed() < PATIENCE, "starting took {:?}", begun.elapsed());
    undisturbed(&a.call(NAME, good(), 1000));
    a.fail(NAME, 1);
    b.fail(NAME, 2);
    assert_eq!((a.state(NAME), b.state(NAME)), (State::Closed, State::Closed));
    assert!(a.errors().iter().any(|trouble| trouble.is_store), "{:?}", a.errors());

    redis.restart();
    // The counts of both add up to the threshold of three.
    all(&[&a, &b], State::Open);
    within_t("both are part of the fleet", || {
        [&a, &b].iter().all(|i| !i.look(NAME).local && i.look(NAME).epoch == 1)
    });
}

#[test]
fn invalid_address_is_an_error_that_shows_a_valid_one() {
    let urls = [
        "",
        "not a url",
        "127.0.0.1:6379",
        "http://127.0.0.1:6379",
        "redis://127.0.0.1:no-port",
        "redis://127.0.0.1:99999",
        "redis://user:se:cret@:6379:1",
        "redis://127.0.0.1:6379/not-a-number",
        "unix://",
    ];
    for url in urls {
        let order = Request::Install { url: Some(url.into()), namespace: "tests".into(), connects: false };
        let begun = Instant::now();
        let error = Instance::bare().try_ask::<String>(&order).expect_err(url);
        assert!(begun.elapsed() < PATIENCE, "{url}");
        eprintln!("{url:?}: {error}");
        assert!(error.contains("address"), "{url}: {error}");
        assert!(error.contains("redis://"), "{url}: the error does not show a valid address: {error}");
        assert!(!error.contains("se:cret"), "{url}: the error contains the password: {error}");
    }
    let order = Request::Install { url: None, namespace: String::new(), connects: false };
    let error = Instance::bare().try_ask::<String>(&order).unwrap_err();
    assert!(error.contains("namespace"), "{error}");
}
