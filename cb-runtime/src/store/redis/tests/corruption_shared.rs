//! Invalid content of the keys that all breakers of a namespace share.

use cb_testkit::RedisServer;

use super::corruption::watch;
use super::{about, counting, exchange, fleet, forcing, say, store};
use crate::snapshot::State;
use crate::store::{Overview, Store};

#[tokio::test]
async fn shared_keys_are_put_right_and_reported_once() {
    let server = RedisServer::start();
    let store = store(&server);
    for key in ["meta", "events", "held", "names"] {
        let key = format!("cb1:{{test}}:{key}");
        for wrong in [
            &["SET", &key, "junk"][..],
            &["LPUSH", &key, "junk"],
            &["SADD", &key, "junk"],
            &["HSET", &key, "junk", "1"],
        ] {
            if (wrong[0], &*key) == ("HSET", "cb1:{test}:meta") {
                continue;
            }
            server.cli(&["FLUSHALL"]);
            exchange(&store, vec![forcing("x", State::Open), counting("y", 1, 1)]).await;
            server.cli(&["DEL", &key]);
            server.cli(wrong);
            let answer = exchange(&store, vec![forcing("z", State::Open), counting("y", 1, 1)]).await;
            assert!(answer.views.iter().all(Result::is_ok), "{wrong:?} {answer:?}");
            assert!(
                answer.warnings.iter().any(|trouble| trouble.contains(&key)),
                "{wrong:?} {:?}",
                answer.warnings
            );
            let answer = exchange(&store, vec![forcing("y", State::Open)]).await;
            assert_eq!(answer.warnings, [""; 0], "{wrong:?}");
            let load = Store::load(&store).await.unwrap();
            assert_eq!(load.warnings, [""; 0], "{wrong:?}");
            if key != "cb1:{test}:names" {
                let held: Vec<_> = load.held.iter().map(|(name, _)| &**name).collect();
                assert_eq!(held, ["x", "y", "z"], "{wrong:?}");
            }
            let events = watch(&store, "0-0").await.unwrap();
            assert_eq!(events.last().map(|event| &*event.name), Some("y"), "{wrong:?}");
            assert_eq!(events.last().unwrap().position, answer.position);
        }
    }
}

#[tokio::test]
async fn load_repairs_shared_keys() {
    let server = RedisServer::start();
    let store = store(&server);
    for key in ["meta", "events", "held"] {
        let key = format!("cb1:{{test}}:{key}");
        server.cli(&["FLUSHALL"]);
        say(&store, forcing("x", State::Open)).await;
        server.cli(&["SET", &key, "junk"]);
        let load = Store::load(&store).await.unwrap();
        assert!(load.warnings[0].contains(&key), "{load:?}");
        assert_eq!(load.held.len(), 1, "{key}");
        assert_eq!(Store::load(&store).await.unwrap().warnings, [""; 0]);
    }
    server.cli(&["SET", "cb1:{test}:names", "junk"]);
    let warnings = store.roll().await.unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("cb1:{test}:names"), "{warnings:?}");
    assert_eq!(store.roll().await.unwrap().warnings, [""; 0]);
    assert_eq!(fleet(&store).await.len(), 1);
}

#[tokio::test]
async fn removed_held_names_are_restored() {
    let server = RedisServer::start();
    let store = store(&server);
    let held = "cb1:{test}:held";
    exchange(&store, vec![forcing("x", State::Open), forcing("y", State::Open), forcing("z", State::Open)])
        .await;
    let found = async || Store::load(&store).await.unwrap().held.len();
    server.cli(&["ZREM", held, "y"]);
    assert_eq!(found().await, 3);
    server.cli(&["DEL", held]);
    assert_eq!(found().await, 3);
    // A transition restores the set, too.
    server.cli(&["DEL", held]);
    say(&store, forcing("z", State::Closed)).await;
    assert_eq!(server.cli(&["ZCARD", held]), "2");
    // A closed breaker is not added again.
    server.cli(&["DEL", "cb1:{test}:b:x", held]);
    assert_eq!(found().await, 1);
    assert_eq!(server.cli(&["ZCOUNT", "cb1:{test}:names", "+inf", "+inf"]), "1");
}

#[tokio::test]
async fn invalid_position_begins_a_new_incarnation() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut last = String::new();
    for (field, value) in [
        ("number", "many"),
        ("number", "-1"),
        ("number", "99999999999999999999"),
        ("last_id", "x"),
        ("last_id", ""),
        ("incarnation", &"i".repeat(1000)),
        ("touched_at", "never"),
    ] {
        say(&store, forcing("x", State::Open)).await;
        server.cli(&["HSET", "cb1:{test}:meta", field, value]);
        let answer = exchange(&store, vec![about("x")]).await;
        assert!(answer.warnings[0].contains("cb1:{test}:meta"), "{field}={value} {:?}", answer.warnings);
        assert!(answer.views[0].is_ok());
        assert_ne!(answer.position.incarnation, last);
        assert_eq!((answer.position.number, answer.position.id.as_str()), (0, "0-0"));
        last = answer.position.incarnation;
    }
    server.cli(&["HDEL", "cb1:{test}:meta", "number"]);
    assert!(!exchange(&store, vec![]).await.warnings.is_empty());
}

#[tokio::test]
async fn invalid_sequence_is_restarted() {
    let server = RedisServer::start();
    let store = store(&server);
    let key = "cb1:{test}:s:a";
    for (i, wrong) in [&["SET", key, "x"][..], &["SET", key, ""], &["SET", key, "-5"], &["LPUSH", key, "1"]]
        .into_iter()
        .enumerate()
    {
        server.cli(&["DEL", key]);
        server.cli(wrong);
        for _ in 0..2 {
            let batch = crate::store::Batch {
                node: "".into(),
                instance: "a".into(),
                seq: 7,
                as_of_us: None,
                entries: vec![counting("x", 1, 0)],
            };
            let answer = Store::exchange(&store, batch).await.unwrap();
            assert_eq!(answer.views[0].as_ref().unwrap().counts.successes, i as u64 + 1, "{wrong:?}");
        }
    }
}

#[tokio::test]
async fn invalid_stream_entry_is_an_error_once() {
    let server = RedisServer::start();
    let store = store(&server);
    let events = "cb1:{test}:events";
    say(&store, forcing("x", State::Open)).await;
    server.cli(&["XADD", events, "*", "junk", "1"]);
    server.cli(&["XADD", events, "*", "name", "%zz", "number", "-1"]);
    server.command(&[b"XADD", events.as_bytes(), b"*", b"\xff", b"\xff"]);
    let first = watch(&store, "0-0").await.unwrap();
    assert_eq!(first.len(), 1, "what comes before it can be read");
    let at = &first[0].position.id;
    let error = watch(&store, at).await.unwrap_err();
    assert!(error.is_data() && error.to_string().contains(events), "{error}");
    for _ in 0..3 {
        assert_eq!(watch(&store, at).await.unwrap(), []);
    }
    say(&store, forcing("y", State::Open)).await;
    let next = watch(&store, at).await.unwrap();
    assert_eq!(
        next.iter().map(|event| (&*event.name, event.position.number)).collect::<Vec<_>>(),
        [("y", 2)]
    );
    assert_eq!(watch(&store, &next[0].position.id).await.unwrap(), []);
}

#[tokio::test]
async fn full_stream_is_restarted() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, forcing("x", State::Open)).await;
    server.cli(&["XADD", "cb1:{test}:events", "18446744073709551615-18446744073709551615", "junk", "1"]);
    let answer = exchange(&store, vec![forcing("y", State::Open)]).await;
    assert!(answer.views[0].as_ref().unwrap().won);
    assert!(answer.warnings[0].contains("cb1:{test}:events"), "{:?}", answer.warnings);
    assert_eq!(watch(&store, "0-0").await.unwrap()[0].position, answer.position);
}

#[tokio::test]
async fn watch_behind_an_invalid_entry_sees_a_restarted_stream() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, forcing("x", State::Open)).await;
    let at = &watch(&store, "0-0").await.unwrap()[0].position.id;
    server.cli(&["XADD", "cb1:{test}:events", "18446744073709551615-18446744073709551615", "junk", "1"]);
    assert!(watch(&store, at).await.unwrap_err().is_data());
    say(&store, forcing("y", State::Open)).await;
    // Nothing can come behind the last id of all; the event is before it.
    assert_eq!(watch(&store, at).await.unwrap(), []);
    assert_eq!(&*watch(&store, at).await.unwrap()[0].name, "y");
}

#[tokio::test]
async fn names_that_are_none_are_reported() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, forcing("x", State::Open)).await;
    for name in ["two words", "%zz", "gone"] {
        server.cli(&["ZADD", "cb1:{test}:held", "+inf", name]);
    }
    server.cli(&[&b"ZADD"[..], b"cb1:{test}:held", b"+inf", b"\xff\xfe"]);
    let load = Store::load(&store).await.unwrap();
    let (right, odd): (Vec<_>, Vec<_>) = load.held.iter().partition(|(_, record)| record.is_ok());
    assert_eq!(right.len(), 1);
    assert_eq!(odd.len(), 4);
    assert!(odd.iter().all(|(_, problem)| problem.as_ref().unwrap_err().contains("cb1:{test}:held")));
}
