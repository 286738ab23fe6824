//! Tables for people, JSON for machines, progress on stderr.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr};

use owo_colors::{OwoColorize, Style};

/// The command line's options.
pub struct Options {
    pub json: bool,
    /// The number of rounds.
    pub rounds: usize,
}

impl Options {
    /// Reads `--json` and `--rounds N`. Cargo itself adds `--bench`.
    pub fn from_args(rounds: usize) -> Self {
        let mut options = Options { json: false, rounds };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {}
                "--json" => options.json = true,
                "--rounds" => match args.next().and_then(|rounds| rounds.parse().ok()) {
                    Some(rounds) if rounds > 0 => options.rounds = rounds,
                    _ => usage("--rounds wants a number"),
                },
                "--help" | "-h" => usage(""),
                other => usage(&format!("unknown argument {other}")),
            }
        }
        options
    }
}

fn usage(problem: &str) -> ! {
    if !problem.is_empty() {
        eprintln!("{problem}");
    }
    eprintln!("usage: cargo bench -p cb-benches --bench overhead|exchange -- [--rounds N] [--json]");
    std::process::exit(if problem.is_empty() { 0 } else { 2 });
}

/// A line of progress on stderr that is overwritten. Nothing if stderr is not a terminal.
pub struct Progress {
    shown: bool,
}

impl Progress {
    pub fn new() -> Self {
        Progress { shown: stderr().is_terminal() }
    }

    pub fn say(&self, what: &str) {
        if self.shown {
            eprint!("\r\x1b[2K{}", what.dimmed());
            let _ = stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[2K");
        }
    }
}

/// Columns of text: the first is aligned left, all others right.
pub struct Table {
    head: Vec<String>,
    rows: Vec<(Style, Vec<String>)>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Table { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, style: Style, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len());
        self.rows.push((style, cells));
    }

    /// To stdout; `anstream` keeps colour to terminals.
    pub fn print(&self) {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|(_, cells)| &cells[column]);
            cells.chain([&self.head[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let padded = |cells: &[String]| {
            let mut line = format!("  {:<1$}", cells[0], widths[0]);
            for (cell, width) in cells.iter().zip(&widths).skip(1) {
                let _ = write!(line, "   {cell:>width$}");
            }
            line
        };
        line(&padded(&self.head).dimmed().to_string());
        for (style, cells) in &self.rows {
            line(&padded(cells).style(*style).to_string());
        }
    }
}

/// Prints a line on stdout, with colour if that is a terminal. It is no error if the reader stops early.
pub fn line(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

pub fn title(text: &str) {
    line(&format!("\n  {}\n", text.bold()));
}

pub fn note(text: &str) {
    line(&format!("  {}", text.dimmed()));
}

/// A limit, and the measured value.
#[derive(serde::Serialize)]
pub struct Limit {
    pub what: String,
    pub value: f64,
    pub measured: f64,
    pub unit: &'static str,
    /// Whether the limit is a minimum instead of a maximum.
    pub at_least: bool,
}

impl Limit {
    pub fn holds(&self) -> bool {
        if self.at_least { self.measured >= self.value } else { self.measured <= self.value }
    }
}

/// Prints which limits hold, and returns the program's exit code.
pub fn judge(limits: &[Limit]) -> std::process::ExitCode {
    judge_lines(limits.iter().map(|limit| {
        let Limit { what, value, measured, unit, at_least } = limit;
        let sign = if *at_least { "≥" } else { "≤" };
        (limit.holds(), format!("{what}: {measured:.2}{unit} ({sign} {value}{unit})"))
    }))
}

/// Prints a line per limit, and returns the program's exit code.
pub fn judge_lines(lines: impl Iterator<Item = (bool, String)>) -> std::process::ExitCode {
    line("");
    let mut all = true;
    for (holds, text) in lines {
        all &= holds;
        if holds {
            line(&format!("  {} {text}", "pass".green().bold()));
        } else {
            line(&format!("  {} {text}", "FAIL".red().bold()));
        }
    }
    line("");
    if all { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

pub fn exit_code(limits: &[Limit]) -> std::process::ExitCode {
    if limits.iter().all(Limit::holds) {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}

/// The value at the share `part` of the sorted values; 0.5 is the median.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    assert!(!values.is_empty());
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[index]
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}
