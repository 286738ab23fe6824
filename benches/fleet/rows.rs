//! Fleets in which all calls succeed, some fail, or all breakers are open: one row each.

use std::time::{Duration, Instant};

use cb_testkit::RedisServer;
use serde::Serialize;

use super::process::{Fleet, Message, Request};
use super::row::{Row, Rule};
use super::support::screen::{Progress, quantile};

/// The time from a fleet's start to the measurement. At the start, it exchanges more: settings are compared
/// for the last time within 32 s.
pub(crate) const SETTLING: Duration = Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 36 });
pub(crate) const WINDOW: Duration = Duration::from_secs(if cfg!(debug_assertions) { 1 } else { 8 });

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) instances: usize,
    pub(crate) breakers: usize,
    pub(crate) rule: Rule,
    pub(crate) per_second: u64,
    pub(crate) failing_percent: u64,
    pub(crate) open: bool,
    /// The share of one core, less that of an idle server.
    pub(crate) redis_percent: f64,
    pub(crate) commands_per_second_and_instance: f64,
    /// The share of one core of all instances together: calls and coordinators.
    pub(crate) instances_percent: f64,
    /// The calls that were made, of those that were due: the callers get what the others leave.
    pub(crate) calls_percent: Option<f64>,
    /// How often an instance has lost the store, since the fleet's start.
    pub(crate) lost: u64,
    pub(crate) trips: usize,
    /// The time from the tripping call until the last instance has the transition.
    pub(crate) all_after_median_ms: Option<f64>,
    pub(crate) all_after_p99_ms: Option<f64>,
    /// Breakers that opened although their rate was below the limit.
    pub(crate) opened_wrongly: usize,
}

/// The rows of docs/scale.md, from small to large.
pub(crate) fn all(up_to: usize) -> Vec<Row> {
    let healthy = Row { trips: 20, ..Row::ONE };
    let mut rows = vec![healthy, Row { failing: 10, ..healthy }];
    for instances in [10, 50, 200, 1000] {
        let row = Row { instances, breakers: 50, ..healthy };
        rows.extend([row, Row { failing: 10, ..row }]);
        if instances <= 50 {
            let consecutive = Row { rule: Rule::Consecutive, ..row };
            rows.extend([consecutive, Row { failing: 10, ..consecutive }]);
        }
    }
    // Without calls, a trip does not wait for a processor.
    rows.push(Row { instances: 1000, breakers: 50, per_second: 0, ..healthy });
    rows.push(Row { instances: 6, breakers: 4_000, open: true, rule: Rule::Consecutive, ..healthy });
    for per_second in [0, 1] {
        rows.push(Row { breakers: 10_000, per_second, trips: 0, ..healthy });
    }
    rows.retain(|row| row.instances <= up_to);
    rows
}

/// The server's processor time, in seconds.
pub(crate) fn used(server: &RedisServer) -> f64 {
    ["used_cpu_user", "used_cpu_sys"]
        .iter()
        .map(|field| server.info("cpu", field).parse::<f64>().expect("seconds"))
        .sum()
}

pub(crate) fn idle_share(progress: &Progress) -> f64 {
    progress.say("an idle server");
    let server = RedisServer::start();
    share(WINDOW * 4, || used(&server))
}

pub(crate) fn share(window: Duration, used: impl Fn() -> f64) -> f64 {
    let (before, begun) = (used(), Instant::now());
    std::thread::sleep(window);
    (used() - before) / begun.elapsed().as_secs_f64() * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
pub(crate) fn measure(row: &Row, idle: f64, progress: &Progress) -> Measured {
    progress.say(&row.name());
    let server = RedisServer::start_with(&["--maxclients", "10000"]);
    let mut fleet = Fleet::start(&server, row);
    if row.open {
        fleet.request(&Request::OpenAll { briefly: false });
        let all = fleet.processes();
        fleet.wait_for(all, |message| matches!(message, Message::AllOpen)).expect("all breakers are opened");
    } else if row.per_second == 0 {
        fleet.request(&Request::Register);
    } else {
        fleet.request(&Request::Call { per_second: row.per_second, failing: row.failing });
    }
    std::thread::sleep(SETTLING);
    let made_before = fleet.calls();
    let (before, working, begun) = (commands_of_clients(&server), fleet.used(), Instant::now());
    let redis_percent = share(WINDOW, || used(&server)) - idle;
    let seconds = begun.elapsed().as_secs_f64();
    let sent = commands_of_clients(&server) - before;
    let instances_percent = (fleet.used() - working) / seconds * 100.0;
    let (made, lasted) = (fleet.calls() - made_before, begun.elapsed().as_secs_f64());
    let called = if row.open { 0 } else { row.instances * row.breakers };
    let due = called as f64 * row.per_second as f64 * lasted;
    let mut spans = Vec::new();
    for trip in 0..row.trips {
        progress.say(&format!("{}: trip {} of {}", row.name(), trip + 1, row.trips));
        std::thread::sleep(Duration::from_millis(200 + trip as u64 * 37 % 120));
        spans.extend(fleet.trip());
    }
    let opened_wrongly = if row.open {
        0
    } else {
        let held = server.cli(&["ZRANGE", "cb1:{bench}:held", "0", "-1"]);
        held.lines().filter(|name| name.starts_with("breaker-")).count()
    };
    Measured {
        instances: row.instances,
        breakers: row.breakers,
        rule: row.rule,
        per_second: row.per_second,
        failing_percent: row.failing,
        open: row.open,
        redis_percent,
        commands_per_second_and_instance: sent / seconds / row.instances as f64,
        instances_percent,
        calls_percent: (due > 0.0).then(|| made as f64 / due * 100.0),
        lost: fleet.lost,
        trips: spans.len(),
        all_after_median_ms: (!spans.is_empty()).then(|| quantile(&spans, 0.5)),
        all_after_p99_ms: (!spans.is_empty()).then(|| quantile(&spans, 0.99)),
        opened_wrongly,
    }
}

/// The number of commands so far, without those that scripts have called. Both numbers are of one moment,
/// because a busy server calls thousands between two requests.
fn commands_of_clients(server: &RedisServer) -> f64 {
    let all = server.cli(&["INFO", "stats", "commandstats"]);
    let total = |line: &str| line.strip_prefix("total_commands_processed:")?.parse::<f64>().ok();
    let calls = |line: &str| -> Option<(String, f64)> {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    let sent_by_clients =
        ["evalsha", "eval", "script|load", "xread", "xrevrange", "info", "hello", "client|setinfo"];
    let by_scripts: f64 = all
        .lines()
        .filter_map(|line| calls(line.trim()))
        .filter(|(name, _)| !sent_by_clients.contains(&name.as_str()))
        .map(|(_, calls)| calls)
        .sum();
    all.lines().find_map(|line| total(line.trim())).expect("a total") - by_scripts
}
