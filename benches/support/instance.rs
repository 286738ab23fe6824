//! One instance of a fleet in a process of its own. The process is this program again; it reads requests from
//! stdin and answers on stdout, as lines of JSON.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use cb_runtime::{Breaker, BreakerConfig, Registry};
use serde::{Deserialize, Serialize};

use super::guards::runtime;
use super::process::{Process, now};

/// The first argument of a process that runs an instance.
const ROLE: &str = "--instance";

/// A request to an instance.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Call `breakers` breakers in turn, `per_second` times in all (`None`: as often as possible), until the
    /// next request. Every `failing`-th call fails (0: none).
    Call { breakers: usize, per_second: Option<u64>, failing: u64 },
    /// Stop calling, and answer the number of calls.
    Count,
    /// Call one breaker as often as possible, and report every change from success to rejection and back, and
    /// every message that is published on a channel.
    Watch,
    /// Make one call that fails.
    Trip,
    /// Close the circuit again.
    Reset,
    /// Publish a message.
    Publish,
}

/// An answer of an instance.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Ready,
    Counted {
        calls: u64,
        seconds: f64,
    },
    /// When the tripping call began, in nanoseconds of the machine's clock, which all processes share.
    Tripped(u64),
    /// When the first call was rejected.
    Rejected(u64),
    Accepted,
    Reset,
    /// When the message was given to the thread that sends it.
    Published(u64),
    /// When the calling thread noticed the message.
    Heard(u64),
}

/// A process that runs an instance. It is killed on drop.
pub struct Instance {
    process: Process,
    replies: Receiver<Reply>,
}

impl Instance {
    /// Starts an instance, and returns once it is connected to the store.
    pub fn start(url: &str, namespace: &str) -> Self {
        let (sender, replies) = channel();
        let process = Process::start(&[ROLE, url, namespace], sender);
        let instance = Instance { process, replies };
        assert!(matches!(instance.reply(Duration::from_secs(10)), Some(Reply::Ready)), "it is not ready");
        instance
    }

    pub fn send(&mut self, request: &Request) {
        self.process.send(request);
    }

    /// Its next answer, if there is one within `limit`.
    pub fn reply(&self, limit: Duration) -> Option<Reply> {
        self.replies.recv_timeout(limit).ok()
    }
}

fn say(reply: &Reply) {
    let mut out = stdout().lock();
    let line = serde_json::to_string(reply).expect("it can be written");
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("someone is listening");
}

/// If this process was started to run an instance, runs it until stdin ends, and exits.
pub fn be_one_if_told() {
    let args: Vec<String> = std::env::args().collect();
    let [_, role, url, namespace] = &args[..] else { return };
    if role != ROLE {
        return;
    }
    let registry: &'static Registry =
        Registry::builder().redis(url).namespace(namespace).install().expect("the first in this process");
    let caller = runtime();
    let mut publisher: Option<Publisher> = None;
    let mut calling: Option<Calling> = None;
    say(&Reply::Ready);
    for line in stdin().lines().map_while(Result::ok) {
        match serde_json::from_str(&line).expect("a request") {
            Request::Call { breakers, per_second, failing } => {
                calling = Some(Calling::start(registry, breakers, per_second, failing));
            }
            Request::Count => say(&calling.take().expect("it is calling").stop()),
            Request::Watch => {
                let heard = listen(url);
                std::thread::spawn(move || runtime().block_on(watch(&one(registry), &heard)));
            }
            Request::Trip => {
                let breaker = one(registry);
                let began = now();
                let tripped = caller.block_on(breaker.call(async || Err::<(), _>("down")));
                assert!(tripped.is_err());
                stay_idle();
                say(&Reply::Tripped(began));
            }
            Request::Reset => {
                caller.block_on(one(registry).reset()).expect("the store is there");
                say(&Reply::Reset);
            }
            Request::Publish => {
                let publisher = publisher.get_or_insert_with(|| Publisher::new(url));
                let began = publisher.publish();
                stay_idle();
                say(&Reply::Published(began));
            }
        }
    }
    std::process::exit(0);
}

/// Leaves the processors to a trip or a message: the answer would take one from it.
fn stay_idle() {
    std::thread::sleep(Duration::from_millis(10));
}

/// One failure trips it, because constant successes elsewhere would end a streak of several.
fn one(registry: &Registry) -> Breaker {
    let config = BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_secs(3600));
    registry.get_or_create("tripped", config)
}

async fn watch(breaker: &Breaker, heard: &AtomicU64) {
    let (mut accepted, mut messages) = (true, 0);
    say(&Reply::Accepted);
    loop {
        let admitted = breaker.call(async || Ok::<_, &str>(())).await.is_ok();
        if admitted != accepted {
            accepted = admitted;
            say(&if accepted { Reply::Accepted } else { Reply::Rejected(now()) });
        }
        let count = heard.load(Ordering::Acquire);
        if count != messages {
            messages = count;
            say(&Reply::Heard(now()));
        }
    }
}

fn connect(url: &str) -> TcpStream {
    let redis = TcpStream::connect(url.strip_prefix("redis://").expect("a plain URL"));
    let redis = redis.expect("the server is there");
    redis.set_nodelay(true).expect("it is connected");
    redis
}

const CHANNEL: &str = "cb-benches";

/// Counts the messages on a thread of its own, with a connection of its own.
fn listen(url: &str) -> Arc<AtomicU64> {
    let mut redis = connect(url);
    writeln!(redis, "SUBSCRIBE {CHANNEL}\r").expect("it is listening");
    let mut lines = BufReader::new(redis).lines().map_while(Result::ok);
    lines.by_ref().find(|line| line == "subscribe").expect("it answers");
    let heard = Arc::new(AtomicU64::new(0));
    let counter = heard.clone();
    std::thread::spawn(move || {
        while lines.any(|line| line == "message") {
            counter.fetch_add(1, Ordering::Release);
        }
    });
    heard
}

/// Publishes messages, for comparison: the minimum time to reach another process through Redis. Like a trip,
/// a message goes from its thread to the thread with the connection, and in the other process from the thread
/// with the connection to the thread that makes calls.
struct Publisher(Sender<()>);

impl Publisher {
    fn new(url: &str) -> Self {
        let mut redis = connect(url);
        let mut answers = BufReader::new(redis.try_clone().expect("a second handle")).lines();
        let (sender, orders) = channel();
        std::thread::spawn(move || {
            let command = format!("PUBLISH {CHANNEL} x\r\n");
            for () in orders {
                redis.write_all(command.as_bytes()).expect("it is listening");
                answers.next().expect("it answers").expect("a line");
            }
        });
        Publisher(sender)
    }

    /// When it began.
    fn publish(&self) -> u64 {
        let began = now();
        self.0.send(()).expect("the thread is there");
        began
    }
}

/// Threads that make calls.
struct Calling {
    go_on: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
    since: Instant,
}

impl Calling {
    fn start(registry: &'static Registry, breakers: usize, per_second: Option<u64>, failing: u64) -> Self {
        let (go_on, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let breakers: Vec<Breaker> = (0..breakers)
            .map(|number| registry.get_or_create(&format!("breaker-{number}"), BreakerConfig::default()))
            .collect();
        let count = if per_second.is_some() {
            1
        } else {
            std::thread::available_parallelism().map_or(2, usize::from)
        };
        let threads = (0..count)
            .map(|_| {
                let (go_on, calls, breakers) = (go_on.clone(), calls.clone(), breakers.clone());
                std::thread::spawn(move || {
                    runtime().block_on(call(&breakers, per_second, failing, &go_on, &calls));
                })
            })
            .collect();
        Calling { go_on, calls, threads, since: Instant::now() }
    }

    fn stop(self) -> Reply {
        self.go_on.store(false, Ordering::Relaxed);
        let seconds = self.since.elapsed().as_secs_f64();
        for thread in self.threads {
            thread.join().expect("a calling thread does not panic");
        }
        Reply::Counted { calls: self.calls.load(Ordering::Relaxed), seconds }
    }
}

/// Makes calls in bursts every millisecond, the resolution of timers.
async fn call(
    breakers: &[Breaker],
    per_second: Option<u64>,
    failing: u64,
    go_on: &AtomicBool,
    counted: &AtomicU64,
) {
    let start = Instant::now();
    let mut calls = 0;
    let mut next = breakers.iter().cycle();
    while go_on.load(Ordering::Relaxed) {
        let due = match per_second {
            None => calls + 1000,
            Some(rate) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "thousands"
                )]
                let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
                due
            }
        };
        while calls < due {
            calls += 1;
            let result = if failing > 0 && calls % failing == 0 { Err("down") } else { Ok(()) };
            let _ = next.next().expect("there is at least one").call(async || result).await;
        }
    }
    counted.fetch_add(calls, Ordering::Relaxed);
}
