//! What only the Redis store does, against a real server.

#[cfg(feature = "cluster")]
mod cluster;
mod connections;
mod corruption;
mod corruption_fuzz;
mod corruption_shared;
mod decoders;
mod expiry;
mod layout;
mod opening;
mod protocol;
mod results;
#[cfg(feature = "sentinel")]
mod sentinel;
#[cfg(all(feature = "tls", any(feature = "cluster", feature = "sentinel")))]
mod tls;
mod watch;

use std::time::Duration;

use cb_testkit::RedisServer;

use super::{RedisStore, Target};
use crate::error::Error;
use crate::snapshot::State;
use crate::store::tests::fleet;
use crate::store::{
    Answer, Batch, Counts, Delta, Entry, Position, Proposal, Record, Store, StreamEvent, View,
};

const SECOND: u64 = 1_000_000;

fn store(server: &RedisServer) -> RedisStore {
    at(&server.url())
}

fn at(url: &str) -> RedisStore {
    impatient(url).patient()
}

/// With the limits that it has in earnest.
fn impatient(url: &str) -> RedisStore {
    RedisStore::new(Target::Single(url.into()), "test").unwrap()
}

/// The events after `from`, without notices.
async fn events(store: &RedisStore, from: Position, patience: Duration) -> Result<Vec<StreamEvent>, Error> {
    Ok(store.watch(from, String::new(), patience).await?.events)
}

/// Before the first event.
fn unknown_position() -> Position {
    Position { id: "0-0".into(), ..Position::default() }
}

fn is_subscribed(server: &RedisServer) -> bool {
    server.subscribed_clients() == 1
}

/// How often the streams were read.
fn calls_of_xread(server: &RedisServer) -> u64 {
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xread:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

fn about(name: &str) -> Entry {
    Entry { name: name.into(), ..Entry::default() }
}

fn counting(name: &str, successes: u64, failures: u64) -> Entry {
    let counts = Counts { successes, failures, slow: 0 };
    Entry { delta: Delta { counts, ..Delta::default() }, ..about(name) }
}

fn forcing(name: &str, to: State) -> Entry {
    let to = Record {
        state: to,
        reason: "test".into(),
        remaining_us: (to == State::Open).then_some(60 * SECOND),
        reset_timeout_us: 60 * SECOND,
        attempt: 1,
        ..Record::closed()
    };
    let proposal = Proposal { to, force: true, token: None, evidence: Counts::default() };
    Entry { proposal: Some(proposal), ..about(name) }
}

/// Batches of an instance that nobody else is.
fn batch(entries: Vec<Entry>) -> Batch {
    Batch {
        node: "".into(),
        instance: format!("instance-{}", fastrand::u64(..)).into(),
        seq: 1,
        as_of_us: None,
        entries,
    }
}

async fn exchange(store: &RedisStore, entries: Vec<Entry>) -> Answer {
    Store::exchange(store, batch(entries)).await.unwrap()
}

async fn say(store: &RedisStore, entry: Entry) -> View {
    exchange(store, vec![entry]).await.views.remove(0).unwrap()
}

/// All keys of one server.
#[cfg(feature = "cluster")]
fn busy_keys(server: &RedisServer) -> Vec<String> {
    server.cli(&["KEYS", "*"]).lines().map(ToOwned::to_owned).collect()
}
