//! The cost of a guard: nanoseconds over the bare async function, for this crate and for others, with one
//! thread and with two threads that share a breaker.
//!
//! Every round measures all guards in turn and compares each with the bare function of that round. The
//! results are medians, so other programs on the machine affect all guards alike, and rarely the median.
//!
//! A path that uses much memory takes longer if other programs use the processor's caches. It is measured
//! both among the other guards, which displace what it uses, and in a loop of its own.

mod candidate;
mod limits;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod threads;

use std::collections::BTreeMap;
use std::process::ExitCode;

use candidate::{Candidate, Candidates, THREADS};
use cb_runtime::Registry;
use limits::limits;
use rows::{ROUNDS_AT_LEAST, Row, memory, row, show};
use support::guards::visit_all;
use support::screen::{Options, Progress, exit_code, judge, median, note};

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
    // Their warm-up takes most of the time.
    for round in 0..options.rounds.div_ceil(6) {
        progress.say(&format!("loops of their own: round {}", round + 1));
        for index in 0..THREADS.len() {
            candidates.round_alone(index);
        }
    }
    let Candidates { bare, guarded: mut candidates } = candidates;
    for candidate in &candidates {
        candidate.guard.assert_circuit();
        candidate.guard.assert_guarding();
    }
    drop(progress);
    for candidate in &candidates {
        let Candidate { over, alone, guard, .. } = candidate;
        // What depends on the caches is judged by its own loop. Among the other rows, a new thread calls each
        // breaker for the first time, and is slower than the one that has called them before.
        let counted = if guard.depends_on_caches() { alone } else { over };
        let rounds = |of_threads: usize| counted[of_threads].len();
        let [one, two] = [rounds(0), rounds(1)];
        let fewest = if guard.is_ours() { one.min(two) } else { one };
        if fewest < ROUNDS_AT_LEAST {
            let name = guard.name();
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
