//! The exchange script opens a closed breaker in a short way, with the effects of the usual one.

use std::time::Duration;

use cb_testkit::RedisServer;

use super::layout::dump;
use super::{SECOND, Target, about, batch, counting, exchange, store};
use crate::clock::Clock;
use crate::snapshot::State;
use crate::store::redis::RedisStore;
use crate::store::redis::script::Scripts;
use crate::store::{
    Batch, Counts, Delta, Entry, Proposal, Record, Report, Reported, Store, Streak, View, WindowRequest,
};

/// Opens a breaker, which has counts and whose settings are known, and another one after it. Returns all keys
/// but windows, and the number of keys of windows.
async fn opened(server: &RedisServer, is_short: bool, spans: [u64; 2]) -> ([View; 2], Vec<String>, usize) {
    server.cli(&["FLUSHALL"]);
    let (clock, hands) = Clock::manual();
    let mut store = RedisStore::on_clock(Target::Single(server.url()), "pröd {", clock);
    if !is_short {
        store.scripts = Scripts::on_a_given_clock().without_opening();
    }
    let mut seq = 0;
    let mut say = async |name: &str, entry: Entry| {
        seq += 1;
        let entry = Entry { settings: "failure_threshold 3".into(), name: name.into(), ..entry };
        let batch = Batch { instance: "host-1/42".into(), seq, entries: vec![entry], ..Batch::default() };
        Store::exchange(&store, batch).await.unwrap().views.remove(0).unwrap()
    };
    let counts = Counts { successes: 2, failures: 3, slow: 1 };
    let delta = Delta {
        counts,
        streak: Streak { success: Some(2 * SECOND), failures: vec![(SECOND, 2), (1, 1)] },
        ..Delta::default()
    };
    let names = ["first", "second"];
    for name in names {
        say(name, Entry { delta: delta.clone(), ..about(name) }).await;
    }
    let entries = names.map(|name| Reported { name: name.into(), counts, ..Reported::default() }).into();
    let report = Report { instance: "host-2/42".into(), seq: 1, as_of_us: None, entries };
    Store::report(&store, report).await.unwrap();
    hands.advance(Duration::from_secs(1));
    let window = Some(WindowRequest { length_us: 60 * SECOND, width_us: 6 * SECOND, since: 0 });
    let mut views = Vec::new();
    for (name, span) in names.into_iter().zip(spans) {
        let to = Record {
            state: State::Open,
            reason: "3 failures in a row".into(),
            remaining_us: Some(span / 2),
            reset_timeout_us: span,
            attempt: 2,
            ..Record::closed()
        };
        let proposal = Some(Proposal { to, force: false, token: None, evidence: counts });
        let delta = Delta { buckets: vec![(0, counts)], ..delta.clone() };
        let known = Some(Record::closed());
        views.push(say(name, Entry { known, delta, window, proposal, ..Entry::default() }).await);
    }
    let (windows, keys): (Vec<_>, Vec<_>) =
        dump(server).split("\n\n").map(ToOwned::to_owned).partition(|key| key.contains("}:w:"));
    (views.try_into().unwrap(), keys, windows.len())
}

#[tokio::test]
async fn short_way_to_open_a_breaker_has_the_effects_of_the_usual_one() {
    let server = RedisServer::start();
    for spans in [[30 * SECOND, 60 * SECOND], [7200 * SECOND, 1_500]] {
        let (short, short_keys, short_windows) = opened(&server, true, spans).await;
        let (usual, usual_keys, usual_windows) = opened(&server, false, spans).await;
        assert!(short.iter().all(|view| view.won && view.record.state == State::Open));
        assert_eq!(short, usual);
        assert_eq!(short_keys, usual_keys);
        // Counts of an epoch that ends are in no window: it was the short way.
        assert_eq!((short_windows, usual_windows), (0, 1));
    }
}

/// An opening may be the first request of its instance after the damage.
#[tokio::test]
async fn short_way_reports_a_sequence_that_is_not_a_number() {
    let server = RedisServer::start();
    let store = store(&server);
    exchange(&store, vec![counting("x", 1, 3)]).await;
    let to = Record {
        state: State::Open,
        remaining_us: Some(SECOND),
        reset_timeout_us: SECOND,
        attempt: 1,
        ..Record::closed()
    };
    let proposal = Some(Proposal { to, force: false, token: None, evidence: Counts::default() });
    let batch = batch(vec![Entry { known: Some(Record::closed()), proposal, ..about("x") }]);
    let key = format!("cb1:{{test}}:s:{}", batch.instance);
    server.cli(&["SET", &key, "garbage"]);
    let answer = Store::exchange(&store, batch).await.unwrap();
    assert!(answer.views[0].as_ref().unwrap().won);
    assert_eq!(answer.warnings, [format!("{key} was not a number and has been made anew")]);
    assert_eq!(server.cli(&["GET", &key]), "1");
}
