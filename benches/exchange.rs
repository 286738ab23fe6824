//! The cost of sharing: the commands per second that an instance sends to a real Redis, its connections, and
//! the time from a tripping call in one process to the first rejected call in another.

#[path = "support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use cb_testkit::RedisServer;
use owo_colors::Style;
use serde::Serialize;
use support::instance::{Instance, Reply, Request, be_one_if_told};
use support::screen::{Limit, Options, Progress, Table, exit_code, judge, note, quantile, title};

/// The time for which commands are counted.
const WINDOW: Duration = Duration::from_secs(if cfg!(debug_assertions) { 1 } else { 5 });
/// The time before that. The commands of an instance's start are not counted.
const SETTLING: Duration = Duration::from_secs(1);
/// A trip that has not arrived after this time counts as lost.
const LOST: Duration = Duration::from_secs(2);

/// One way to use an instance.
struct Load {
    name: &'static str,
    breakers: usize,
    /// `None`: as many as possible.
    per_second: Option<u64>,
    failing: u64,
}

const LOADS: [Load; 6] = [
    Load { name: "no calls", breakers: 1, per_second: Some(0), failing: 0 },
    Load { name: "100 calls/s", breakers: 1, per_second: Some(100), failing: 0 },
    Load { name: "10,000 calls/s", breakers: 1, per_second: Some(10_000), failing: 0 },
    Load { name: "10,000 calls/s, 1 in 100 fails", breakers: 1, per_second: Some(10_000), failing: 100 },
    Load { name: "10,000 calls/s on 100 breakers", breakers: 100, per_second: Some(10_000), failing: 0 },
    Load { name: "as many as it can", breakers: 1, per_second: None, failing: 0 },
];

#[derive(Serialize)]
struct Cost {
    load: &'static str,
    breakers: usize,
    calls_per_second: f64,
    commands_per_second: f64,
    connections: usize,
}

#[derive(Serialize)]
struct Propagation {
    /// From PUBLISH on the tripping instance to the message on the other, between two trips: a trip's path
    /// without the breaker.
    publish_median_ms: f64,
    publish_p99_ms: f64,
    trips: usize,
    seen: usize,
    median_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

fn main() -> ExitCode {
    be_one_if_told();
    let options = Options::from_args(if cfg!(debug_assertions) { 10 } else { 200 });
    let progress = Progress::new();
    progress.say("starting redis-server");
    let server = RedisServer::start();
    let costs: Vec<Cost> = LOADS
        .iter()
        .map(|load| {
            progress.say(&format!("counting commands: {}", load.name));
            cost(&server, load)
        })
        .collect();
    let propagation = propagation(&server, options.rounds, &progress);
    drop(progress);
    let limits = limits(&costs, &propagation);
    if options.json {
        println!("{}", serde_json::json!({ "costs": costs, "propagation": propagation, "limits": limits }));
        return exit_code(&limits);
    }
    show(&costs, &propagation);
    if cfg!(debug_assertions) {
        note("not optimized: no judgement");
        return ExitCode::SUCCESS;
    }
    judge(&limits)
}

/// Commands that clients send, counted by the server. Commands inside scripts are not included.
fn cost(server: &RedisServer, load: &Load) -> Cost {
    server.cli(&["FLUSHALL"]);
    let before = server.connected_clients();
    let mut instance = Instance::start(&server.url(), "bench");
    let Load { breakers, per_second, failing, .. } = *load;
    instance.send(&Request::Call { breakers, per_second, failing });
    std::thread::sleep(SETTLING);
    let (connections, commands) = server.client_commands(|| {
        std::thread::sleep(WINDOW);
        server.connected_clients() - before
    });
    instance.send(&Request::Count);
    let Some(Reply::Counted { calls, seconds }) = instance.reply(Duration::from_secs(10)) else {
        panic!("the instance does not answer")
    };
    drop(instance);
    cb_testkit::wait_until(LOST, "the instance is gone", || server.connected_clients() <= before);
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
    Cost {
        load: load.name,
        breakers,
        calls_per_second: calls as f64 / seconds,
        commands_per_second: commands as f64 / WINDOW.as_secs_f64(),
        connections,
    }
}

fn propagation(server: &RedisServer, trips: usize, progress: &Progress) -> Propagation {
    server.cli(&["FLUSHALL"]);
    let mut tripping = Instance::start(&server.url(), "bench");
    let mut watching = Instance::start(&server.url(), "bench");
    watching.send(&Request::Watch);
    assert!(matches!(watching.reply(LOST), Some(Reply::Accepted)));
    let (mut spans, mut messages) = (Vec::new(), Vec::new());
    for trip in 0..trips {
        progress.say(&format!("trip {} of {trips}, {} seen", trip + 1, spans.len()));
        // Each trip comes at another phase of the other instance's exchanges, and each message, too. All
        // processors and caches are as cold for the one as for the other.
        let pause = || std::thread::sleep(Duration::from_millis(20 + trip as u64 * 37 % 120));
        pause();
        tripping.send(&Request::Publish);
        let Some(Reply::Published(began)) = tripping.reply(LOST) else { panic!("it does not publish") };
        let Some(Reply::Heard(at)) = watching.reply(LOST) else { panic!("the message does not come") };
        messages.push(milliseconds(began, at));
        pause();
        tripping.send(&Request::Trip);
        let Some(Reply::Tripped(began)) = tripping.reply(LOST) else { panic!("the circuit does not trip") };
        let seen = match watching.reply(LOST) {
            Some(Reply::Rejected(at)) => {
                spans.push(milliseconds(began, at));
                true
            }
            Some(other) => panic!("{other:?}"),
            None => false,
        };
        tripping.send(&Request::Reset);
        assert!(matches!(tripping.reply(LOST), Some(Reply::Reset)), "the circuit is not closed");
        if seen {
            assert!(matches!(watching.reply(LOST), Some(Reply::Accepted)), "the close is not seen");
        } else {
            // Ignore an answer that arrives now.
            while watching.reply(Duration::from_millis(500)).is_some() {}
        }
    }
    let of_trips = |part| if spans.is_empty() { f64::INFINITY } else { quantile(&spans, part) };
    Propagation {
        publish_median_ms: quantile(&messages, 0.5),
        publish_p99_ms: quantile(&messages, 0.99),
        trips,
        seen: spans.len(),
        median_ms: of_trips(0.5),
        p99_ms: of_trips(0.99),
        max_ms: of_trips(1.0),
    }
}

/// Between two times in nanoseconds.
fn milliseconds(began: u64, ended: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds at most")]
    let nanoseconds = ended.saturating_sub(began) as f64;
    nanoseconds / 1e6
}

fn show(costs: &[Cost], propagation: &Propagation) {
    title("What an instance asks of Redis");
    let mut table = Table::new(&["", "calls/s", "commands/s", "connections"]);
    for cost in costs {
        table.row(
            Style::new(),
            vec![
                cost.load.to_owned(),
                format!("{:.0}", cost.calls_per_second),
                format!("{:.1}", cost.commands_per_second),
                cost.connections.to_string(),
            ],
        );
    }
    table.print();
    title("From the tripping call on one process to the first rejection on another");
    let mut table = Table::new(&["", "median", "p99", "max", "seen"]);
    table.row(
        Style::new(),
        vec![
            "the other calls successfully all the while".to_owned(),
            format!("{:.2} ms", propagation.median_ms),
            format!("{:.2} ms", propagation.p99_ms),
            format!("{:.2} ms", propagation.max_ms),
            format!("{} of {}", propagation.seen, propagation.trips),
        ],
    );
    table.row(
        Style::new().dimmed(),
        vec![
            "for comparison: a PUBLISH, from thread to thread as a trip goes".to_owned(),
            format!("{:.2} ms", propagation.publish_median_ms),
            format!("{:.2} ms", propagation.publish_p99_ms),
            String::new(),
            String::new(),
        ],
    );
    table.print();
}

fn limits(costs: &[Cost], propagation: &Propagation) -> Vec<Limit> {
    let limit = |what: String, value, measured, unit| Limit { what, value, measured, unit, at_least: false };
    let mut limits: Vec<Limit> = costs
        .iter()
        .map(|cost| limit(cost.load.to_owned(), 12.0, cost.commands_per_second, " commands/s"))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    limits.extend([
        limit(
            "connections, at most".to_owned(),
            2.0,
            costs.iter().map(|cost| cost.connections).max().unwrap_or(0) as f64,
            "",
        ),
        limit("trip to rejection, median".to_owned(), 0.6, propagation.median_ms, " ms"),
        limit("trip to rejection, p99".to_owned(), 2.0, propagation.p99_ms, " ms"),
        limit(
            "trip to rejection, median, in PUBLISHes".to_owned(),
            2.0,
            propagation.median_ms / propagation.publish_median_ms,
            "",
        ),
        limit(
            "trip to rejection, p99, in PUBLISHes".to_owned(),
            2.0,
            propagation.p99_ms / propagation.publish_p99_ms,
            "",
        ),
        Limit {
            what: "trips seen".to_owned(),
            value: propagation.trips as f64,
            measured: propagation.seen as f64,
            unit: "",
            at_least: true,
        },
    ]);
    limits
}
