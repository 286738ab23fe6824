//! One instance of a fleet in a process of its own. The process is this program again; it reads requests from
//! stdin and answers on stdout, as lines of JSON.

use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::{Breaker, BreakerConfig, Registry};
use serde::{Deserialize, Serialize};

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
    /// Call one breaker as often as possible, and report every change from success to rejection and back.
    Watch,
    /// Report every message that is published on a channel, over a connection for this purpose only.
    Listen,
    /// Make one call that fails.
    Trip,
    /// Close the circuit again.
    Reset,
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
    /// When the first call was rejected, or a message arrived.
    Rejected(u64),
    Accepted,
    Reset,
}

fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("the clock stands after 1970");
    u64::try_from(since.as_nanos()).expect("and before 2554")
}

/// A process that runs an instance. It is killed on drop.
pub struct Instance {
    process: Child,
    requests: ChildStdin,
    replies: Receiver<Reply>,
}

impl Instance {
    /// Starts an instance, and returns once it is connected to the store.
    pub fn start(url: &str, namespace: &str) -> Self {
        let program = std::env::current_exe().expect("this program is a file");
        let mut process = Command::new(program)
            .args([ROLE, url, namespace])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let requests = process.stdin.take().expect("piped");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let reply = serde_json::from_str(&line).expect("an instance says nothing else");
                if sender.send(reply).is_err() {
                    return;
                }
            }
        });
        let instance = Instance { process, requests, replies };
        assert!(matches!(instance.reply(Duration::from_secs(10)), Some(Reply::Ready)), "it is not ready");
        instance
    }

    pub fn send(&mut self, request: &Request) {
        let line = serde_json::to_string(request).expect("it can be written");
        writeln!(self.requests, "{line}").and_then(|()| self.requests.flush()).expect("it is listening");
    }

    /// Its next answer, if there is one within `limit`.
    pub fn reply(&self, limit: Duration) -> Option<Reply> {
        self.replies.recv_timeout(limit).ok()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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
    say(&Reply::Ready);
    let mut calling: Option<Calling> = None;
    for line in stdin().lines().map_while(Result::ok) {
        match serde_json::from_str(&line).expect("a request") {
            Request::Call { breakers, per_second, failing } => {
                calling = Some(Calling::start(registry, breakers, per_second, failing));
            }
            Request::Count => say(&calling.take().expect("it is calling").stop()),
            Request::Watch => {
                std::thread::spawn(move || block_on(watch(&one(registry))));
            }
            Request::Listen => {
                // One thread waits for a message as one did for a rejection.
                WATCHES.store(false, Ordering::Relaxed);
                let address = address(url).to_owned();
                std::thread::spawn(move || listen(&address));
            }
            Request::Trip => {
                let breaker = one(registry);
                let began = now();
                let tripped = block_on(breaker.call(async || Err::<(), _>("down")));
                assert!(tripped.is_err());
                // The answer would take a processor from the trip.
                std::thread::sleep(Duration::from_millis(10));
                say(&Reply::Tripped(began));
            }
            Request::Reset => {
                block_on(one(registry).reset()).expect("the store is there");
                say(&Reply::Reset);
            }
        }
    }
    std::process::exit(0);
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// One failure trips it, because constant successes elsewhere would end a streak of several.
fn one(registry: &Registry) -> Breaker {
    let config = BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_secs(3600));
    registry.get_or_create("tripped", config)
}

static WATCHES: AtomicBool = AtomicBool::new(true);

async fn watch(breaker: &Breaker) {
    let mut accepted = true;
    say(&Reply::Accepted);
    while WATCHES.load(Ordering::Relaxed) {
        let admitted = breaker.call(async || Ok::<_, &str>(())).await.is_ok();
        if admitted != accepted {
            accepted = admitted;
            say(&if accepted { Reply::Accepted } else { Reply::Rejected(now()) });
        }
    }
}

fn address(url: &str) -> &str {
    url.strip_prefix("redis://").expect("a plain URL")
}

const CHANNEL: &str = "cb-benches";

fn listen(address: &str) {
    let mut redis = TcpStream::connect(address).expect("the server is there");
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
    say(&Reply::Ready);
    let mut known = 0;
    loop {
        let count = heard.load(Ordering::Acquire);
        if count == known {
            std::hint::spin_loop();
        } else {
            known = count;
            say(&Reply::Rejected(now()));
        }
    }
}

/// Publishes messages, for comparison: the minimum time to reach another process through Redis. Like a trip,
/// a message goes from its thread to the thread with the connection, and in the other process from the thread
/// with the connection to a thread that waits for it.
pub struct Publisher {
    orders: Sender<()>,
    answers: Receiver<()>,
}

impl Publisher {
    pub fn new(url: &str) -> Self {
        let mut redis = TcpStream::connect(address(url)).expect("the server is there");
        redis.set_nodelay(true).expect("it is connected");
        let (orders, ordered) = channel();
        let (answered, answers) = channel();
        std::thread::spawn(move || {
            let command = format!("PUBLISH {CHANNEL} x\r\n");
            for () in ordered {
                redis.write_all(command.as_bytes()).expect("it is listening");
                let mut answer = [0; 64];
                let _ = redis.read(&mut answer).expect("it answers");
                if answered.send(()).is_err() {
                    return;
                }
            }
        });
        Publisher { orders, answers }
    }

    /// When it began.
    pub fn publish(&mut self) -> u64 {
        let began = now();
        self.orders.send(()).expect("the thread is there");
        self.answers.recv().expect("it answers");
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
                std::thread::spawn(move || block_on(call(&breakers, per_second, failing, &go_on, &calls)))
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
