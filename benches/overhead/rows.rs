//! The results: a row per guard, as JSON and as a table.

use std::collections::BTreeMap;
use std::process::Command;

use owo_colors::Style;
use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;
use crate::support::screen::{Table, line, median, note, quantile, title};

/// With fewer rounds, there is no result.
pub(crate) const ROUNDS_AT_LEAST: usize = if cfg!(debug_assertions) { 1 } else { 25 };

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    how: &'static str,
    ours: bool,
    pub(crate) over_bare_ns_one_thread: f64,
    /// `None`: there were too few rounds in which two threads ran at the same time. A crate whose calls wait
    /// for each other may have none.
    over_bare_ns_two_threads: Option<f64>,
    pub(crate) two_to_one: Option<f64>,
    /// The times of a row that depends on the processor's caches, in a loop of its own. The times above are
    /// those of a loop in which all rows take turns and displace from the caches what the others use.
    pub(crate) alone: Option<Alone>,
    #[serde(flatten)]
    pub(crate) memory: Memory,
}

#[derive(Clone, Copy, Serialize)]
pub(crate) struct Alone {
    pub(crate) over_bare_ns_one_thread: f64,
    pub(crate) over_bare_ns_two_threads: Option<f64>,
    pub(crate) two_to_one: Option<f64>,
}

/// The output of `cb-memory`.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) allocations_per_call: f64,
    future_bytes: usize,
    pub(crate) over_bare_bytes: usize,
}

/// Counts allocations in a separate program, `cb-memory`.
pub(crate) fn memory() -> BTreeMap<String, Memory> {
    let output = Command::new(env!("CARGO_BIN_EXE_cb-memory")).output().expect("cargo has built it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints an object")
}

/// The median with one thread and with two, and their ratio. `None` for two threads: see [`Row`].
fn medians(over: &[Vec<f64>; 2]) -> (f64, Option<f64>, Option<f64>) {
    let one = median(&over[0]);
    let two = (over[1].len() >= ROUNDS_AT_LEAST).then(|| median(&over[1]));
    (one, two, two.map(|two| two / one))
}

pub(crate) fn row(candidate: &Candidate, memory: &BTreeMap<String, Memory>) -> Row {
    let (one, two, two_to_one) = medians(&candidate.over);
    let alone = (!candidate.alone[0].is_empty()).then(|| {
        let (one, two, two_to_one) = medians(&candidate.alone);
        Alone { over_bare_ns_one_thread: one, over_bare_ns_two_threads: two, two_to_one }
    });
    Row {
        name: candidate.guard.name(),
        how: candidate.guard.how(),
        ours: candidate.guard.is_ours(),
        over_bare_ns_one_thread: one,
        over_bare_ns_two_threads: two,
        two_to_one,
        alone,
        memory: memory[candidate.guard.name()],
    }
}

pub(crate) fn show(candidates: &[Candidate], rows: &[Row], bare: &BTreeMap<&str, Candidate>, rounds: usize) {
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
        let style = if row.ours { Style::new().bold() } else { Style::new() };
        let [one, two] = [Some(row.over_bare_ns_one_thread), row.over_bare_ns_two_threads];
        table.row(style, cells(row.name.to_owned(), &candidate.over, [one, two, row.two_to_one], row));
        if let Some(alone) = row.alone {
            let Alone { over_bare_ns_one_thread: one, over_bare_ns_two_threads: two, two_to_one } = alone;
            let name = format!("{}, in a loop of its own", row.name);
            table.row(style, cells(name, &candidate.alone, [Some(one), two, two_to_one], row));
        }
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

fn cells(
    name: String,
    over: &[Vec<f64>; 2],
    [one, two, two_to_one]: [Option<f64>; 3],
    row: &Row,
) -> Vec<String> {
    let half = |over: &[f64]| match over {
        [] => "–".to_owned(),
        over => format!("{:+.1} … {:+.1}", quantile(over, 0.25), quantile(over, 0.75)),
    };
    let ns = |ns: Option<f64>| ns.map_or("–".to_owned(), |ns| format!("{ns:+.1}"));
    vec![
        name,
        ns(one),
        half(&over[0]),
        ns(two),
        half(&over[1]),
        two_to_one.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
        format!("{:.0}", row.memory.allocations_per_call),
        format!("+{}", row.memory.over_bare_bytes),
    ]
}
