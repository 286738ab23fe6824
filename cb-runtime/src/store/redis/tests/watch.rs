//! Events and notices: as messages, and from the streams if messages are missing.

use std::time::Duration;

use cb_testkit::{PATIENCE, RedisServer, wait_until};

use super::{
    RedisStore, at, calls_of_xread, counting, events, exchange, forcing, is_subscribed, say, store,
    unknown_position,
};
use crate::snapshot::State;
use crate::store::{Entry, Position, Store};

/// A store whose user lacks these permissions.
fn without(server: &RedisServer, permissions: &[&str]) -> RedisStore {
    let user = ["ACL", "SETUSER", "restricted", "on", ">secret", "~*", "&*", "+@all"];
    server.cli(&[&user, permissions].concat());
    at(&format!("redis://restricted:secret@127.0.0.1:{}", server.port()))
}

/// The position after the first event, up to which `store` has read.
async fn after_first(store: &RedisStore) -> Position {
    say(store, forcing("x", State::Open)).await;
    events(store, unknown_position(), PATIENCE).await.unwrap().remove(0).position
}

#[tokio::test]
async fn events_and_notices_come_as_messages() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut from = after_first(&store).await;
    let (before, mut notice) = (calls_of_xread(&server), String::new());
    for to in [State::Closed, State::Open, State::Closed] {
        say(&store, forcing("x", to)).await;
        let news = store.watch(from, notice, PATIENCE).await.unwrap();
        assert_eq!((news.events.len(), news.events[0].record.state, news.notices.len()), (1, to, 0));
        (from, notice) = (news.events[0].position.clone(), news.notice);
    }
    exchange(&store, vec![Entry { notice: true, ..counting("y {", 1, 1) }]).await;
    let news = store.watch(from, notice, PATIENCE).await.unwrap();
    assert_eq!((news.events.len(), &news.notices[..]), (0, &["y {".into()][..]));
    assert_ne!(news.notice, "");
    assert_eq!(calls_of_xread(&server), before);
}

#[tokio::test]
async fn events_whose_messages_are_missing_are_read_with_the_next_one_and_in_the_end() {
    let server = RedisServer::start();
    let (store, mute) = (store(&server), without(&server, &["-publish"]));
    let from = after_first(&store).await;
    let answer = exchange(&mute, vec![forcing("x", State::Closed)]).await;
    let [warning] = &answer.warnings[..] else { panic!("{answer:?}") };
    assert!(warning.contains("could not be published on cb1:{test}:events: "), "{warning}");

    say(&store, forcing("x", State::Open)).await;
    let read = events(&store, from, PATIENCE).await.unwrap();
    let numbers: Vec<_> = read.iter().map(|event| event.position.number).collect();
    assert_eq!(numbers, [2, 3]);

    let from = read[1].position.clone();
    exchange(&mute, vec![forcing("x", State::Closed)]).await;
    let read = events(&store, from, Duration::from_millis(50)).await.unwrap();
    assert_eq!(read[0].position.number, 4, "it is read when the patience ends");
}

#[tokio::test]
async fn foreign_messages_do_no_harm() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut from = after_first(&store).await;
    for channel in ["cb1:{test}:events", "cb1:{test}:notices"] {
        let odd: [&[u8]; 6] = [b"", b"[]", b"{}", b"[\"1-1\"]", b"[\"9-9\",\"names\"]", b"\xff"];
        for payload in odd {
            assert_eq!(server.cli(&[b"PUBLISH", channel.as_bytes(), payload]), "1");
            say(&store, forcing("x", State::Closed)).await;
            say(&store, forcing("x", State::Open)).await;
            for number in from.number + 1..from.number + 3 {
                let read = events(&store, from, PATIENCE).await.unwrap();
                from = read.last().unwrap().position.clone();
                if from.number > number {
                    break;
                }
            }
        }
    }
    assert_eq!(from.number, 25);
}

#[tokio::test]
async fn ended_subscription_is_an_error_and_the_next_watch_reads_on() {
    let server = RedisServer::start();
    let store = store(&server);
    let from = after_first(&store).await;
    let ends = async {
        wait_until(PATIENCE, "it is subscribed", || is_subscribed(&server));
        server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    };
    let (watched, ()) = tokio::join!(events(&store, from.clone(), Duration::from_secs(3600)), ends);
    assert!(watched.unwrap_err().is_store());
    say(&store, forcing("x", State::Closed)).await;
    assert_eq!(events(&store, from, PATIENCE).await.unwrap()[0].position.number, 2);
}

/// More than wait to be taken: the rest is read.
#[tokio::test]
async fn flood_of_messages_loses_no_event() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut from = after_first(&store).await;
    let other = at(&server.url());
    for _ in 0..600 {
        for to in [State::Closed, State::Open] {
            say(&other, forcing("x", to)).await;
        }
    }
    while from.number < 1201 {
        let all = events(&store, from.clone(), Duration::from_secs(3600));
        for event in tokio::time::timeout(PATIENCE, all).await.expect("an event").unwrap() {
            assert!(event.position.follows(&from), "{from:?}, then {event:?}");
            from = event.position;
        }
    }
}

#[tokio::test]
async fn user_without_the_channels_is_told() {
    let server = RedisServer::start();
    let store = without(&server, &["resetchannels"]);
    let error = events(&store, unknown_position(), PATIENCE).await.unwrap_err().to_string();
    assert!(
        error.contains("subscribing to events") && error.contains("it needs +subscribe and &cb1:*"),
        "{error}"
    );
}
