//! Calls under contention: with more threads than cores, on one breaker or on one breaker per thread; and the
//! slowest of a thousand calls while their breaker trips, is reloaded, or is read.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cb_runtime::{Breaker, Registry, RegistryConfig, State, circuit_breaker};
use owo_colors::Style;
use serde::Serialize;
use support::guards::answers::{Answer, Returned};
use support::guards::{BROKEN, bare, runtime};
use support::screen::{Options, Progress, Table, median, note, quantile, title};

/// The duration of a measurement, for each number of threads and round.
const SPAN: Duration = Duration::from_millis(20);
const THREADS: [usize; 4] = [1, 2, 4, 8];
/// The number of calls that are timed one by one while another thread acts on their breaker.
const TIMED: usize = if cfg!(debug_assertions) { 1_000 } else { 500_000 };

#[circuit_breaker(name = "shared", failure_threshold = 5, reset_timeout = "1h")]
async fn shared(id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id)) }
}

#[circuit_breaker(name = "own-{thread}", failure_threshold = 5, reset_timeout = "1h")]
async fn own(thread: usize, id: u64) -> Answer {
    if id == BROKEN { Returned::bad() } else { Returned::good(black_box(id ^ thread as u64)) }
}

/// Polls a future that is ready at once.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("it does not wait"),
    }
}

/// A call on the thread with that number.
type Call = dyn Fn(usize) + Sync;

/// Calls on `threads` threads for a [`SPAN`]; nanoseconds of a core per call.
fn crowd(threads: usize, call: &Call) -> f64 {
    let barrier = Barrier::new(threads);
    let over = AtomicBool::new(false);
    let one = |thread| {
        call(thread);
        barrier.wait();
        let begin = Instant::now();
        let mut calls = 0u64;
        while !over.load(Ordering::Relaxed) {
            for _ in 0..1000 {
                call(thread);
            }
            calls += 1000;
            if begin.elapsed() >= SPAN {
                over.store(true, Ordering::Relaxed);
            }
        }
        (calls, begin.elapsed())
    };
    let counted: Vec<(u64, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let calls: u64 = counted.iter().map(|(calls, _)| calls).sum();
    let longest = counted.iter().map(|(_, took)| *took).max().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (used, calls) = (threads.min(cores) as f64, calls as f64);
    longest.as_secs_f64() * 1e9 * used / calls
}

#[derive(Serialize)]
struct Crowd {
    what: &'static str,
    /// By number of threads: 1, 2, 4, 8.
    ns_per_call: Vec<f64>,
}

fn crowds(rounds: usize, progress: &Progress) -> Vec<Crowd> {
    let kinds: [(&'static str, &Call); 3] = [
        ("the bare function", &|_| drop(black_box(ready(bare::<Answer>(black_box(7)))))),
        ("one breaker for all threads", &|_| drop(black_box(ready(shared(black_box(7)))))),
        ("a keyed breaker per thread", &|thread| drop(black_box(ready(own(thread, black_box(7)))))),
    ];
    let mut measured = vec![vec![Vec::new(); THREADS.len()]; kinds.len()];
    for round in 0..rounds {
        progress.say(&format!("crowds: round {} of {rounds}", round + 1));
        for (index, threads) in THREADS.into_iter().enumerate() {
            for (kind, (_, call)) in kinds.iter().enumerate() {
                measured[kind][index].push(crowd(threads, call));
            }
        }
    }
    let medians = measured.into_iter().map(|by_threads| by_threads.iter().map(|ns| median(ns)).collect());
    kinds.iter().zip(medians).map(|((what, _), ns_per_call)| Crowd { what, ns_per_call }).collect()
}

#[derive(Serialize)]
struct Disturbed {
    what: &'static str,
    /// How often the other thread acted while the calls were made.
    times: u64,
    median_ns: f64,
    p99_ns: f64,
    p99_9_ns: f64,
    max_ns: f64,
}

/// Times calls one by one while another thread repeats an action.
fn disturbed(what: &'static str, mut disturb: impl FnMut() + Send) -> Disturbed {
    let over = AtomicBool::new(false);
    let (count, mut timed) = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                disturb();
                count += 1;
            }
            count
        });
        let mut timed = Vec::with_capacity(TIMED);
        for _ in 0..TIMED {
            let begin = Instant::now();
            let _ = black_box(ready(shared(black_box(7))));
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a call")]
            timed.push(begin.elapsed().as_nanos() as f64);
        }
        over.store(true, Ordering::Relaxed);
        (other.join().expect("it does not panic"), timed)
    });
    timed.sort_unstable_by(f64::total_cmp);
    let [median_ns, p99_ns, p99_9_ns, max_ns] = [0.5, 0.99, 0.999, 1.0].map(|part| quantile(&timed, part));
    Disturbed { what, times: count, median_ns, p99_ns, p99_9_ns, max_ns }
}

/// The actions of another thread on the breaker while calls are made.
fn disturbances(breaker: &Breaker, progress: &Progress) -> Vec<Disturbed> {
    progress.say("calls while something happens to their breaker");
    let registry = Registry::global();
    let runtime = runtime();
    vec![
        disturbed("nothing", || std::thread::sleep(Duration::from_millis(1))),
        disturbed("another thread calls, too", || drop(black_box(ready(shared(black_box(7)))))),
        disturbed("it trips and is reset", || {
            for _ in 0..5 {
                let _ = ready(shared(BROKEN));
            }
            runtime.block_on(breaker.reset()).expect("the memory store takes it");
        }),
        disturbed("its settings are reloaded", || {
            registry.reload(RegistryConfig::default()).expect("it is valid");
        }),
        disturbed("snapshots are taken of it", || drop(black_box(breaker.snapshot()))),
    ]
}

fn main() -> ExitCode {
    let options = Options::from_args(if cfg!(debug_assertions) { 1 } else { 31 });
    let progress = Progress::new();
    Registry::builder().install().expect("the first in this process");
    let _ = ready(shared(7));
    let breaker = Registry::global().breaker("shared").expect("it has been called");
    let crowds = crowds(options.rounds, &progress);
    assert_eq!(breaker.state(), State::Closed);
    let disturbed = disturbances(&breaker, &progress);
    let outcomes = breaker.snapshot().outcomes;
    assert!(outcomes.failure > 0, "it has not tripped: {outcomes:?}");
    drop(progress);
    if options.json {
        let threads = THREADS;
        println!("{}", serde_json::json!({ "threads": threads, "crowds": crowds, "disturbed": disturbed }));
        return ExitCode::SUCCESS;
    }
    show(&crowds, &disturbed);
    ExitCode::SUCCESS
}

fn show(crowds: &[Crowd], disturbed: &[Disturbed]) {
    title("Nanoseconds of a core per call, by number of threads");
    let mut table = Table::new(&["", "1", "2", "4", "8"]);
    for crowd in crowds {
        let cells = crowd.ns_per_call.iter().map(|ns| format!("{ns:.1}"));
        table.row(Style::new(), [crowd.what.to_owned()].into_iter().chain(cells).collect());
    }
    table.print();
    title("Nanoseconds of a call, each timed by itself, while something happens to its breaker");
    let mut table = Table::new(&["", "times", "median", "p99", "p99.9", "max"]);
    for row in disturbed {
        let ns = [row.median_ns, row.p99_ns, row.p99_9_ns, row.max_ns].map(|ns| format!("{ns:.0}"));
        let cells = [row.what.to_owned(), row.times.to_string()].into_iter().chain(ns).collect();
        table.row(Style::new(), cells);
    }
    table.print();
    note(
        "Timing a call takes some 40 ns of each. Where the machine has fewer cores than busy threads, max is a time slice.",
    );
}
