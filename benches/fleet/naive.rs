//! A common design of a breaker, for comparison: each call reads the state, then writes counters and an
//! event.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cb_testkit::RedisServer;
use serde::Serialize;

use super::process::{Fleet, Request};
use super::row::Row;
use super::rows::{SETTLING, WINDOW, used};
use super::support::screen::Progress;

const INSTANCES: usize = 10;

#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) calls_per_second_and_instance: u64,
    /// Redis' processor time per call, less that of an idle server, in microseconds.
    pub(crate) naive_us_per_call: f64,
    pub(crate) ours_us_per_call: f64,
}

pub(crate) fn compare(idle: f64, progress: &Progress) -> Vec<Compared> {
    [1, 10, 100, 1000]
        .map(|per_second| {
            progress.say(&format!("per call: {per_second} calls/s"));
            Compared {
                calls_per_second_and_instance: per_second,
                naive_us_per_call: naive(per_second, idle),
                ours_us_per_call: ours(per_second, idle),
            }
        })
        .into()
}

/// Microseconds of the server per call, during a window of time. Ten calls a second cost little more than an
/// idle server, so the window is long.
#[expect(clippy::cast_precision_loss, reason = "millions at most")]
fn per_call(server: &RedisServer, idle: f64, calls: impl Fn() -> u64) -> f64 {
    let (before, made, begun) = (used(server), calls(), Instant::now());
    std::thread::sleep(WINDOW * 4);
    let seconds = used(server) - before - idle / 100.0 * begun.elapsed().as_secs_f64();
    seconds * 1e6 / (calls() - made).max(1) as f64
}

fn ours(per_second: u64, idle: f64) -> f64 {
    let server = RedisServer::start();
    let row = Row { instances: INSTANCES, per_second, ..Row::ONE };
    let mut fleet = Fleet::start(&server, &row);
    fleet.request(&Request::Call { per_second, failing: 0 });
    let begun = Instant::now();
    std::thread::sleep(SETTLING);
    // The rate must be reached, or the machine is too slow for the measurement.
    per_call(&server, idle, || {
        u64::try_from(begun.elapsed().as_millis()).expect("minutes") * per_second * INSTANCES as u64 / 1000
    })
}

fn naive(per_second: u64, idle: f64) -> f64 {
    let server = RedisServer::start();
    let (go_on, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..INSTANCES as u64)
        .map(|instance| {
            let (port, go_on, calls) = (server.port(), go_on.clone(), calls.clone());
            // Instances do not call in step, which would spare Redis nine of ten wake-ups.
            let first_after = Duration::from_micros(1_000_000 * instance / (INSTANCES as u64 * per_second));
            std::thread::spawn(move || call(port, per_second, first_after, &go_on, &calls))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let us = per_call(&server, idle, || calls.load(Ordering::Relaxed));
    go_on.store(false, Ordering::Relaxed);
    for caller in callers {
        let _ = caller.join();
    }
    us
}

fn call(port: u16, per_second: u64, first_after: Duration, go_on: &AtomicBool, calls: &AtomicU64) {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server is there");
    stream.set_nodelay(true).expect("a socket");
    let mut answers = BufReader::new(stream.try_clone().expect("a socket"));
    let mut ask = |request: &[u8], replies: usize| {
        (&stream).write_all(request).expect("it is listening");
        for _ in 0..replies {
            let mut line = String::new();
            answers.read_line(&mut line).expect("it answers");
            if let Some(length) = line.strip_prefix('$').and_then(|text| text.trim().parse::<usize>().ok()) {
                let mut body = vec![0; length + 2];
                answers.read_exact(&mut body).expect("it answers");
            }
        }
    };
    std::thread::sleep(first_after);
    let (start, mut made) = (Instant::now(), 0);
    while go_on.load(Ordering::Relaxed) {
        let due = u64::try_from(start.elapsed().as_micros()).expect("hours") * per_second / 1_000_000;
        if made >= due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        made += 1;
        ask(b"HGET breaker state\r\n", 1);
        ask(b"HINCRBY breaker successes 1\r\nXADD events MAXLEN ~ 1000 * breaker x outcome success\r\n", 2);
        calls.fetch_add(1, Ordering::Relaxed);
    }
}
