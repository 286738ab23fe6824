//! Random damage to keys.

use std::sync::Arc;

use cb_testkit::RedisServer;
use proptest::prelude::*;
use proptest::sample::select;

use super::corruption::{busy, watch};
use super::{about, exchange, fleet, forcing, store};
use crate::snapshot::State;
use crate::store::{CountWindow, Delta, Entry, Record, Store};

/// Ways to spoil one key.
#[derive(Clone, Debug)]
enum Spoil {
    Replace(&'static str),
    Field(&'static str, Vec<u8>),
    Cut(&'static str, usize),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let fields = vec![
        "state",
        "epoch",
        "reason",
        "by",
        "attempt",
        "reset_timeout_ms",
        "since_us",
        "until_us",
        "successes",
        "failures",
        "slow",
        "consecutive_failures",
        "run",
        "touched_at",
        "incarnation",
        "number",
        "last_id",
        "late",
        "actor",
        "failing",
        "leader",
        "leader_token",
        "leader_until_us",
        "settings",
        "settings_before",
        "place",
        "outcomes",
        "0",
        "1",
    ];
    let number = any::<i64>().prop_map(|number| number.to_string().into_bytes());
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        number,
        "[0-9|*;:,. sfSF-]{0,30}".prop_map(String::into_bytes)
    ];
    prop_oneof![
        select(vec!["string", "list", "set", "zset", "hash", "stream", "nothing"]).prop_map(Spoil::Replace),
        (select(fields.clone()), bytes).prop_map(|(field, bytes)| Spoil::Field(field, bytes)),
        (select(fields), 0..30_usize).prop_map(|(field, length)| Spoil::Cut(field, length)),
    ]
}

fn apply(server: &RedisServer, key: &str, spoil: &Spoil) {
    let key = key.as_bytes();
    match spoil {
        Spoil::Replace(kind) => {
            server.command(&[b"DEL", key]);
            match *kind {
                "string" => server.command(&[b"SET", key, b"\xff junk"]),
                "list" => server.command(&[b"LPUSH", key, b"1"]),
                "set" => server.command(&[b"SADD", key, b"1", b"\xff"]),
                "zset" => server.command(&[b"ZADD", key, b"inf", b"1"]),
                "hash" => server.command(&[b"HSET", key, b"1", b"\xff"]),
                "stream" => server.command(&[b"XADD", key, b"*", b"1", b"\xff"]),
                _ => return,
            };
        }
        Spoil::Field(field, bytes) => {
            // Says WRONGTYPE for what is no hash; then nothing is spoilt.
            server.command(&[b"HSET", key, field.as_bytes(), bytes]);
        }
        Spoil::Cut(field, length) => {
            let whole = server.command(&[b"HGET", key, field.as_bytes()]).text();
            let cut: String = whole.chars().take(*length).collect();
            server.command(&[b"HSET", key, field.as_bytes(), cut.as_bytes()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However a breaker's own keys and the shared ones look: nothing panics or fails as a whole,
    /// another breaker is not affected, and what is held otherwise is found.
    #[test]
    fn damaged_keys_do_not_affect_other_breakers(spoilt in prop::collection::vec((0..9_usize, spoil()), 1..4), to in select(State::ALL.to_vec())) {
        thread_local!(static SERVER: Arc<RedisServer> = Arc::new(RedisServer::start()));
        let server = SERVER.with(Arc::clone);
        server.cli(&["FLUSHALL"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = store(&server);
            exchange(&store, vec![forcing("x", to), forcing("held", State::Open), busy("y")]).await;
            exchange(&store, vec![busy("x")]).await;
            for (which, spoil) in &spoilt {
                let own = ["b:x", "l:x", "quiet", "n:3:x", "s:spoilt", "meta", "events", "held", "names"];
                apply(&server, &format!("cb1:{{test}}:{}", own[*which]), spoil);
            }
            let mut failures = 2;
            for _ in 0..3 {
                // Entries with nothing but counts are handled in another way.
                let counting = |name| {
                    let Entry { delta, window, settings, .. } = busy(name);
                    let delta = Delta { calls: CountWindow::default(), ..delta };
                    Entry { known: Some(Record::closed()), delta, window, settings, ..about(name) }
                };
                let entries = vec![busy("x"), forcing("x", State::HalfOpen), busy("x"), busy("y")];
                for entries in [vec![counting("x"), counting("y")], entries] {
                    let y = exchange(&store, entries).await.views.pop().unwrap().unwrap();
                    failures += 2;
                    assert_eq!((y.record.state, y.record.epoch), (State::Closed, 0));
                    assert_eq!((y.counts.failures, !y.window.unwrap().buckets.is_empty()), (failures, true));
                }
                // Once to put right what may be wrong, and then it is.
                let _ = (Store::load(&store).await.unwrap(), fleet(&store).await, watch(&store, "0-0").await);
            }
            let load = Store::load(&store).await.unwrap();
            assert_eq!(load.warnings, [""; 0]);
            fleet(&store).await;
            // The stream may hold one odd entry; it is an error once.
            if let Err(error) = watch(&store, &load.position.id).await {
                assert!(error.is_data());
                watch(&store, &load.position.id).await.unwrap();
            }
            let answer = exchange(&store, vec![about("held")]).await;
            assert_eq!(answer.views[0].as_ref().unwrap().record.state, State::Open);
            assert_eq!(answer.warnings, [""; 0]);
        });
    }
}
