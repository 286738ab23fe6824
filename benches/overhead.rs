//! The cost of a guard: nanoseconds over the bare async function, for this crate and for others, with one
//! thread and with two threads that share a breaker.
//!
//! Every round measures all guards in turn and compares each with the bare function of that round. The
//! results are medians, so other programs on the machine affect all guards alike, and rarely the median.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cb_runtime::Registry;
use owo_colors::Style;
use serde::{Deserialize, Serialize};
use support::guards::{Circuit, Guard, Visit, call_often, prepare, runtime, trip, visit_all};
use support::screen::{
    Limit, Options, Progress, Table, exit_code, judge, line, median, note, quantile, title,
};

/// The approximate duration of one measurement.
const SPAN: Duration = Duration::from_micros(250);
const THREADS: [usize; 2] = [1, 2];
/// Two threads ran at the same time if they did for this share of the longer one's duration.
const TOGETHER: f64 = 0.8;
/// With fewer such rounds, there is no result.
const ROUNDS_AT_LEAST: usize = if cfg!(debug_assertions) { 1 } else { 25 };

/// A guard, as a trait object.
trait Measured {
    fn name(&self) -> &'static str;
    fn how(&self) -> &'static str;
    fn is_ours(&self) -> bool;
    /// Nanoseconds per call, measured by the threads; `None` if they did not run at the same time.
    fn measure(&self, threads: usize, calls: u64) -> Option<f64>;
    /// Whether the circuit is in the state that is measured.
    fn assert_circuit(&self);
    /// Checks that it is a working guard: a closed one still opens.
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

    fn assert_circuit(&self) {
        assert_eq!(self.circuit(), G::MEASURED, "{}", G::NAME);
        self.check();
    }

    fn assert_guarding(&self) {
        if G::MEASURED == Circuit::Closed {
            trip(self);
        }
    }
}

/// When a thread began and ended.
type Span = (Instant, Instant);

/// Concurrent calls of N threads.
fn run_together<G: Guard>(guard: &G, threads: usize, calls: u64) -> Vec<Span> {
    let ready = AtomicUsize::new(0);
    let one = || {
        let runtime = runtime();
        runtime.block_on(call_often(guard, 100));
        ready.fetch_add(1, Ordering::AcqRel);
        // Not a barrier: a thread that sleeps at a barrier starts later than the other, by a wake-up.
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

/// The share of the longest duration in which all threads were running. On a busy machine, they may run one
/// after the other instead.
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
    /// The name of its bare function.
    bare: &'static str,
    /// By number of threads: the number of calls that take about a [`SPAN`], and the nanoseconds by round.
    calls: [u64; 2],
    ns: [Vec<f64>; 2],
    /// The nanoseconds over the bare function's, by round.
    over: [Vec<f64>; 2],
}

impl Candidate {
    fn new<G: Guard + 'static>(guard: G) -> Self {
        let calls = THREADS.map(|threads| {
            let measured = (0..5).filter_map(|_| guard.measure(threads, 1000));
            let per_call = measured.min_by(f64::total_cmp).unwrap_or(1000.0).max(0.5);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "millions")]
            let calls = (SPAN.as_secs_f64() * 1e9 / per_call) as u64;
            calls.max(100)
        });
        Candidate {
            guard: Box::new(guard),
            bare: G::Bare::NAME,
            calls,
            ns: Default::default(),
            over: Default::default(),
        }
    }
}

/// The bare functions, by name, and the guards that are compared with them.
#[derive(Default)]
struct Candidates {
    bare: BTreeMap<&'static str, Candidate>,
    guarded: Vec<Candidate>,
}

impl Visit for Candidates {
    fn visit(&mut self, guard: impl Guard + 'static) {
        prepare(&guard);
        self.add_bare(&guard);
        self.guarded.push(Candidate::new(guard));
    }
}

impl Candidates {
    fn add_bare<G: Guard>(&mut self, _: &G) {
        self.bare.entry(G::Bare::NAME).or_insert_with(|| Candidate::new(G::Bare::default()));
    }

    /// Measures everything once, with one number of threads.
    fn round(&mut self, index: usize) {
        let threads = THREADS[index];
        let mut before = BTreeMap::new();
        for (name, bare) in &mut self.bare {
            if let Some(ns) = bare.guard.measure(threads, bare.calls[index]) {
                before.insert(*name, ns);
                bare.ns[index].push(ns);
            }
        }
        // The order rotates each round, because a candidate may profit from its predecessor.
        self.guarded.rotate_left(1);
        for candidate in &mut self.guarded {
            let Some(before) = before.get(candidate.bare) else { continue };
            let ns = candidate.guard.measure(threads, candidate.calls[index]);
            candidate.ns[index].extend(ns);
            candidate.over[index].extend(ns.map(|ns| ns - before));
        }
    }
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    how: &'static str,
    ours: bool,
    over_bare_ns_one_thread: f64,
    /// `None`: there were too few rounds in which two threads ran at the same time. A crate whose calls wait
    /// for each other may have none.
    over_bare_ns_two_threads: Option<f64>,
    two_to_one: Option<f64>,
    #[serde(flatten)]
    memory: Memory,
}

/// The output of `cb-memory`.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Memory {
    allocations_per_call: f64,
    future_bytes: usize,
    over_bare_bytes: usize,
}

fn main() -> ExitCode {
    let options = Options::from_args(if cfg!(debug_assertions) { 3 } else { 601 });
    let progress = Progress::new();
    Registry::builder().install().expect("the first in this process");
    progress.say("counting allocations");
    let memory = memory();
    progress.say("building the breakers");
    let mut candidates = Candidates::default();
    visit_all(&mut candidates);
    for candidate in &candidates.guarded {
        candidate.guard.assert_circuit();
    }
    for round in 0..options.rounds {
        progress.say(&format!("round {} of {}", round + 1, options.rounds));
        for index in 0..THREADS.len() {
            candidates.round(index);
        }
    }
    let Candidates { bare, guarded: mut candidates } = candidates;
    for candidate in &candidates {
        candidate.guard.assert_circuit();
        candidate.guard.assert_guarding();
    }
    drop(progress);
    for candidate in &candidates {
        let [one, two] = [candidate.over[0].len(), candidate.over[1].len()];
        let fewest = if candidate.guard.is_ours() { one.min(two) } else { one };
        if fewest < ROUNDS_AT_LEAST {
            let name = candidate.guard.name();
            eprintln!(
                "this machine is too busy: {name} was measured in {one} and, by two threads, {two} rounds"
            );
            return ExitCode::FAILURE;
        }
    }

    candidates.sort_by(|a, b| {
        (b.guard.is_ours()).cmp(&a.guard.is_ours()).then(median(&a.over[0]).total_cmp(&median(&b.over[0])))
    });
    let rows: Vec<Row> = candidates.iter().map(|candidate| row(candidate, &memory)).collect();
    let limits = limits(&rows);
    if options.json {
        let bare: BTreeMap<_, _> =
            bare.iter().map(|(name, bare)| (name, [median(&bare.ns[0]), median(&bare.ns[1])])).collect();
        println!(
            "{}",
            serde_json::json!({ "rounds": options.rounds, "bare_ns": bare, "rows": rows, "limits": limits })
        );
        return exit_code(&limits);
    }
    show(&candidates, &rows, &bare, options.rounds);
    if cfg!(debug_assertions) {
        note("not optimized: no judgement");
        return ExitCode::SUCCESS;
    }
    judge(&limits)
}

/// Counts allocations in a separate program, `cb-memory`.
fn memory() -> BTreeMap<String, Memory> {
    let output = Command::new(env!("CARGO_BIN_EXE_cb-memory")).output().expect("cargo has built it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints an object")
}

fn row(candidate: &Candidate, memory: &BTreeMap<String, Memory>) -> Row {
    let one = median(&candidate.over[0]);
    let two = (candidate.over[1].len() >= ROUNDS_AT_LEAST).then(|| median(&candidate.over[1]));
    Row {
        name: candidate.guard.name(),
        how: candidate.guard.how(),
        ours: candidate.guard.is_ours(),
        over_bare_ns_one_thread: one,
        over_bare_ns_two_threads: two,
        two_to_one: two.map(|two| two / one),
        memory: memory[candidate.guard.name()],
    }
}

fn show(candidates: &[Candidate], rows: &[Row], bare: &BTreeMap<&str, Candidate>, rounds: usize) {
    title("Nanoseconds per call over the bare async function");
    let mut table = Table::new(&[
        "",
        "1 thread",
        "middle half",
        "2 threads",
        "middle half",
        "2 : 1",
        "allocations",
        "future's bytes",
    ]);
    for (candidate, row) in candidates.iter().zip(rows) {
        let half = |over: &[f64]| match over {
            [] => "–".to_owned(),
            over => format!("{:+.1} … {:+.1}", quantile(over, 0.25), quantile(over, 0.75)),
        };
        let style = if row.ours { Style::new().bold() } else { Style::new() };
        table.row(
            style,
            vec![
                row.name.to_owned(),
                format!("{:+.1}", row.over_bare_ns_one_thread),
                half(&candidate.over[0]),
                row.over_bare_ns_two_threads.map_or("–".to_owned(), |ns| format!("{ns:+.1}")),
                half(&candidate.over[1]),
                row.two_to_one.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
                format!("{:.0}", row.memory.allocations_per_call),
                format!("+{}", row.memory.over_bare_bytes),
            ],
        );
    }
    table.print();
    line("");
    for row in rows {
        note(&format!("{}: {}", row.name, row.how));
    }
    for (name, bare) in bare {
        let [one, two] = [median(&bare.ns[0]), median(&bare.ns[1])];
        note(&format!("{name} takes {one:.1} ns with one thread, {two:.1} ns with two."));
    }
    note(&format!(
        "Medians of {rounds} rounds; threads share one breaker, built before; its state was asserted before and \
         after. Of two threads only the rounds count in which they ran at one time: {} and more of this \
         crate's.",
        candidates.iter().filter(|one| one.guard.is_ours()).map(|one| one.over[1].len()).min().unwrap_or(0)
    ));
}

/// The budget of a path: nanoseconds over the bare function at one thread, the ratio of two threads to one,
/// and the future's bytes over the bare one's.
struct Budget {
    path: &'static str,
    ns: f64,
    two_to_one: f64,
    bytes: usize,
}

const fn budget(path: &'static str, ns: f64, two_to_one: f64, bytes: usize) -> Budget {
    Budget { path, ns, two_to_one, bytes }
}

/// The budget of a future's bytes over the bare one: plain; and with a fallback or a cache, which hold a
/// copy of the arguments.
const PLAIN: usize = 80;
const WITH_ARGUMENTS: usize = 120 + size_of::<u64>();

const BUDGETS: [Budget; 20] = [
    budget("closed", 8.0, 1.15, PLAIN),
    budget("closed, u8 error", 12.0, 1.15, PLAIN),
    budget("closed, Box<dyn Error>", 12.0, 1.15, PLAIN),
    budget("closed, String", 12.0, 1.15, PLAIN),
    budget("closed, 48-byte error", 12.0, 1.15, PLAIN),
    budget("closed, 96-byte value", 12.0, 1.15, PLAIN),
    budget("last 100 calls", 8.0, 1.15, PLAIN),
    budget("slow calls", 20.0, 1.15, PLAIN),
    budget("closed, with a fallback", 12.0, 1.15, WITH_ARGUMENTS),
    budget("open, fallback", 20.0, 1.2, WITH_ARGUMENTS),
    budget("open, error", 30.0, 1.2, PLAIN),
    budget("half-open, fallback", 30.0, 1.2, WITH_ARGUMENTS),
    budget("half-open, error", 30.0, 1.2, PLAIN),
    budget("ramping up, fallback", 20.0, 1.2, WITH_ARGUMENTS),
    budget("ramping up, error", 30.0, 1.2, PLAIN),
    // Three of ten calls fail, so 30 ns a call are 100 ns a failure.
    budget("30 % failures", 30.0, 2.0, PLAIN),
    budget("cache_ttl, fresh", 60.0, 1.1, WITH_ARGUMENTS),
    budget("cache_ttl, new key", 450.0, 1.5, WITH_ARGUMENTS),
    budget("keyed, one key", 50.0, 1.2, WITH_ARGUMENTS),
    budget("keyed, 1,000 keys", 80.0, 1.2, WITH_ARGUMENTS),
];

/// The only path that may allocate: it caches a new result.
const ALLOCATES: &str = "cache_ttl, new key";

fn limits(rows: &[Row]) -> Vec<Limit> {
    let at_most =
        |what: String, value, measured, unit| Limit { what, value, measured, unit, at_least: false };
    let mut limits = Vec::new();
    for Budget { path, ns, two_to_one, bytes } in BUDGETS {
        let name = format!("circuit_breaker, {path}");
        let row = rows.iter().find(|row| row.name == name).expect("it has been measured");
        limits.push(at_most(format!("{path}, one thread"), ns, row.over_bare_ns_one_thread, " ns"));
        let measured = row.two_to_one.expect("a row of this crate has its rounds");
        limits.push(at_most(format!("{path}, two threads to one"), two_to_one, measured, "×"));
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        limits.push(at_most(
            format!("{path}, future's bytes over the bare one's"),
            bytes as f64,
            row.memory.over_bare_bytes as f64,
            "",
        ));
        if path != ALLOCATES {
            limits.push(at_most(
                format!("{path}, allocations per call"),
                0.0,
                row.memory.allocations_per_call,
                "",
            ));
        }
    }
    limits
}
