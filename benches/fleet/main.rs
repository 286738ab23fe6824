//! The cost of a fleet for its Redis: the server's share of a core, the commands of each instance, and the
//! time from a trip on one instance until all instances have it. Instances are registries with their own
//! coordinators in a few processes, and the server is a real one.
//!
//! The server's share is the processor time that the server reports. Other programs on the machine change it
//! little, but they do change durations.

mod entries;
mod naive;
mod process;
mod row;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod trouble;

use std::process::ExitCode;

use owo_colors::Style;
use serde::Serialize;

use entries::PerEntry;
use naive::Compared;
use process::{ROLE, hold};
use row::{Row, Rule};
use rows::{Measured, idle_share, measure};
use support::screen::{Progress, Table, note, title};
use trouble::{Overload, Storm};

const STORM: &str = "storm";
const OVERLOAD: &str = "overload";
const PER_CALL: &str = "per call";
const PER_ENTRY: &str = "per entry";
/// What is measured beside the rows.
const OTHERS: [&str; 4] = [STORM, OVERLOAD, PER_CALL, PER_ENTRY];

struct Arguments {
    json: bool,
    up_to: usize,
    only: Option<String>,
}

/// The measurements. Parts that were not requested are missing.
#[derive(Debug, Default, Serialize)]
struct Results {
    idle_percent: f64,
    fleet: Vec<Measured>,
    storm: Option<Storm>,
    overload: Option<Overload>,
    per_call: Vec<Compared>,
    per_entry: Vec<PerEntry>,
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
            "usage: cargo bench -p cb-benches --bench fleet -- [--json] [--up-to INSTANCES] [--only TEXT]\n\
             TEXT: a part of a row's name, or {}",
            OTHERS.join(", ")
        );
        return ExitCode::from(2);
    };
    let only = arguments.only.as_deref();
    let wants = |name: &str| only.is_none_or(|only| name.contains(only));
    let mut rows = rows::all(arguments.up_to);
    let names: Vec<_> = rows.iter().map(Row::name).chain(OTHERS.map(str::to_owned)).collect();
    if !names.iter().any(|name| wants(name)) {
        eprintln!("nothing is called {:?}; there are:\n  {}", only.unwrap_or_default(), names.join("\n  "));
        return ExitCode::from(2);
    }
    rows.retain(|row| wants(&row.name()));
    let progress = Progress::new();
    let idle = idle_share(&progress);
    let results = Results {
        idle_percent: idle,
        fleet: rows.iter().map(|row| done(measure(row, idle, &progress))).collect(),
        storm: wants(STORM).then(|| done(trouble::storm(idle, &progress))),
        overload: wants(OVERLOAD).then(|| done(trouble::overload(&progress))),
        per_call: if wants(PER_CALL) { done(naive::compare(idle, &progress)) } else { Vec::new() },
        per_entry: if wants(PER_ENTRY) { done(entries::measure(idle, &progress)) } else { Vec::new() },
    };
    drop(progress);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&results).expect("numbers"));
    } else {
        show(&results);
    }
    ExitCode::SUCCESS
}

/// Shows a part at once, on stderr, so that it is not lost if a later one fails.
fn done<T: Serialize>(part: T) -> T {
    eprintln!("{}", serde_json::to_string(&part).expect("numbers"));
    part
}

fn read(given: Vec<String>) -> Option<Arguments> {
    let mut arguments = Arguments { json: false, up_to: 1000, only: None };
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

fn show(results: &Results) {
    let span = |span: Option<f64>| span.map_or("–".to_owned(), |span| format!("{span:.1} ms"));
    if !results.fleet.is_empty() {
        title("The cost of a fleet for Redis");
        let head = [
            "",
            "Redis",
            "commands/s each",
            "instances",
            "calls made",
            "store lost",
            "a trip reaches all: median",
            "p99",
            "wrong",
        ];
        let mut table = Table::new(&head);
        for row in &results.fleet {
            let Measured { instances, breakers, rule, per_second, failing_percent: failing, open, .. } = *row;
            let name = Row { instances, breakers, rule, per_second, failing, open, trips: 0 }.name();
            table.row(
                Style::new(),
                vec![
                    name,
                    format!("{:.2} %", row.redis_percent),
                    format!("{:.1}", row.commands_per_second_and_instance),
                    format!("{:.1} %", row.instances_percent),
                    row.calls_percent.map_or("–".to_owned(), |calls| format!("{calls:.0} %")),
                    row.lost.to_string(),
                    span(row.all_after_median_ms),
                    span(row.all_after_p99_ms),
                    row.opened_wrongly.to_string(),
                ],
            );
        }
        table.print();
        note(&format!(
            "shares of one core; Redis' share less that of an idle server, {:.2} %",
            results.idle_percent
        ));
    }
    if let Some(storm) = &results.storm {
        title("Breakers that become half-open at once");
        note(&format!(
            "{} instances, {} breakers, {} callers a second: Redis {:.1} %, {} probes of {} allowed",
            storm.instances,
            storm.breakers,
            storm.callers_per_second,
            storm.redis_percent,
            storm.probes,
            storm.budgets
        ));
    }
    if let Some(overload) = &results.overload {
        title("A server with a tenth of its processor time");
        note(&format!(
            "script calls per second and instance {:.1}, before {:.1}; store lost {} times; {} of {} trips reached \
             all, median {}, at most {}; after the release {}",
            overload.commands_per_second_and_instance,
            overload.commands_before,
            overload.lost,
            overload.trips_seen,
            overload.trips,
            span(overload.all_after_median_ms),
            span(overload.all_after_max_ms),
            span(overload.afterwards_ms)
        ));
    }
    if !results.per_call.is_empty() {
        title("Redis' time for one call, compared with a breaker that uses Redis at every call");
        let mut table =
            Table::new(&["calls per second and instance", "uses Redis at every call", "this crate"]);
        for row in &results.per_call {
            table.row(
                Style::new(),
                vec![
                    row.calls_per_second_and_instance.to_string(),
                    format!("{:.1} µs", row.naive_us_per_call),
                    format!("{:.2} µs", row.ours_us_per_call),
                ],
            );
        }
        table.print();
    }
    if !results.per_entry.is_empty() {
        title("Redis' time for one entry of a request");
        let mut table = Table::new(&["", "entries", "instances", "requests/s each", "an entry"]);
        for row in &results.per_entry {
            let failing = if row.failing { ", with failures" } else { "" };
            table.row(
                Style::new(),
                vec![
                    format!("{:?}{failing}", row.request),
                    row.entries.to_string(),
                    row.instances.to_string(),
                    row.per_second.to_string(),
                    format!("{:.1} µs", row.us),
                ],
            );
        }
        table.print();
    }
}
