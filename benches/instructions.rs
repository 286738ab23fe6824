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
use std::task::{Context, Waker};

use cb_runtime::Registry;
use serde::{Deserialize, Serialize};
use support::guards::{Guard, Visit, call_often, prepare, visit_all};
use support::screen::{judge_lines, line};

/// Enough that what happens ten times a second does not show.
const CALLS: u64 = 10_000;
/// A path may take as much more than what is recorded before it has grown: compilers differ a little.
const GROWTH: f64 = 1.05;

/// A path's line in the file.
#[derive(Clone, Serialize, Deserialize)]
struct Recorded {
    /// The most that it may take; none for what is only there to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    instructions: f64,
}

type ByPath = BTreeMap<String, Recorded>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", path, calls] => run(path, calls.parse().expect("a number of calls")),
        ["check"] => check(&count_all(), &read()),
        ["record"] => record(count_all(), &read()),
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
        // What happens once on a path (a thread's first rejection, a result that is kept) has happened then.
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

/// Callgrind counts only while a thread is inside this function. The preparations and the coordinator's
/// thread are not counted.
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

/// The names of all paths, and of the bare functions that they are compared with.
#[derive(Default)]
struct Names(Vec<(&'static str, &'static str)>);

impl Visit for Names {
    fn visit(&mut self, guard: impl Guard) {
        self.add(&guard);
    }
}

impl Names {
    fn add<G: Guard>(&mut self, _: &G) {
        self.0.push((G::NAME, G::Bare::NAME));
    }
}

/// Instructions per call over the bare function's, by path.
fn count_all() -> BTreeMap<&'static str, f64> {
    Registry::builder().install().expect("the first in this process");
    let mut names = Names::default();
    visit_all(&mut names);
    let bare: BTreeSet<&str> = names.0.iter().map(|(_, bare)| *bare).collect();
    let bare: BTreeMap<&str, f64> = bare.into_iter().map(|name| (name, count(name))).collect();
    let over = |name, on: &str| ((count(name) - bare[on]) * 10.0).round() / 10.0;
    names.0.into_iter().map(|(name, bare)| (name, over(name, bare))).collect()
}

fn count(path: &str) -> f64 {
    let this = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*counted_by_callgrind*",
        ])
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
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let calls = CALLS as f64;
    collected / calls
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

fn read() -> ByPath {
    let text = std::fs::read_to_string(file()).unwrap_or_else(|_| "{}".into());
    serde_json::from_str(&text).expect("benches/instructions.json holds a limit and a count by path")
}

fn record(counted: BTreeMap<&'static str, f64>, before: &ByPath) -> ExitCode {
    let recorded: ByPath = counted
        .into_iter()
        .map(|(path, instructions)| {
            let limit = before.get(path).and_then(|recorded| recorded.limit);
            (path.to_owned(), Recorded { limit, instructions })
        })
        .collect();
    let text = serde_json::to_string_pretty(&recorded).expect("it can be written") + "\n";
    std::fs::write(file(), text).expect("benches/instructions.json can be written");
    ExitCode::SUCCESS
}

/// What is wrong with a path's count, if something is.
fn problem(counted: f64, recorded: Option<&Recorded>) -> Option<String> {
    let Some(Recorded { limit, instructions }) = recorded else {
        return Some("not recorded yet".into());
    };
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let over = limit.filter(|limit| counted > *limit as f64);
    if let Some(limit) = over {
        Some(format!("above its limit of {limit}"))
    } else if counted > instructions * GROWTH {
        Some(format!("grown by more than 5 % from {instructions}"))
    } else {
        None
    }
}

fn check(counted: &BTreeMap<&'static str, f64>, recorded: &ByPath) -> ExitCode {
    let judged = counted.iter().map(|(path, counted)| {
        let recorded = recorded.get(*path);
        let limit = recorded.and_then(|recorded| recorded.limit);
        // What is not ours has no limit, and may change with its crate's next release.
        let problem = problem(*counted, recorded).filter(|_| limit.is_some() || recorded.is_none());
        let limit = limit.map(|limit| format!(" (limit {limit})")).unwrap_or_default();
        let text = format!("{path}: {counted} instructions{limit}");
        (problem.is_none(), problem.map_or(text.clone(), |problem| format!("{text}: {problem}")))
    });
    let code = judge_lines(judged);
    line("  Recorded in benches/instructions.json; scripts/count-instructions record writes it anew.");
    code
}
