//! The fleet: processes that contain instances. They read requests from stdin and answer on stdout, as lines
//! of JSON.

use std::cell::Cell;
use std::io::{Write, stdin, stdout};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cb_runtime::{Breaker, BreakerConfig, Event, Events, Registry, State};
use cb_testkit::RedisServer;
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::row::{Row, Rule};
use super::support::process::{Process, now};

/// The first argument of a process that contains instances.
pub(crate) const ROLE: &str = "--fleet-process";
/// The longest wait for an answer.
pub(crate) const LOST: Duration = Duration::from_secs(20);
/// The duration of the open state before the breakers become half-open together.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(4);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Calls every breaker of every instance this often; `failing` percent of the calls fail.
    Call {
        per_second: u64,
        failing: u64,
    },
    /// Registers the breakers, and does not call them.
    Register,
    /// Opens every breaker on the first instance, without an end or for [`OPEN_FOR`].
    OpenAll {
        briefly: bool,
    },
    /// Each instance makes this many calls a second, on its breakers in turn. An admitted call does not end.
    Storm {
        per_second: u64,
    },
    /// Asks for the number of calls so far; of the storm's, the admitted ones.
    Count,
    /// Makes one failing call on the first instance, of a breaker that trips at its first failure.
    Trip,
    Reset,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Ready,
    /// When the tripping call began, in nanoseconds of the machine's clock.
    Tripped(u64),
    /// When the last instance of a process received the transition.
    Open(u64),
    /// All instances of a process have received the transition back.
    Closed,
    AllOpen,
    Registered,
    /// The store counts as lost on an instance.
    Lost,
    Counted(u64),
}

/// The processes that contain the fleet's instances.
pub(crate) struct Fleet {
    processes: Vec<Process>,
    messages: Receiver<Message>,
    /// How often the store counted as lost on an instance.
    pub(crate) lost: u64,
}

impl Fleet {
    pub(crate) fn start(server: &RedisServer, row: &Row) -> Self {
        let count = row.instances.div_ceil(100).max(2.min(row.instances));
        let (sender, messages) = channel();
        let mut left = row.instances;
        let processes = (0..count)
            .map(|number| {
                let share = left.div_ceil(count - number);
                left -= share;
                let process = start(server, share, row, number == 0, sender.clone());
                while !matches!(
                    messages.recv_timeout(Duration::from_secs(60)).expect("it starts"),
                    Message::Ready
                ) {}
                process
            })
            .collect();
        Fleet { processes, messages, lost: 0 }
    }

    pub(crate) fn request(&mut self, request: &Request) {
        for process in &mut self.processes {
            process.send(request);
        }
    }

    /// Sends a request to the first process, which has the first instance.
    pub(crate) fn request_first(&mut self, request: &Request) {
        self.processes[0].send(request);
    }

    /// Waits for the answers of that many processes.
    pub(crate) fn wait_for(&mut self, count: usize, mut wanted: impl FnMut(Message) -> bool) -> Option<()> {
        let mut heard = 0;
        while heard < count {
            let message = self.messages.recv_timeout(LOST).ok()?;
            if matches!(message, Message::Lost) {
                self.lost += 1;
            } else if wanted(message) {
                heard += 1;
            }
        }
        Some(())
    }

    pub(crate) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// The processor time of all processes, in seconds.
    pub(crate) fn used(&self) -> f64 {
        self.processes.iter().map(|process| seconds_used(process.id())).sum()
    }

    /// The number of calls so far, of all instances.
    pub(crate) fn calls(&mut self) -> u64 {
        let mut sum = 0;
        self.request(&Request::Count);
        let all = self.processes();
        self.wait_for(all, |message| {
            let Message::Counted(calls) = message else { return false };
            sum += calls;
            true
        })
        .expect("every process counts");
        sum
    }

    /// The milliseconds until all instances had the transition; `None` if one never received it.
    pub(crate) fn trip(&mut self) -> Option<f64> {
        let processes = self.processes.len();
        self.request_first(&Request::Trip);
        let (mut began, mut last) = (0, 0);
        self.wait_for(processes + 1, |message| match message {
            Message::Tripped(at) => {
                began = at;
                true
            }
            Message::Open(at) => {
                last = last.max(at);
                true
            }
            _ => false,
        })?;
        self.request_first(&Request::Reset);
        self.wait_for(processes, |message| matches!(message, Message::Closed))?;
        #[expect(clippy::cast_precision_loss, reason = "seconds at most")]
        Some(last.saturating_sub(began) as f64 / 1e6)
    }
}

/// The processor time of a process from the kernel, in clock ticks: a hundred per second.
fn seconds_used(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = text.rsplit_once(')') else { return 0.0 };
    rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
}

/// A process of this number of instances; the `first` one contains the fleet's first instance.
fn start(server: &RedisServer, instances: usize, row: &Row, first: bool, sender: Sender<Message>) -> Process {
    let rule = if row.rule == Rule::Rate { "rate" } else { "consecutive" };
    let place = if first { "first" } else { "other" };
    let (instances, breakers) = (instances.to_string(), row.breakers.to_string());
    Process::start(&[ROLE, &server.url(), &instances, &breakers, rule, place], sender)
}

// ---- a process that contains instances

fn say(message: &Message) {
    static OUT: Mutex<()> = Mutex::new(());
    let _one = OUT.lock();
    let line = serde_json::to_string(message).expect("it can be written");
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

pub(crate) fn hold(url: &str, instances: usize, breakers: usize, rule: Rule, first: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let registries: Vec<Registry> = (0..instances)
        .map(|_| Registry::builder().redis(url).namespace("bench").build().expect("a right address"))
        .collect();
    let once = BreakerConfig::default().failure_threshold(1).reset_timeout(Duration::from_secs(3600));
    let config = match rule {
        Rule::Rate => BreakerConfig::default().failure_rate_threshold(0.5).window(Duration::from_secs(60)),
        Rule::Consecutive => BreakerConfig::default(),
    };
    let tripped: Vec<Breaker> =
        registries.iter().map(|registry| registry.get_or_create("tripped", once.clone())).collect();
    let arrivals = registries.iter().map(Registry::subscribe).collect();
    std::thread::spawn(|| report_arrivals(arrivals));
    let called = |config: &BreakerConfig| -> Vec<Vec<Breaker>> {
        let names: Vec<String> = (0..breakers).map(|number| format!("breaker-{number}")).collect();
        let of = |registry: &Registry| {
            names.iter().map(|name| registry.get_or_create(name, config.clone())).collect()
        };
        registries.iter().map(of).collect()
    };
    let go_on = Arc::new(AtomicBool::new(true));
    let made = Arc::new(AtomicU64::new(0));
    let mut kept = Vec::new();
    say(&Message::Ready);
    for line in stdin().lines().map_while(Result::ok) {
        match serde_json::from_str(&line).expect("a request") {
            Request::Call { per_second, failing } => {
                let (breakers, made, go_on) = (called(&config), made.clone(), go_on.clone());
                std::thread::spawn(move || call(&breakers, per_second, failing, &made, &go_on));
            }
            Request::Register => {
                kept = called(&config);
                say(&Message::Registered);
            }
            Request::OpenAll { briefly } => {
                let config = if briefly { once.clone().reset_timeout(OPEN_FOR) } else { once.clone() };
                kept = called(&config);
                for breaker in kept.iter().take(usize::from(first)).flatten() {
                    let _ = runtime.block_on(breaker.call(async || Err::<(), _>("down")));
                }
                say(&Message::AllOpen);
            }
            Request::Storm { per_second } => {
                let (breakers, made, go_on) = (kept.clone(), made.clone(), go_on.clone());
                std::thread::spawn(move || storm(&breakers, per_second, &made, &go_on));
            }
            Request::Count => say(&Message::Counted(made.load(Ordering::Relaxed))),
            Request::Trip => {
                let began = now();
                let _ = runtime.block_on(tripped[0].call(async || Err::<(), _>("down")));
                say(&Message::Tripped(began));
            }
            // An overloaded server may count as lost for a moment.
            Request::Reset => while runtime.block_on(tripped[0].reset()).is_err() {},
        }
    }
    go_on.store(false, Ordering::Relaxed);
    std::process::exit(0);
}

/// Reports when all instances of this process have received a transition. One thread follows all of them, so
/// that an instance costs the machine little more than its coordinator.
fn report_arrivals(subscribers: Vec<Events>) {
    let (count, open, closed) = (subscribers.len(), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let is_last = move |arrived: &Cell<usize>| {
        arrived.set((arrived.get() + 1) % count);
        arrived.get() == 0
    };
    let tasks = LocalSet::new();
    for mut events in subscribers {
        let (open, closed) = (open.clone(), closed.clone());
        tasks.spawn_local(async move {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Transition(transition) if &*transition.breaker == "tripped" => {
                        let (at, is_open) = (now(), transition.to == State::Open);
                        if is_last(if is_open { &open } else { &closed }) {
                            say(&if is_open { Message::Open(at) } else { Message::Closed });
                        }
                    }
                    Event::StoreLost(_) => say(&Message::Lost),
                    _ => {}
                }
            }
        });
    }
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(tasks);
}

/// Calls the breakers in turn, in bursts every few milliseconds. A fleet's applications have processors of
/// their own; here, they get what Redis and the coordinators leave.
fn call(instances: &[Vec<Breaker>], per_second: u64, failing: u64, made: &AtomicU64, go_on: &AtomicBool) {
    // On Linux, this is the priority of a thread.
    rustix::process::nice(19).expect("anyone may lower a priority");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // The instances take turns, so that none is idle for a part of each round.
    let most = instances.iter().map(Vec::len).max().unwrap_or(0);
    let all: Vec<&Breaker> =
        (0..most).flat_map(|at| instances.iter().filter_map(move |breakers| breakers.get(at))).collect();
    let (start, mut calls, mut random) = (Instant::now(), 0, now() | 1);
    runtime.block_on(async {
        let mut next = all.iter().cycle();
        while go_on.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            let passed = u64::try_from(start.elapsed().as_micros()).expect("hours at most");
            let due = passed * per_second * all.len() as u64 / 1_000_000;
            while calls < due {
                calls += 1;
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let result = if random % 100 < failing { Err("down") } else { Ok(()) };
                let _ = next.next().expect("there is one").call(async || result).await;
            }
            made.store(calls, Ordering::Relaxed);
        }
    });
}

/// Calls breakers whose probes are due. An admitted probe does not end.
fn storm(instances: &[Vec<Breaker>], per_second: u64, made: &Arc<AtomicU64>, go_on: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (start, mut calls) = (Instant::now(), 0);
        while go_on.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let passed = u64::try_from(start.elapsed().as_micros()).expect("hours at most");
            while calls < passed * per_second / 1_000_000 {
                for breakers in instances {
                    let at = usize::try_from(calls).expect("thousands") % breakers.len();
                    let (breaker, made) = (breakers[at].clone(), made.clone());
                    tokio::spawn(async move {
                        let probe = async || {
                            made.fetch_add(1, Ordering::Relaxed);
                            std::future::pending::<Result<(), &str>>().await
                        };
                        let _ = breaker.call(probe).await;
                    });
                }
                calls += 1;
            }
        }
    });
}
