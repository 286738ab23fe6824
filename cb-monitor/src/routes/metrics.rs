//! The fleet's figures as Prometheus text.

use std::fmt::Write;
use std::time::{Instant, SystemTime};

use axum::extract::State;
use axum::http::{HeaderName, header};

use super::Context;
use crate::figures::{Row, seconds};
use crate::hub::Overview;
use crate::sync::lock;

/// The number of breakers with time series of their own, which cost memory in Prometheus. Breakers that are
/// not closed come first.
const MAX_BREAKERS: usize = 2000;

const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(
    State(Context { hub, .. }): State<Context>,
) -> ([(HeaderName, &'static str); 1], String) {
    hub.refresh().await;
    let overview = hub.overview();
    let mut rows: Vec<Row> = lock(&hub.figures).rows(Instant::now()).collect();
    rows.sort_by_key(|row| row.state == cb_runtime::State::Closed);
    let left_out = rows.len().saturating_sub(MAX_BREAKERS);
    rows.truncate(MAX_BREAKERS);
    ([(header::CONTENT_TYPE, TYPE)], text(&overview, &rows, left_out))
}

fn text(overview: &Overview, rows: &[Row], left_out: usize) -> String {
    let mut text = Text::default();
    text.family("store_up", "gauge", "1 while the store answers, else 0 and all other figures are old");
    text.line("store_up", &[], if overview.store.up { 1.0 } else { 0.0 });
    if let Some(as_of) = overview.as_of {
        text.family("read_timestamp_seconds", "gauge", "When the store was last read");
        text.line("read_timestamp_seconds", &[], as_of);
    }
    text.family("breakers", "gauge", "How many breakers are in this state");
    for (state, count) in &overview.states {
        text.line("breakers", &[("state", state)], *count as f64);
    }
    text.family(
        "breakers_left_out",
        "gauge",
        "Closed breakers that have no series of their own, as there are too many",
    );
    text.line("breakers_left_out", &[], left_out as f64);
    text.family("state", "gauge", "1 for the state that the breaker is in; its other states have no series");
    for row in rows {
        text.line("state", &[("breaker", &row.name), ("state", row.state.as_str())], 1.0);
    }
    text.family("epoch", "counter", "Changes of state since the breaker's first");
    for row in rows {
        text.line("epoch_total", &[("breaker", &row.name)], row.epoch as f64);
    }
    text.family(
        "calls",
        "counter",
        "Outcomes of this epoch, fleet-wide; begins anew with every change of state",
    );
    for row in rows {
        for (outcome, count) in [("success", row.success_count), ("failure", row.failure_count)] {
            text.line("calls_total", &[("breaker", &row.name), ("outcome", outcome)], count as f64);
        }
    }
    let help = "Failures since the latest success, fleet-wide";
    text.gauge_of_each("consecutive_failures", help, rows, |row| Some(row.consecutive_failures as f64));
    let help = "Until a probe may be made, or until a manual override expires";
    text.gauge_of_each("retry_after_seconds", help, rows, |row| row.retry_after);
    let help = "When the breaker came to its state";
    text.gauge_of_each("state_change_timestamp_seconds", help, rows, |row| row.last_state_change);
    text.family("monitor_timestamp_seconds", "gauge", "This process' clock");
    text.line("monitor_timestamp_seconds", &[], seconds(SystemTime::now()));
    text.0
}

/// The text format, version 0.0.4.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let _ = writeln!(self.0, "# HELP circuit_breaker_fleet_{name} {help}");
        let _ = writeln!(self.0, "# TYPE circuit_breaker_fleet_{name} {kind}");
    }

    /// A gauge of each breaker that has a value.
    fn gauge_of_each(&mut self, name: &str, help: &str, rows: &[Row], value: fn(&Row) -> Option<f64>) {
        self.family(name, "gauge", help);
        for row in rows {
            if let Some(value) = value(row) {
                self.line(name, &[("breaker", &row.name)], value);
            }
        }
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "circuit_breaker_fleet_{name}");
        for (place, (label, value)) in labels.iter().enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escape(value));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// A name may contain any character, including quotes and line breaks.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
