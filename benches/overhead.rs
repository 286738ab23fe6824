//! What a guard adds to a call: nanoseconds over the bare async function, ours beside the peers', at one
//! thread and at two that share a breaker.
//!
//! All are measured in turn, round after round, and each is compared with the bare function of its own
//! round; the medians stand. So a noisy neighbour hits all alike, and mostly none that counts.

#[path = "support/mod.rs"]
mod support;

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cb_runtime::Registry;
use owo_colors::Style;
use serde::Serialize;
use support::guards::{Bare, Guard, Visit, call_often, runtime, trip, visit_all};
use support::screen::{
    Limit, Options, Progress, Table, exit_code, judge, line, median, note, quantile, title,
};

/// How long one measurement takes, more or less.
const SPAN: Duration = Duration::from_micros(250);
const THREADS: [usize; 2] = [1, 2];
/// Two threads count as having run at one time if that is true of so much of the longer one's time.
const TOGETHER: f64 = 0.8;
/// Fewer rounds than that in which they did are no measurement.
const ROUNDS_AT_LEAST: usize = if cfg!(debug_assertions) { 1 } else { 25 };

/// A guard whose type does not matter any more.
trait Measured {
    fn name(&self) -> &'static str;
    fn how(&self) -> &'static str;
    fn is_ours(&self) -> bool;
    /// Nanoseconds per call, as the threads saw them; `None` if they did not run at one time.
    fn measure(&self, threads: usize, calls: u64) -> Option<f64>;
    /// In the state it is to be measured in.
    fn assert_state(&self);
    /// It has been a guard all the while.
    fn assert_guarding(&self);
}

impl<G: Guard> Measured for G {
    fn name(&self) -> &'static str {
        G::NAME
    }

    fn how(&self) -> &'static str {
        G::HOW
    }

    fn is_ours(&self) -> bool {
        G::OURS
    }

    #[inline(never)]
    fn measure(&self, threads: usize, calls: u64) -> Option<f64> {
        let spans = run_together(self, threads, calls);
        if overlap(&spans) < TOGETHER {
            return None;
        }
        let spent: Duration = spans.iter().map(|(begin, end)| *end - *begin).sum();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let calls = (calls * threads as u64) as f64;
        Some(spent.as_secs_f64() * 1e9 / calls)
    }

    fn assert_state(&self) {
        assert_eq!(self.admits(), Some(!G::OPEN), "{}", G::NAME);
    }

    fn assert_guarding(&self) {
        if !G::OPEN {
            trip(self);
        }
        assert_eq!(self.admits(), Some(false), "{}", G::NAME);
    }
}

/// When a thread began and ended.
type Span = (Instant, Instant);

/// Calls concurrently on `threads` threads.
fn run_together<G: Guard>(guard: &G, threads: usize, calls: u64) -> Vec<Span> {
    let ready = AtomicUsize::new(0);
    let one = || {
        let runtime = runtime();
        runtime.block_on(call_often(guard, 100));
        ready.fetch_add(1, Ordering::AcqRel);
        // Not a barrier: who sleeps at one begins a wake-up later than the other.
        while ready.load(Ordering::Acquire) < threads {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        runtime.block_on(call_often(guard, calls));
        (begin, Instant::now())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let mut spans = vec![one()];
        spans.extend(others.into_iter().map(|other| other.join().expect("it does not panic")));
        spans
    })
}

/// The part of the longest span in which all were running. On a busy machine threads come after each
/// other instead, and never meet.
fn overlap(spans: &[Span]) -> f64 {
    let (Some(begin), Some(end)) =
        (spans.iter().map(|(begin, _)| *begin).max(), spans.iter().map(|(_, end)| *end).min())
    else {
        return 0.0;
    };
    let longest = spans.iter().map(|(begin, end)| *end - *begin).max().unwrap_or_default();
    end.saturating_duration_since(begin).as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// One guard's measurements.
struct Candidate {
    guard: Box<dyn Measured>,
    /// By number of threads: how many calls take about the [`SPAN`], and the nanoseconds over bare by round.
    calls: [u64; 2],
    over: [Vec<f64>; 2],
}

impl Candidate {
    fn new(guard: impl Guard + 'static) -> Self {
        let calls = THREADS.map(|threads| {
            let measured = (0..5).filter_map(|_| guard.measure(threads, 1000));
            let per_call = measured.min_by(f64::total_cmp).unwrap_or(1000.0).max(0.5);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "millions")]
            let calls = (SPAN.as_secs_f64() * 1e9 / per_call) as u64;
            calls.max(100)
        });
        Candidate { guard: Box::new(guard), calls, over: [Vec::new(), Vec::new()] }
    }
}

impl Visit for Vec<Candidate> {
    fn visit(&mut self, guard: impl Guard + 'static) {
        let warm = || runtime().block_on(call_often(&guard, 10));
        warm();
        if is_open(&guard) {
            trip(&guard);
        }
        self.push(Candidate::new(guard));
    }
}

fn is_open<G: Guard>(_: &G) -> bool {
    G::OPEN
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    how: &'static str,
    ours: bool,
    over_bare_ns_one_thread: f64,
    over_bare_ns_two_threads: f64,
    two_to_one: f64,
    allocations_per_call: f64,
}

fn main() -> ExitCode {
    let options = Options::from_args(if cfg!(debug_assertions) { 3 } else { 601 });
    let progress = Progress::new();
    Registry::builder().install().expect("the first in this process");
    progress.say("counting allocations");
    let allocations = allocations();
    progress.say("building the breakers");
    let mut candidates = Vec::new();
    visit_all(&mut candidates);
    let bare = Candidate::new(Bare);
    let mut bare_ns = [Vec::new(), Vec::new()];
    for candidate in &candidates {
        candidate.guard.assert_state();
    }
    for round in 0..options.rounds {
        progress.say(&format!("round {} of {}", round + 1, options.rounds));
        for (index, threads) in THREADS.into_iter().enumerate() {
            let Some(before) = bare.guard.measure(threads, bare.calls[index]) else { continue };
            // Never in the same order twice, so that none always comes after the same one.
            candidates.rotate_left(1);
            for candidate in &mut candidates {
                let ns = candidate.guard.measure(threads, candidate.calls[index]);
                candidate.over[index].extend(ns.map(|ns| ns - before));
            }
            bare_ns[index].push(before);
        }
    }
    for candidate in &candidates {
        candidate.guard.assert_state();
        candidate.guard.assert_guarding();
    }
    drop(progress);
    for candidate in &candidates {
        let fewest = candidate.over[0].len().min(candidate.over[1].len());
        if fewest < ROUNDS_AT_LEAST {
            eprintln!("this machine is too busy: two threads hardly ever ran at one time ({fewest} rounds)");
            return ExitCode::FAILURE;
        }
    }

    candidates.sort_by(|a, b| {
        (b.guard.is_ours()).cmp(&a.guard.is_ours()).then(median(&a.over[0]).total_cmp(&median(&b.over[0])))
    });
    let rows: Vec<Row> = candidates.iter().map(|candidate| row(candidate, &allocations)).collect();
    let limits = limits(&rows);
    if options.json {
        let bare =
            serde_json::json!({ "one_thread": median(&bare_ns[0]), "two_threads": median(&bare_ns[1]) });
        println!(
            "{}",
            serde_json::json!({ "rounds": options.rounds, "bare_ns": bare, "rows": rows, "limits": limits })
        );
        return exit_code(&limits);
    }
    show(&candidates, &rows, &bare_ns, options.rounds);
    if cfg!(debug_assertions) {
        note("not optimized: no judgement");
        return ExitCode::SUCCESS;
    }
    judge(&limits)
}

/// Counted by a program of its own; see there.
fn allocations() -> serde_json::Map<String, serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_cb-allocations")).output().expect("cargo has built it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints an object")
}

fn row(candidate: &Candidate, allocations: &serde_json::Map<String, serde_json::Value>) -> Row {
    let [one, two] = [median(&candidate.over[0]), median(&candidate.over[1])];
    Row {
        name: candidate.guard.name(),
        how: candidate.guard.how(),
        ours: candidate.guard.is_ours(),
        over_bare_ns_one_thread: one,
        over_bare_ns_two_threads: two,
        two_to_one: two / one,
        allocations_per_call: allocations[candidate.guard.name()].as_f64().expect("a number"),
    }
}

fn show(candidates: &[Candidate], rows: &[Row], bare_ns: &[Vec<f64>; 2], rounds: usize) {
    title("Nanoseconds per call over the bare async function");
    let mut table =
        Table::new(&["", "1 thread", "middle half", "2 threads", "middle half", "2 : 1", "allocations"]);
    for (candidate, row) in candidates.iter().zip(rows) {
        let half = |over: &[f64]| format!("{:+.1} … {:+.1}", quantile(over, 0.25), quantile(over, 0.75));
        let style = if row.ours { Style::new().bold() } else { Style::new() };
        table.row(
            style,
            vec![
                row.name.to_owned(),
                format!("{:+.1}", row.over_bare_ns_one_thread),
                half(&candidate.over[0]),
                format!("{:+.1}", row.over_bare_ns_two_threads),
                half(&candidate.over[1]),
                format!("{:.2}", row.two_to_one),
                format!("{:.0}", row.allocations_per_call),
            ],
        );
    }
    table.print();
    line("");
    for row in rows {
        note(&format!("{}: {}", row.name, row.how));
    }
    let [one, two] = [median(&bare_ns[0]), median(&bare_ns[1])];
    note(&format!(
        "The bare function takes {one:.1} ns at one thread, {two:.1} at two. Medians of {rounds} rounds; \
         threads share one breaker, built before; its state was asserted before and after. Of two threads \
         only the rounds count in which they ran at one time: {} and more.",
        candidates.iter().map(|candidate| candidate.over[1].len()).min().unwrap_or(0)
    ));
}

fn limits(rows: &[Row]) -> Vec<Limit> {
    let named = |name| rows.iter().find(|row| row.name == name).expect("it has been measured");
    let closed = named(support::guards::Closed::NAME);
    let one = closed.over_bare_ns_one_thread;
    let mut limits = vec![
        Limit { what: "closed, one thread".into(), value: 10.0, measured: one, unit: " ns", at_least: false },
        Limit {
            what: "closed, two threads to one".into(),
            value: 1.3,
            measured: closed.two_to_one,
            unit: "×",
            at_least: false,
        },
    ];
    let (slow, last) = (named(support::guards::Slow::NAME), named(support::guards::LastCalls::NAME));
    limits.extend([(slow, 25.0), (last, 30.0)].map(|(row, value)| Limit {
        what: format!("{}, one thread", row.name.trim_start_matches("circuit_breaker, ")),
        value,
        measured: row.over_bare_ns_one_thread,
        unit: " ns",
        at_least: false,
    }));
    let admitting = [closed, named(support::guards::Cached::NAME), slow, last];
    limits.extend(admitting.into_iter().map(|row| Limit {
        what: format!("allocations per call, {}", row.name.trim_start_matches("circuit_breaker, ")),
        value: 0.0,
        measured: row.allocations_per_call,
        unit: "",
        at_least: false,
    }));
    limits
}
