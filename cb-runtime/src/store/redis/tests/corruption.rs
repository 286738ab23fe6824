//! Anything may be written to a Redis: invalid content of a breaker's keys is reported once, and affects no
//! other breaker.

use std::time::Duration;

use cb_testkit::RedisServer;

use super::{SECOND, about, counting, exchange, fleet, forcing, say, store};
use crate::error::Error;
use crate::snapshot::State;
use crate::store::{
    CountWindow, CountWindowRequest, Counts, Delta, Entry, LeaderRequest, LeaseRequest, OutcomeKind,
    Position, Report, Reported, Store, Streak, StreamEvent, WindowRequest,
};

const WINDOW: WindowRequest = WindowRequest { length_us: 10 * SECOND, width_us: 5 * SECOND, since: 0 };
const WINDOW_KEYS: &str = "cb1:{test}:w:10000000/5000000:*";
const LAST_KEY: &str = "cb1:{test}:n:3:x";

/// Something of everything, so that all of a breaker's keys are used.
pub(super) fn busy(name: &str) -> Entry {
    let counts = Counts { successes: 1, failures: 2, slow: 1 };
    let streak = Streak { success: Some(9), failures: vec![(5, 1), (2, 1)] };
    let leases =
        LeaseRequest { want: vec![1], limit: 99, term_us: 60 * SECOND, renew: vec![2], release: vec![3] };
    let failure = OutcomeKind { failed: true, slow: false };
    let delta =
        Delta { counts, streak, buckets: vec![(0, counts)], calls: [(failure, 2)].into_iter().collect() };
    Entry {
        delta,
        window: Some(WINDOW),
        failing: true,
        last: Some(CountWindowRequest { calls: 3, since: 0 }),
        leases,
        role: Some(LeaderRequest { want: true, term_us: 60 * SECOND }),
        settings: "failure_threshold 5".into(),
        ..about(name)
    }
}

pub(super) async fn watch(
    store: &crate::store::redis::RedisStore,
    id: &str,
) -> Result<Vec<StreamEvent>, Error> {
    let from = Position { id: id.into(), ..Position::default() };
    super::events(store, from, Duration::ZERO).await
}

#[tokio::test]
async fn damaged_breaker_is_reported_once_and_goes_on_from_what_is_known() {
    let server = RedisServer::start();
    let store = store(&server);
    let key = "cb1:{test}:b:x";
    for (field, value) in [
        ("state", "ajar"),
        ("state", ""),
        ("epoch", "abc"),
        ("epoch", "-1"),
        ("epoch", "1.5"),
        ("epoch", "9007199254740993"),
        ("epoch", "99999999999999999999999999"),
        ("epoch", "nan"),
        ("epoch", "5 apples"),
        ("slow", "1e300"),
        ("reset_timeout_ms", "nan"),
        ("touched_at", "-1"),
        ("failures", "many"),
        ("successes", "inf"),
        ("attempt", "4294967296"),
        ("reset_timeout_ms", "-5"),
        ("reset_timeout_ms", "99999999999999999"),
        ("since_us", "yesterday"),
        ("until_us", "\u{0}"),
        ("run", "1700|"),
        ("run", "1700000000000000|17"),
        ("run", "|1700000000000000*2"),
        ("run", "|1700000000000000*2;x"),
        ("run", "|1700000000000000*3;"),
        ("run", ""),
        ("consecutive_failures", "7"),
        ("actor", "alice"),
        ("actor", "x|alice"),
        ("actor", &format!("0|{}", "a".repeat(201))),
    ] {
        server.cli(&["FLUSHALL"]);
        say(&store, busy("x")).await;
        let streak = server.cli(&["HGET", key, "run"]);
        if (field, value) == ("run", "1700|") {
            assert!(streak.len() > value.len(), "{streak}");
        }
        server.cli(&["HSET", key, field, value]);
        // Readers are warned, too.
        let before = server.command(&["HGETALL", key]);
        let rows = fleet(&store).await;
        assert!(rows[0].view.as_ref().unwrap_err().contains(key), "{field}={value}");
        server.cli(&["ZADD", "cb1:{test}:held", "+inf", "x"]);
        let load = Store::load(&store).await.unwrap();
        assert!(load.held[0].1.as_ref().unwrap_err().contains(key));
        assert_eq!(server.command(&["HGETALL", key]), before, "{field}={value}");
        // An exchange reports it once, and goes on with what is known.
        let answer = exchange(&store, vec![busy("y"), busy("x"), forcing("x", State::Open), busy("y")]).await;
        assert_eq!(answer.warnings.len(), 1, "{field}={value}: {:?}", answer.warnings);
        assert!(
            answer.warnings[0].contains(key) && answer.warnings[0].contains(field),
            "{:?}",
            answer.warnings
        );
        let views: Vec<_> = answer.views.iter().map(|view| view.as_ref().unwrap()).collect();
        assert_eq!((views[1].record.epoch, views[1].counts.failures), (0, 2), "{field}={value}");
        assert_eq!((views[2].record.epoch, views[2].record.state), (1, State::Open), "{field}={value}");
        assert_eq!(views[3].counts.failures, 4);
        // Others hear of it, and can write back what they know.
        let events = watch(&store, "0-0").await.unwrap();
        let received: Vec<_> = events.iter().map(|event| (event.from, event.record.state)).collect();
        assert_eq!(received, [(None, State::Closed), (Some(State::Closed), State::Open)], "{field}={value}");
        assert_eq!(exchange(&store, vec![about("x")]).await.warnings, [""; 0]);
        assert!(fleet(&store).await.iter().all(|row| row.view.is_ok()));
        assert_eq!(Store::load(&store).await.unwrap().held[0].1.as_ref().unwrap().state, State::Open);
    }
}

#[tokio::test]
async fn invalid_optional_fields_are_damage_to_their_readers() {
    let server = RedisServer::start();
    let store = store(&server);
    let key = "cb1:{test}:b:x";
    for (field, value) in [
        ("failing", "junk"),
        ("failing", "0|host*5"),
        ("failing", "0| host*soon"),
        ("failing", "0| host*5 "),
        ("failing", &format!("0|{}", " host*5".repeat(33))),
        ("leader", &"a".repeat(1001)),
        ("leader_token", "-1"),
        ("leader_token", "9007199254740991"),
        ("leader_until_us", "soon"),
        ("leader_until_us", "99999999999999999999"),
        ("settings", &"a".repeat(601)),
        ("settings_before", "junk"),
        ("settings_before", &format!("5|{}", "a".repeat(601))),
        ("settings_before", "99999999999999999999|limit 3"),
    ] {
        server.cli(&["FLUSHALL"]);
        say(&store, busy("x")).await;
        server.cli(&["HSET", key, field, value]);
        assert!(fleet(&store).await.iter().all(|row| row.view.is_ok()));
        let answer = exchange(&store, vec![about("x")]).await;
        assert_eq!((&answer.warnings[..], answer.views[0].is_ok()), (&[][..], true), "{field}={value}");
        let answer = exchange(&store, vec![busy("y"), busy("x"), busy("y")]).await;
        assert!(answer.views.iter().all(Result::is_ok), "{field}={value}");
        let named = [key, field].iter().all(|part| answer.warnings[0].contains(part));
        assert!(named && answer.warnings.len() == 1, "{field}={value}: {:?}", answer.warnings);
        assert_eq!(answer.views[2].as_ref().unwrap().counts.failures, 4);
        assert_eq!(exchange(&store, vec![busy("x")]).await.warnings, [""; 0]);
    }
}

#[tokio::test]
async fn damaged_count_window_is_counted_anew() {
    let server = RedisServer::start();
    let store = store(&server);
    say(&store, busy("x")).await;
    assert_eq!(server.cli(&["HGET", LAST_KEY, "outcomes"]), "ff");
    for (field, value) in [
        ("epoch", "x"),
        ("place", "-1"),
        ("place", "many"),
        ("place", "1"),
        ("place", "3"),
        ("outcomes", ""),
        ("outcomes", "f"),
        ("outcomes", "fx"),
        ("outcomes", "f\u{0}"),
        ("outcomes", "ffffffff"),
        ("failing", "junk"),
        ("failing", " host*5 "),
        ("touched_at", "-1"),
    ] {
        server.cli(&["DEL", LAST_KEY]);
        say(&store, busy("x")).await;
        // As bytes: an argument of a process cannot have a NUL in it.
        server.command(&["HSET", LAST_KEY, field, value]);
        let answer = exchange(&store, vec![about("x"), busy("x"), busy("y")]).await;
        assert_eq!(answer.warnings.len(), 1, "{field}={value:?}");
        assert!(answer.warnings[0].contains(LAST_KEY) && answer.warnings[0].contains(field));
        let view = answer.views[1].as_ref().unwrap();
        assert_eq!(view.last.as_ref().unwrap().place, 2, "{field}={value:?}: counted anew");
        assert!(view.counts.failures > 2, "the breaker's own hash is not affected");
    }
}

#[tokio::test]
async fn keys_of_the_earlier_layout_are_not_misread() {
    let server = RedisServer::start();
    let store = store(&server);
    let key = "cb1:{test}:b:x";
    say(&store, busy("x")).await;
    let mut ordered = forcing("x", State::ForcedOpen);
    ordered.proposal.as_mut().unwrap().to.actor = "alice".into();
    let held = say(&store, ordered).await.record;
    assert_eq!(held.actor, "alice");
    let reporting = Entry { known: Some(held), role: None, ..busy("x") };
    say(&store, reporting).await;
    let asking = || Entry { failing: true, ..about("x") };
    assert_eq!(say(&store, asking()).await.failing.len(), 1);
    // It begins an epoch, and knows no more fields than these.
    server.cli(&[
        "HSET",
        key,
        "state",
        "half-open",
        "epoch",
        "2",
        "reason",
        "due",
        "by",
        "older",
        "until_us",
        "",
    ]);
    server.cli(&["HSET", key, "failures", "0", "successes", "0", "slow", "0", "consecutive_failures", "0"]);
    server.cli(&["HSET", key, "run", "|"]);
    let view = say(&store, asking()).await;
    assert_eq!((view.record.epoch, view.record.originator.as_str()), (2, "older"));
    assert_eq!((view.record.actor.as_str(), view.failing.as_slice()), ("", &[][..]));
    // And it tells of it without an actor.
    let (events, last) = ("cb1:{test}:events", watch(&store, "0-0").await.unwrap().pop().unwrap());
    assert_eq!(last.record.actor, "alice");
    let received =
        server.command(&["XRANGE", events, &last.position.id, &last.position.id]).items().remove(0);
    let fields: Vec<_> = received.items().remove(1).items().iter().map(cb_testkit::Reply::text).collect();
    let kept = fields.chunks(2).filter(|pair| pair[0] != "actor").flatten().map(String::as_str);
    let command: Vec<_> = ["XADD", events, "*"].into_iter().chain(kept).collect();
    server.cli(&command);
    let older = watch(&store, &last.position.id).await.unwrap().remove(0);
    assert_eq!((older.record.epoch, older.record.actor.as_str()), (1, ""));
}

#[tokio::test]
async fn key_of_another_type_is_reported_and_made_anew() {
    let server = RedisServer::start();
    let store = store(&server);
    for key in ["cb1:{test}:b:x", "cb1:{test}:l:x", LAST_KEY] {
        server.cli(&["FLUSHALL"]);
        let known = Some(say(&store, forcing("x", State::HalfOpen)).await.record);
        say(&store, busy("x")).await;
        server.cli(&["SET", key, "something else", "KEEPTTL"]);
        let answer = exchange(&store, vec![Entry { known, ..busy("x") }, busy("y")]).await;
        let view = answer.views[0].as_ref().unwrap();
        assert_eq!((view.record.state, view.record.epoch), (State::HalfOpen, 1), "written back");
        assert!(answer.views[1].is_ok());
        assert!(answer.warnings.len() == 1 && answer.warnings[0].contains(key), "{:?}", answer.warnings);
        assert_eq!(exchange(&store, vec![busy("x")]).await.warnings, [""; 0]);
        assert_eq!(Store::load(&store).await.unwrap().held.len(), 1);
    }
}

/// Windows and what reports have received are counted anew faster than anybody could put them right by hand.
#[tokio::test]
async fn odd_windows_and_reports_are_lost_and_go_on() {
    let server = RedisServer::start();
    let store = store(&server);
    let quiet = "cb1:{test}:quiet";
    let report = async |seq| {
        let counts = Counts { successes: 1, ..Counts::default() };
        let entry = |name: &str| Reported {
            name: name.into(),
            counts,
            success_age_us: Some(0),
            window: Some(WINDOW),
            buckets: vec![(0, counts)],
            ..Reported::default()
        };
        let entries = vec![entry("x"), entry("y")];
        let report = Report { instance: "a".into(), seq, as_of_us: None, entries };
        Store::report(&store, report).await.unwrap()
    };
    let mut seq = 0;
    for value in [
        "",
        "1",
        "1,2",
        "1,1,-1",
        "1,1,99999999999999999999",
        "1.5",
        "inf",
        "nan",
        "0|0|x|1|1,1,1",
        "0|2|||1",
        "0|0|||1,1",
        "99999999999999999999|0|||1",
        "0|0|99999999999999999999||1,1,1",
        "0|0|||99999999999999999999",
    ] {
        seq += 2;
        report(seq).await;
        let windows = server.cli(&["KEYS", WINDOW_KEYS]);
        // The bucket before is only read; the current one is written, too.
        let before = windows.lines().map(|key| {
            let (prefix, bucket) = key.rsplit_once(':').unwrap();
            format!("{prefix}:{}", bucket.parse::<u64>().unwrap() - 1)
        });
        for key in before.chain(windows.lines().map(String::from)).chain([quiet.to_owned()]) {
            server.cli(&["HSET", &key, "x", value]);
            server.cli(&["HSET", &key, "0:x", value]);
        }
        assert_eq!(report(seq + 1).await.warnings, [""; 0], "{value}");
        let answer = exchange(&store, vec![busy("x"), busy("y")]).await;
        assert!(answer.views.iter().all(Result::is_ok), "{value}: {answer:?}");
        assert_eq!(answer.warnings, [""; 0], "{value}");
        fleet(&store).await;
    }
    server.cli(&["SET", quiet, "something else"]);
    let window = server.cli(&["KEYS", WINDOW_KEYS]).lines().last().unwrap().to_owned();
    server.cli(&["SET", &window, "something else"]);
    let answer = report(seq + 2).await;
    assert!(answer.warnings.iter().any(|problem| problem.contains(quiet)), "{answer:?}");
    assert_eq!(report(seq + 3).await.warnings, [""; 0]);
}

#[tokio::test]
async fn clock_that_was_set_back_stops_nothing() {
    let server = RedisServer::start();
    let store = store(&server);
    let (key, hour) = ("cb1:{test}:b:x", 3600 * SECOND);
    say(&store, counting("x", 1, 0)).await;
    let future = exchange(&store, vec![]).await.now_us + hour;
    // A success and a failure an hour from now, and a window of then.
    let streak = format!("{future}|{future}*1;");
    server.cli(&["HSET", key, "run", &streak, "consecutive_failures", "1", "since_us", &future.to_string()]);
    server.cli(&["HSET", key, "touched_at", &(future / 1000).to_string()]);
    let failing = || {
        let streak = Streak { success: None, failures: vec![(0, 1)] };
        let one = Counts { failures: 1, ..Counts::default() };
        Entry {
            delta: Delta { counts: one, streak, buckets: vec![(0, one)], calls: CountWindow::default() },
            window: Some(WINDOW),
            ..about("x")
        }
    };
    let view = say(&store, failing()).await;
    assert_eq!((view.streak, view.record.since_us), (2, 0));
    assert_eq!(view.window.unwrap().buckets.iter().map(|(_, counts)| counts.failures).sum::<u64>(), 1);
    assert_eq!(say(&store, failing()).await.streak, 3);
    // Who was noted then failed just now, and nobody has a role for longer than a term.
    let failing = format!("0| gone*{future}");
    server.cli(&["HSET", key, "failing", &failing, "leader", "gone", "leader_token", "7"]);
    server.cli(&["HSET", key, "leader_until_us", &future.to_string()]);
    let role = Some(LeaderRequest { want: true, term_us: SECOND });
    let view = say(&store, Entry { failing: true, role, ..about("x") }).await;
    assert_eq!(view.failing, [0]);
    assert!(view.role.unwrap().mine && view.role.unwrap().token > 7);
    // An open state does not last longer than it was opened for.
    say(&store, forcing("x", State::Open)).await;
    server.cli(&["HSET", key, "until_us", &future.to_string()]);
    assert_eq!(say(&store, about("x")).await.record.remaining_us, Some(60 * SECOND));
}
