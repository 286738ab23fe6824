//! What a fleet costs its Redis: the share of a core that the server works for it, the commands that each
//! instance sends, and how long after a trip on one instance all others know it. Instances are registries
//! with coordinators of their own in a few processes; the server is a real one.

#[path = "support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::{Breaker, BreakerConfig, Event, Registry, State};
use cb_testkit::RedisServer;
use owo_colors::Style;
use serde::{Deserialize, Serialize};
use support::screen::{Progress, Table, note, quantile, title};

/// The first argument of a process that holds instances.
const ROLE: &str = "--fleet-process";
/// Calls that every breaker of every instance gets in a second.
const CALLS_PER_SECOND: u64 = 40;
/// A fleet is in step some seconds after its start.
const SETTLING: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(if cfg!(debug_assertions) { 1 } else { 8 });
const LOST: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Rule {
    /// Half of the calls of a minute.
    Rate,
    /// Five failures in a row.
    Consecutive,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    instances: usize,
    breakers: usize,
    rule: Rule,
    /// In percent.
    failing: u64,
    /// All breakers are open, and nobody calls.
    open: bool,
    trips: usize,
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Calls every breaker of every instance; `failing` percent of the calls fail.
    Call {
        failing: u64,
    },
    /// Opens every breaker on the first instance.
    OpenAll,
    /// One failing call, on the first instance, of a breaker that trips at the first.
    Trip,
    Reset,
}

#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Ready,
    /// When the tripping call began, in nanoseconds of the machine's clock.
    Tripped(u64),
    /// When one instance had the transition.
    Open(u64),
    Closed,
    AllOpen,
}

#[derive(Debug, Serialize)]
struct Measured {
    instances: usize,
    breakers: usize,
    rule: Rule,
    failing_percent: u64,
    open: bool,
    /// Of one core, over the idle server's.
    redis_percent: f64,
    commands_per_second_and_instance: f64,
    /// Of one core, all instances together: their calls, their coordinators.
    instances_percent: f64,
    trips: usize,
    /// From the tripping call to the last instance that has the transition.
    all_after_median_ms: Option<f64>,
    all_after_p99_ms: Option<f64>,
    /// Breakers that opened though their rate was below the limit.
    opened_wrongly: usize,
}

struct Arguments {
    json: bool,
    up_to: usize,
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, url, instances, breakers, rule, first] = &arguments[..]
        && role == ROLE
    {
        let rule = if rule == "rate" { Rule::Rate } else { Rule::Consecutive };
        let count = |text: &String| text.parse().expect("a number");
        hold(url, count(instances), count(breakers), rule, first == "first");
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = read(arguments) else {
        eprintln!(
            "usage: cargo bench -p cb-benches --bench fleet -- [--json] [--up-to INSTANCES] [--only TEXT]"
        );
        return ExitCode::from(2);
    };
    let progress = Progress::new();
    let idle = idle_share(&progress);
    let rows: Vec<Measured> = rows(&arguments).iter().map(|row| measure(row, idle, &progress)).collect();
    drop(progress);
    if arguments.json {
        println!("{}", serde_json::json!({ "idle_percent": idle, "fleet": rows }));
    } else {
        show(&rows, idle);
    }
    ExitCode::SUCCESS
}

fn read(given: Vec<String>) -> Option<Arguments> {
    let mut arguments = Arguments { json: false, up_to: 200, only: None };
    let mut given = given.into_iter();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--bench" => {}
            "--json" => arguments.json = true,
            "--up-to" => arguments.up_to = given.next()?.parse().ok()?,
            "--only" => arguments.only = Some(given.next()?),
            _ => return None,
        }
    }
    Some(arguments)
}

fn rows(arguments: &Arguments) -> Vec<Row> {
    let healthy = Row { instances: 1, breakers: 1, rule: Rule::Rate, failing: 0, open: false, trips: 20 };
    let mut rows = vec![healthy, Row { failing: 10, ..healthy }];
    for instances in [10, 50, 200, 1000] {
        let row = Row { instances, breakers: 50, ..healthy };
        rows.extend([row, Row { failing: 10, ..row }]);
        if instances <= 50 {
            let consecutive = Row { rule: Rule::Consecutive, ..row };
            rows.extend([consecutive, Row { failing: 10, ..consecutive }]);
        }
    }
    rows.push(Row { instances: 6, breakers: 4_000, open: true, rule: Rule::Consecutive, ..healthy });
    rows.retain(|row| row.instances <= arguments.up_to);
    rows.retain(|row| arguments.only.as_ref().is_none_or(|only| row.name().contains(only)));
    rows
}

impl Row {
    fn name(&self) -> String {
        let Row { instances, breakers, failing, .. } = self;
        let what = match (self.open, self.rule) {
            (true, _) => "all open, no calls".to_owned(),
            (false, Rule::Rate) => format!("rate, {failing} % failing"),
            (false, Rule::Consecutive) => format!("consecutive, {failing} % failing"),
        };
        format!("{instances} × {breakers}, {what}")
    }
}

/// Seconds of processor time that the server has used.
fn used(server: &RedisServer) -> f64 {
    ["used_cpu_user", "used_cpu_sys"]
        .iter()
        .map(|field| server.info("cpu", field).parse::<f64>().expect("seconds"))
        .sum()
}

fn idle_share(progress: &Progress) -> f64 {
    progress.say("an idle server");
    let server = RedisServer::start();
    share(WINDOW, || used(&server))
}

fn share(window: Duration, used: impl Fn() -> f64) -> f64 {
    let (before, begun) = (used(), Instant::now());
    std::thread::sleep(window);
    (used() - before) / begun.elapsed().as_secs_f64() * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn measure(row: &Row, idle: f64, progress: &Progress) -> Measured {
    progress.say(&row.name());
    let server = RedisServer::start_with(&["--maxclients", "10000"]);
    let mut fleet = Fleet::start(&server, row);
    if row.open {
        fleet.processes[0].order(&Order::OpenAll);
        fleet.words.recv_timeout(LOST).expect("all breakers are opened");
    } else {
        fleet.order(&Order::Call { failing: row.failing });
    }
    std::thread::sleep(SETTLING);
    let processed = || server.info("stats", "total_commands_processed").parse::<f64>().expect("a number");
    let called_by_scripts = || script_calls(&server);
    let (commands, inside, working, begun) = (processed(), called_by_scripts(), fleet.used(), Instant::now());
    let redis_percent = share(WINDOW, || used(&server)) - idle;
    let seconds = begun.elapsed().as_secs_f64();
    let sent = (processed() - commands) - (called_by_scripts() - inside);
    let instances_percent = (fleet.used() - working) / seconds * 100.0;
    let mut spans = Vec::new();
    for trip in 0..row.trips {
        progress.say(&format!("{}: trip {} of {}", row.name(), trip + 1, row.trips));
        std::thread::sleep(Duration::from_millis(200 + trip as u64 * 37 % 120));
        spans.extend(fleet.trip(row.instances));
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
        failing_percent: row.failing,
        open: row.open,
        redis_percent,
        commands_per_second_and_instance: sent / seconds / row.instances as f64,
        instances_percent,
        trips: spans.len(),
        all_after_median_ms: (!spans.is_empty()).then(|| quantile(&spans, 0.5)),
        all_after_p99_ms: (!spans.is_empty()).then(|| quantile(&spans, 0.99)),
        opened_wrongly,
    }
}

/// Commands that scripts have called, which the server counts among all others.
fn script_calls(server: &RedisServer) -> f64 {
    let all = server.cli(&["INFO", "commandstats"]);
    let calls = |line: &str| -> Option<(String, f64)> {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    let sent_by_clients =
        ["evalsha", "eval", "script|load", "xread", "xrevrange", "info", "hello", "client|setinfo"];
    all.lines()
        .filter_map(|line| calls(line.trim()))
        .filter(|(name, _)| !sent_by_clients.contains(&name.as_str()))
        .map(|(_, calls)| calls)
        .sum()
}

/// The processes that hold the fleet's instances.
struct Fleet {
    processes: Vec<Process>,
    words: Receiver<Word>,
}

struct Process {
    child: Child,
    orders: ChildStdin,
}

impl Fleet {
    fn start(server: &RedisServer, row: &Row) -> Self {
        let count = row.instances.div_ceil(100).max(2.min(row.instances));
        let (sender, words) = channel();
        let mut left = row.instances;
        let processes = (0..count)
            .map(|number| {
                let share = left.div_ceil(count - number);
                left -= share;
                let process = Process::start(server, share, row, number == 0, sender.clone());
                let ready = words.recv_timeout(Duration::from_secs(60));
                assert!(matches!(ready, Ok(Word::Ready)), "a process is not ready");
                process
            })
            .collect();
        Fleet { processes, words }
    }

    fn order(&mut self, order: &Order) {
        for process in &mut self.processes {
            process.order(order);
        }
    }

    /// Seconds of processor time that all processes have used.
    fn used(&self) -> f64 {
        self.processes.iter().map(|process| seconds_used(process.child.id())).sum()
    }

    /// In milliseconds, until all instances had it; `None` if some never had.
    fn trip(&mut self, instances: usize) -> Option<f64> {
        self.processes[0].order(&Order::Trip);
        let (mut began, mut last, mut open) = (None, 0, 0);
        while open < instances || began.is_none() {
            match self.words.recv_timeout(LOST).ok()? {
                Word::Tripped(at) => began = Some(at),
                Word::Open(at) => {
                    open += 1;
                    last = last.max(at);
                }
                _ => {}
            }
        }
        self.processes[0].order(&Order::Reset);
        let mut closed = 0;
        while closed < instances {
            closed += usize::from(matches!(self.words.recv_timeout(LOST).ok()?, Word::Closed));
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds at most")]
        Some(last.saturating_sub(began?) as f64 / 1e6)
    }
}

/// From the kernel's account of a process: clock ticks, a hundred of them a second.
fn seconds_used(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = text.rsplit_once(')') else { return 0.0 };
    rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / 100.0
}

impl Process {
    fn start(server: &RedisServer, instances: usize, row: &Row, first: bool, sender: Sender<Word>) -> Self {
        let program = std::env::current_exe().expect("this program is a file");
        let rule = if row.rule == Rule::Rate { "rate" } else { "consecutive" };
        let place = if first { "first" } else { "other" };
        let mut child = Command::new(program)
            .args([ROLE, &server.url(), &instances.to_string(), &row.breakers.to_string(), rule, place])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let orders = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let word = serde_json::from_str(&line).expect("a process of instances says nothing else");
                if sender.send(word).is_err() {
                    return;
                }
            }
        });
        Process { child, orders }
    }

    fn order(&mut self, order: &Order) {
        let line = serde_json::to_string(order).expect("it can be written");
        writeln!(self.orders, "{line}").and_then(|()| self.orders.flush()).expect("it is listening");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- a process that holds instances

fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("the clock stands after 1970");
    u64::try_from(since.as_nanos()).expect("and before 2554")
}

fn say(word: &Word) {
    static OUT: Mutex<()> = Mutex::new(());
    let _one = OUT.lock();
    let line = serde_json::to_string(word).expect("it can be written");
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn hold(url: &str, instances: usize, breakers: usize, rule: Rule, first: bool) {
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
    for registry in &registries {
        let mut events = registry.subscribe();
        std::thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                while let Some(event) = runtime.block_on(events.recv()) {
                    if let Event::Transition(transition) = event
                        && &*transition.breaker == "tripped"
                    {
                        say(&if transition.to == State::Open { Word::Open(now()) } else { Word::Closed });
                    }
                }
            })
            .expect("a thread");
    }
    let called = |config: &BreakerConfig| -> Vec<Vec<Breaker>> {
        let names: Vec<String> = (0..breakers).map(|number| format!("breaker-{number}")).collect();
        let of = |registry: &Registry| {
            names.iter().map(|name| registry.get_or_create(name, config.clone())).collect()
        };
        registries.iter().map(of).collect()
    };
    let go_on = Arc::new(AtomicBool::new(true));
    say(&Word::Ready);
    for line in stdin().lines().map_while(Result::ok) {
        match serde_json::from_str(&line).expect("an order") {
            Order::Call { failing } => {
                let (breakers, go_on) = (called(&config), go_on.clone());
                std::thread::spawn(move || call(&breakers, failing, &go_on));
            }
            Order::OpenAll => {
                for breaker in called(&once).iter().take(usize::from(first)).flatten() {
                    let _ = runtime.block_on(breaker.call(async || Err::<(), _>("down")));
                }
                say(&Word::AllOpen);
            }
            Order::Trip => {
                let began = now();
                let _ = runtime.block_on(tripped[0].call(async || Err::<(), _>("down")));
                say(&Word::Tripped(began));
            }
            // A server that is asked for too much may be lost for a moment.
            Order::Reset => while runtime.block_on(tripped[0].reset()).is_err() {},
        }
    }
    go_on.store(false, Ordering::Relaxed);
    std::process::exit(0);
}

/// Calls the breakers in turn, in slices of some milliseconds.
fn call(instances: &[Vec<Breaker>], failing: u64, go_on: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // One breaker of every instance after the other, so that no instance is idle for a part of each round.
    let most = instances.iter().map(Vec::len).max().unwrap_or(0);
    let all: Vec<&Breaker> =
        (0..most).flat_map(|at| instances.iter().filter_map(move |breakers| breakers.get(at))).collect();
    let (start, mut calls, mut random) = (Instant::now(), 0, now() | 1);
    runtime.block_on(async {
        let mut next = all.iter().cycle();
        while go_on.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            let passed = u64::try_from(start.elapsed().as_micros()).expect("hours at most");
            let due = passed * CALLS_PER_SECOND * all.len() as u64 / 1_000_000;
            while calls < due {
                calls += 1;
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let result = if random % 100 < failing { Err("down") } else { Ok(()) };
                let _ = next.next().expect("there is one").call(async || result).await;
            }
        }
    });
}

fn show(rows: &[Measured], idle: f64) {
    title("What a fleet costs Redis");
    let mut table =
        Table::new(&["", "Redis", "commands/s each", "instances", "trip, all after: median", "p99", "wrong"]);
    let span = |span: Option<f64>| span.map_or("–".to_owned(), |span| format!("{span:.1} ms"));
    for row in rows {
        let Measured { instances, breakers, rule, failing_percent: failing, open, .. } = *row;
        let name = Row { instances, breakers, rule, failing, open, trips: 0 }.name();
        table.row(
            Style::new(),
            vec![
                name,
                format!("{:.1} %", row.redis_percent),
                format!("{:.1}", row.commands_per_second_and_instance),
                format!("{:.0} %", row.instances_percent),
                span(row.all_after_median_ms),
                span(row.all_after_p99_ms),
                row.opened_wrongly.to_string(),
            ],
        );
    }
    table.print();
    note(&format!("shares of one core, Redis' over an idle server's {idle:.2} %"));
}
