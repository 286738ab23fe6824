//! The number of instructions that a guard adds to a call, per path, counted by callgrind. Unlike a time, the
//! number does not depend on the machine's load. `scripts/count-instructions` checks it against
//! benches/instructions.json.
//!
//! Usage: `cb-instructions check` counts and compares; `cb-instructions record` counts and writes the file
//! anew. `cb-instructions run PATH CALLS` is what callgrind runs.

#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use cb_runtime::Registry;
use serde::{Deserialize, Serialize};
use support::guards::{Guard, Visit, call_often, prepare, visit_all};
use support::screen::{judge_lines, line};

/// The number of calls. It is large enough that work done ten times a second does not affect the result.
const CALLS: u64 = 10_000;
/// The factor by which a path's count may exceed the recorded one.
const GROWTH: f64 = 1.05;

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// Counts are comparable only under one compiler, for one kind of processor.
    compiler: String,
    architecture: String,
    /// By path.
    paths: BTreeMap<String, Recorded>,
}

/// A path's line in the file.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Recorded {
    /// The decided maximum for the path.
    target: u64,
    /// The maximum that the gate accepts: the target or, if that is missed, 5 % above the recorded count.
    limit: u64,
    instructions: f64,
}

impl Recorded {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    fn new(target: u64, instructions: f64) -> Self {
        let reached = (instructions * GROWTH).ceil() as u64;
        let limit = if instructions <= target as f64 { target } else { reached };
        Recorded { target, limit, instructions }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", path, calls] => run(path, calls.parse().expect("a number of calls")),
        ["check"] => check(&count_again_what_is_wrong(count_all(), &read()), &read()),
        ["record"] => record(&count_all(), &read()),
        _ => {
            eprintln!("usage: cb-instructions check|record");
            ExitCode::from(2)
        }
    }
}

/// Runs one path.
struct Run<'a> {
    path: &'a str,
    calls: u64,
    found: bool,
}

impl Visit for Run<'_> {
    fn visit(&mut self, guard: impl Guard) {
        self.run_bare(&guard);
        self.run(&guard);
    }
}

impl Run<'_> {
    fn run_bare<G: Guard>(&mut self, _: &G) {
        self.run(&G::Bare::default());
    }

    fn run<G: Guard>(&mut self, guard: &G) {
        if G::NAME != self.path || self.found {
            return;
        }
        self.found = true;
        prepare(guard);
        // The first calls include work that happens once: a thread's first rejection, a first cached result.
        drive(guard, 2_000);
        counted_by_callgrind(guard, self.calls);
        assert_eq!(guard.circuit(), G::MEASURED, "{}", G::NAME);
        guard.check();
    }
}

fn drive<G: Guard>(guard: &G, calls: u64) {
    let done = pin!(call_often(guard, calls)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(done.is_ready(), "{} does not wait", G::NAME);
}

/// Callgrind counts only while a thread is inside this function, so neither the preparations nor the
/// coordinator's thread are counted.
#[inline(never)]
fn counted_by_callgrind<G: Guard>(guard: &G, calls: u64) {
    drive(black_box(guard), calls);
}

fn run(path: &str, calls: u64) -> ExitCode {
    Registry::builder().install().expect("the first in this process");
    let mut run = Run { path, calls, found: false };
    visit_all(&mut run);
    if run.found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The names of this project's paths, and of their bare functions.
#[derive(Default)]
struct Names(Vec<(&'static str, &'static str)>);

impl Visit for Names {
    fn visit(&mut self, guard: impl Guard) {
        self.add(&guard);
    }
}

impl Names {
    fn add<G: Guard>(&mut self, _: &G) {
        if G::OURS {
            self.0.push((G::NAME, G::Bare::NAME));
        }
    }
}

/// Instructions per call, by path: in total, and those of the bare function.
type Counted = BTreeMap<&'static str, (f64, f64)>;

/// The instructions that a path adds to the bare function.
fn over((all, bare): (f64, f64)) -> f64 {
    ((all - bare) * 10.0).round() / 10.0
}

/// Other threads can only increase a count, so the lowest of three counts is used.
fn count_again_what_is_wrong(mut counted: Counted, record: &Record) -> Counted {
    for _ in 0..2 {
        for (path, (all, bare)) in &mut counted {
            if problem(over((*all, *bare)), record.paths.get(*path)).is_some() {
                *all = all.min(count(path));
            }
        }
    }
    counted
}

fn count_all() -> Counted {
    Registry::builder().install().expect("the first in this process");
    let mut names = Names::default();
    visit_all(&mut names);
    let programs: BTreeSet<&str> = names.0.iter().flat_map(|(path, bare)| [*path, *bare]).collect();
    let (left, counted) = (Mutex::new(programs), Mutex::new(BTreeMap::new()));
    let next = || left.lock().expect("nobody panics with it").pop_first();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(path) = next() {
                    let instructions = count(path);
                    counted.lock().expect("nobody panics with it").insert(path, instructions);
                }
            });
        }
    });
    let counted = counted.into_inner().expect("nobody has panicked");
    names.0.into_iter().map(|(path, bare)| (path, (counted[path], counted[bare]))).collect()
}

fn count(path: &str) -> f64 {
    static COUNTS: AtomicUsize = AtomicUsize::new(0);
    let this = std::env::current_exe().expect("this program has a path");
    let number = COUNTS.fetch_add(1, Ordering::Relaxed);
    let profile = std::env::temp_dir().join(format!("cb-instructions-{}-{number}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_by_callgrind*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(this)
        .args(["run", path, &CALLS.to_string()])
        .output()
        .expect("valgrind can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path}: {said}");
    let collected =
        said.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind says it").1;
    let collected: f64 = collected.trim().parse().expect("a number");
    assert!(collected > 0.0, "{path}: callgrind has not seen the function that it is to count");
    let text = std::fs::read_to_string(&profile).expect("callgrind has written its profile");
    std::fs::remove_file(&profile).expect("it can be removed");
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let calls = CALLS as f64;
    (collected - after_reports(&text)) / calls
}

/// The instructions of the first success of a breaker after each of its reports, in a profile. Reports come
/// once a second, so their number depends on the machine's speed.
fn after_reports(profile: &str) -> f64 {
    const FUNCTION: &str = "Core>::first_success";
    let (mut id, mut sum) = (None, 0.0);
    // A name stands beside its number once, in a `fn=(1) name` or `cfn=(1) name`.
    let named = |line: &str| {
        let (number, name) = line.split_once("fn=(")?.1.split_once(')')?;
        name.ends_with(FUNCTION).then(|| format!("cfn=({number})"))
    };
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        id = named(line).or(id);
        if id.as_deref().is_some_and(|id| line.starts_with(id)) {
            // calls=COUNT POSITION, and in the next line POSITION COST.
            let cost = lines.nth(1).and_then(|line| line.split_once(' '));
            sum += cost.and_then(|(_, cost)| cost.trim().parse::<f64>().ok()).expect("callgrind's format");
        }
    }
    sum
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

fn read() -> Record {
    let text = std::fs::read_to_string(file()).expect("benches/instructions.json can be read");
    serde_json::from_str(&text).expect("benches/instructions.json holds a target and a count by path")
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc can be run");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn record(counted: &Counted, before: &Record) -> ExitCode {
    let paths = counted.iter().map(|(path, counts)| {
        let instructions = over(*counts);
        // For a path without a target, the recorded count is the target.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousands")]
        let reached = (instructions * GROWTH).ceil() as u64;
        let target = before.paths.get(*path).map_or(reached, |before| before.target);
        ((*path).to_owned(), Recorded::new(target, instructions))
    });
    let architecture = std::env::consts::ARCH.to_owned();
    let record = Record { compiler: compiler(), architecture, paths: paths.collect() };
    let text = serde_json::to_string_pretty(&record).expect("it can be written") + "\n";
    std::fs::write(file(), text).expect("benches/instructions.json can be written");
    ExitCode::SUCCESS
}

/// The reason for which a path's count is rejected.
fn problem(counted: f64, recorded: Option<&Recorded>) -> Option<String> {
    let Some(Recorded { limit, instructions, .. }) = recorded else {
        return Some("not recorded yet".into());
    };
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    if counted > *limit as f64 {
        Some(format!("above its limit of {limit}"))
    } else if counted > instructions * GROWTH {
        Some(format!("grown by more than 5 % from {instructions}"))
    } else {
        None
    }
}

fn check(counted: &Counted, record: &Record) -> ExitCode {
    let judged = counted.iter().map(|(path, counts)| {
        let counted = over(*counts);
        let recorded = record.paths.get(*path);
        let limit = match recorded {
            Some(Recorded { target, limit, .. }) if target == limit => format!(" (limit {limit})"),
            Some(Recorded { target, limit, .. }) => {
                format!(" (limit {limit}; misses its target of {target})")
            }
            None => String::new(),
        };
        let text = format!("{path}: {counted} instructions{limit}");
        let problem = problem(counted, recorded);
        (problem.is_none(), problem.map_or(text.clone(), |problem| format!("{text}: {problem}")))
    });
    let gone = record.paths.keys().filter(|path| !counted.contains_key(path.as_str()));
    let gone = gone.map(|path| (false, format!("{path}: recorded, but no longer counted")));
    let code = judge_lines(judged.chain(gone));
    line("  Recorded in benches/instructions.json; scripts/count-instructions record writes it anew.");
    let here = (compiler(), std::env::consts::ARCH);
    if (record.compiler.as_str(), record.architecture.as_str()) == (here.0.as_str(), here.1) {
        return code;
    }
    line(&format!(
        "  Not judged: recorded under {} for {}, counted under {} for {}.",
        record.compiler, record.architecture, here.0, here.1
    ));
    ExitCode::SUCCESS
}
