//! The layout in Redis is frozen: two versions of this library meet there during a rolling deploy.
//!
//! If this fails, the layout has changed. Either undo that, or make a new version of it (another
//! prefix, see `keys`). `CB_UPDATE_GOLDEN=1` writes the file anew.

use std::fmt::Write as _;
use std::time::Duration;

use cb_testkit::{RedisServer, Reply};

use super::{SECOND, Target, about, forcing};
use crate::clock::Clock;
use crate::snapshot::State;
use crate::store::redis::RedisStore;
use crate::store::{
    Batch, CountWindow, CountWindowRequest, Counts, Delta, Entry, LeaderRequest, LeaseRequest, OutcomeKind,
    Proposal, Record, Report, Reported, ResultStore, Store, Streak, WindowRequest,
};

fn counting(name: &str) -> Entry {
    let counts = Counts { successes: 7, failures: 3, slow: 1 };
    let streak = Streak { success: Some(2_500_000), failures: vec![(SECOND, 2), (1, 1)] };
    let buckets = vec![(SECOND, counts), (0, Counts { failures: 2, ..Counts::default() })];
    let window = Some(WindowRequest { length_us: 60 * SECOND, width_us: SECOND, since: 0 });
    Entry { delta: Delta { counts, streak, buckets, calls: CountWindow::default() }, window, ..about(name) }
}

/// One of everything that is ever written.
pub(super) async fn script(store: &RedisStore, hands: &crate::clock::ManualClock) {
    let mut seq = 0;
    let mut say = async |entry: Entry| {
        seq += 1;
        let batch = Batch { instance: "host-1/42".into(), seq, entries: vec![entry], ..Batch::default() };
        Store::exchange(store, batch).await.unwrap().views.remove(0).unwrap()
    };
    let closed = say(counting("user-service")).await.record;
    let to_open = Record {
        state: State::Open,
        reason: "3 failures in a row, limit 3".into(),
        remaining_us: Some(30 * SECOND),
        reset_timeout_us: 30 * SECOND,
        attempt: 1,
        ..Record::closed()
    };
    let opening = Proposal {
        to: to_open.clone(),
        force: false,
        token: None,
        evidence: Counts { successes: 7, failures: 3, slow: 1 },
    };
    let proposing =
        |known, proposal| Entry { known: Some(known), proposal: Some(proposal), ..about("user-service") };
    let open = say(proposing(closed, opening.clone())).await.record;
    hands.advance(Duration::from_secs(30));
    let to_half_open = Record {
        state: State::HalfOpen,
        reason: "due for a probe".into(),
        remaining_us: None,
        ..to_open.clone()
    };
    let probing = Proposal { to: to_half_open, ..opening.clone() };
    let leases = LeaseRequest { want: vec![1, 2], limit: 3, term_us: 10 * SECOND, ..LeaseRequest::default() };
    say(Entry { leases, ..proposing(open, probing) }).await;
    say(counting("closed since ever")).await;
    say(Entry { proposal: Some(opening), ..counting("größe {x}") }).await;
    let mut odd_timeout = forcing("", State::Open).proposal.unwrap();
    odd_timeout.to =
        Record { remaining_us: Some(1_500), reset_timeout_us: 1_500, attempt: 4, ..odd_timeout.to };
    say(Entry { proposal: Some(odd_timeout), ..counting("briefly open") }).await;
    let to_forced = Record { state: State::ForcedOpen, reason: "maintenance".into(), ..Record::closed() };
    let holding = Proposal { to: to_forced.clone(), ..forcing("", State::ForcedOpen).proposal.unwrap() };
    let ordered = Proposal { to: Record { actor: "alice".into(), ..to_forced.clone() }, ..holding.clone() };
    say(Entry { proposal: Some(ordered), ..about("forced") }).await;
    let to_disabled = Record { state: State::Disabled, remaining_us: Some(3600 * SECOND), ..to_forced };
    let expiring = Proposal { to: to_disabled, ..holding };
    say(Entry { proposal: Some(expiring), ..about("disabled") }).await;
    let kinds = [(false, false), (true, false), (false, true), (true, true)];
    let calls = kinds.map(|(failed, slow)| (OutcomeKind { failed, slow }, 2)).into_iter().collect();
    let whole = Entry {
        delta: Delta { calls, ..counting("").delta },
        failing: true,
        last: Some(CountWindowRequest { calls: 7, since: 0 }),
        role: Some(LeaderRequest { want: true, term_us: 10 * SECOND }),
        settings: "failure_threshold 3".into(),
        notice: true,
        ..about("with all of it")
    };
    say(whole.clone()).await;
    hands.advance(Duration::from_secs(1));
    let later = Entry { settings: "failure_threshold 5".into(), delta: Delta::default(), ..whole };
    say(Entry { role: Some(LeaderRequest { want: false, term_us: 0 }), ..later.clone() }).await;
    say(Entry { settings: "".into(), name: "a role alone".into(), ..later }).await;
    let success = OutcomeKind { failed: false, slow: false };
    let counts = Counts { successes: 3, ..Counts::default() };
    let calls = [(success, 3)].into_iter().collect();
    let last = Some(CountWindowRequest { calls: 7, since: 0 });
    say(Entry { delta: Delta { counts, calls, ..Delta::default() }, last, ..about("only succeeded") }).await;
    let counts = Counts { successes: 40, failures: 2, slow: 1 };
    let reported = Reported {
        name: "reported".into(),
        counts,
        success_age_us: Some(1),
        failure_age_us: Some(SECOND),
        window: Some(WindowRequest { length_us: 60 * SECOND, width_us: 6 * SECOND, since: 0 }),
        buckets: vec![(0, counts)],
        ..Reported::default()
    };
    let report = Report { instance: "host-1/42".into(), seq: 13, as_of_us: None, entries: vec![reported] };
    Store::report(store, report).await.unwrap();
    store.cache_put("user-service:0123abcd".into(), b"{}".to_vec(), Duration::from_secs(300)).await.unwrap();
}

/// All that stands in the server: keys, types, lives, contents; what is made up is masked.
pub(super) fn dump(server: &RedisServer) -> String {
    let mut keys: Vec<_> = server.cli(&["KEYS", "*"]).lines().map(ToOwned::to_owned).collect();
    keys.sort_unstable();
    let meta = |field| match server.cli(&["HGET", "cb1:{pröd%20%7B}:meta", field]) {
        none if none.is_empty() => panic!("meta has no {field}"),
        found => found,
    };
    let mut out = String::new();
    for key in keys {
        let kind = server.cli(&["TYPE", &key]);
        let life = match server.command(&["TTL", &key]) {
            Reply::Number(-1) => "for ever".to_owned(),
            // To ten seconds, so that the time that the test takes is not seen: four seconds at least.
            Reply::Number(ttl) => format!("{} s", (ttl + 8) / 10 * 10),
            other => panic!("{other:?}"),
        };
        writeln!(out, "{key}  ({kind}, {life})").unwrap();
        let command = match kind.as_str() {
            "hash" => vec!["HGETALL", &key],
            "zset" => vec!["ZRANGE", &key, "0", "-1", "WITHSCORES"],
            "set" => vec!["SMEMBERS", &key],
            "stream" => vec!["XRANGE", &key, "-", "+"],
            _ => vec!["GET", &key],
        };
        let items = server.command(&command).items();
        let mut lines: Vec<String> = match kind.as_str() {
            "stream" => {
                let entry = |item: Reply| {
                    let fields = item.items().remove(1).items();
                    pairs(&fields).join("\n    ")
                };
                items.into_iter().map(entry).collect()
            }
            "hash" | "zset" => pairs(&items),
            _ => items.iter().map(Reply::text).collect(),
        };
        if kind != "stream" && kind != "zset" {
            lines.sort_unstable();
        }
        for line in lines {
            writeln!(out, "    {line}").unwrap();
        }
        out.push('\n');
    }
    out.replace(&meta("incarnation"), "<incarnation>").replace(&meta("last_id"), "<the last id>")
}

fn pairs(items: &[Reply]) -> Vec<String> {
    items.chunks(2).map(|pair| format!("{} = {}", pair[0].text(), pair[1].text())).collect()
}

#[tokio::test]
async fn layout_is_frozen() {
    let server = RedisServer::start();
    let (clock, hands) = Clock::manual();
    let store = RedisStore::on_clock(Target::Single(server.url()), "pröd {", clock);
    script(&store, &hands).await;
    let found = dump(&server);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/redis/tests/layout.golden");
    if std::env::var_os("CB_UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let frozen = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == frozen, "the layout has changed; it is now\n{found}\nand was\n{frozen}");
}
