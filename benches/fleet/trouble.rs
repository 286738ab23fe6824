//! Many callers of breakers whose probes are due at once, and a server with a tenth of its processor time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cb_testkit::RedisServer;
use serde::Serialize;

use super::process::{Fleet, LOST, Message, OPEN_FOR, Request};
use super::row::{Row, Rule};
use super::rows::{share, used};
use super::support::screen::{Progress, quantile};

const INSTANCES: usize = 50;
const BREAKERS: usize = 50;
/// Of each breaker.
const BUDGET: u64 = 3;
const BUSY: Row = Row { instances: INSTANCES, breakers: BREAKERS, failing: 10, ..Row::ONE };

#[derive(Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) instances: usize,
    pub(crate) breakers: usize,
    pub(crate) callers_per_second: u64,
    pub(crate) redis_percent: f64,
    /// The number of probes, and the sum of the budgets.
    pub(crate) probes: u64,
    pub(crate) budgets: u64,
}

/// All breakers become half-open at once, while there are a thousand calls a second.
pub(crate) fn storm(idle: f64, progress: &Progress) -> Storm {
    progress.say("half-open storm");
    let server = RedisServer::start_with(&["--maxclients", "10000"]);
    let mut fleet = Fleet::start(&server, &Row { rule: Rule::Consecutive, ..BUSY });
    fleet.request(&Request::OpenAll { briefly: true });
    let processes = fleet.processes();
    fleet
        .wait_for(processes, |message| matches!(message, Message::AllOpen))
        .expect("all breakers are opened");
    std::thread::sleep(OPEN_FOR.saturating_sub(Duration::from_millis(500)));
    let per_second = 1000 / INSTANCES as u64;
    fleet.request(&Request::Storm { per_second });
    let redis_percent = share(Duration::from_secs(4), || used(&server)) - idle;
    let probes = fleet.calls();
    let budgets = BUDGET * BREAKERS as u64;
    Storm {
        instances: INSTANCES,
        breakers: BREAKERS,
        callers_per_second: per_second * INSTANCES as u64,
        redis_percent,
        probes,
        budgets,
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Overload {
    pub(crate) instances: usize,
    pub(crate) breakers: usize,
    /// The server's share of its processor time.
    pub(crate) held_to_percent: u64,
    /// How often the store counted as lost on an instance.
    pub(crate) lost: u64,
    pub(crate) commands_per_second_and_instance: f64,
    pub(crate) commands_before: f64,
    pub(crate) all_after_median_ms: Option<f64>,
    pub(crate) all_after_max_ms: Option<f64>,
    pub(crate) trips_seen: usize,
    pub(crate) trips: usize,
    /// The time of a trip two seconds after the server has its whole processor time again.
    pub(crate) afterwards_ms: Option<f64>,
}

/// A busy fleet on a server that sleeps nine tenths of the time.
pub(crate) fn overload(progress: &Progress) -> Overload {
    const TRIPS: usize = 10;
    progress.say("overload");
    let server = RedisServer::start_with(&["--maxclients", "10000", "--enable-debug-command", "local"]);
    let mut fleet = Fleet::start(&server, &BUSY);
    fleet.request(&Request::Call { per_second: BUSY.per_second, failing: BUSY.failing });
    std::thread::sleep(Duration::from_secs(4));
    let commands = |seconds: u64| {
        let count = || server.info("commandstats", "cmdstat_evalsha");
        let calls = |text: String| -> f64 {
            let calls = text.split_once("calls=").and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
            calls.unwrap_or(0.0)
        };
        let (before, begun) = (calls(count()), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        #[expect(clippy::cast_precision_loss, reason = "tens")]
        let instances = INSTANCES as f64;
        (calls(count()) - before) / begun.elapsed().as_secs_f64() / instances
    };
    let commands_before = commands(4);
    let held = Arc::new(AtomicBool::new(true));
    let holding = hold_down(&server, held.clone());
    std::thread::sleep(Duration::from_secs(4));
    let commands_per_second_and_instance = commands(6);
    let mut spans = Vec::new();
    for _ in 0..TRIPS {
        spans.extend(fleet.trip());
    }
    held.store(false, Ordering::Relaxed);
    let _ = holding.join();
    std::thread::sleep(Duration::from_secs(2));
    let afterwards_ms = fleet.trip();
    Overload {
        instances: INSTANCES,
        breakers: BREAKERS,
        held_to_percent: 10,
        lost: fleet.lost,
        commands_per_second_and_instance,
        commands_before,
        all_after_median_ms: (!spans.is_empty()).then(|| quantile(&spans, 0.5)),
        all_after_max_ms: spans.iter().copied().max_by(f64::total_cmp),
        trips_seen: spans.len(),
        trips: TRIPS,
        afterwards_ms,
    }
}

/// Lets the server work for two milliseconds of twenty.
fn hold_down(server: &RedisServer, held: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let mut connection = TcpStream::connect(("127.0.0.1", server.port())).expect("the server is there");
    connection.set_read_timeout(Some(LOST)).expect("a socket");
    std::thread::spawn(move || {
        let mut answer = [0; 64];
        while held.load(Ordering::Relaxed) {
            connection.write_all(b"DEBUG SLEEP 0.018\r\n").expect("it is listening");
            let _ = connection.read(&mut answer).expect("it wakes up");
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}
