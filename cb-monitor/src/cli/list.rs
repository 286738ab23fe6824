//! `cbctl list` and `cbctl watch`.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use comfy_table::{Cell, CellAlignment};

use super::Failure;
use super::args::Which;
use super::client::Client;
use super::{output, text};
use crate::figures::{Figures, Filter, Rates, Row, seconds};

/// The interval between two readings of `watch`.
const PACE: Duration = Duration::from_secs(1);

pub(super) async fn list(client: &Client, which: &Which, json: bool) -> Result<(), Failure> {
    let mut figures = Figures::default();
    client.read(&mut figures).await?;
    let (rows, total) = figures.page(&which.filter(), Instant::now());
    if json {
        return output::line(serde_json::json!(rows));
    }
    if !rows.is_empty() {
        output::line(table(&rows, false))?;
    }
    if rows.len() < total {
        output::remark(format_args!("{} of {total}; a higher --limit shows more", rows.len()));
    }
    if total == 0 {
        output::remark("no breaker of this namespace matches; is --namespace right?");
    }
    Ok(())
}

pub(super) async fn watch(client: &Client, which: &Which, json: bool) -> Result<(), Failure> {
    let mut figures = Figures::default();
    let mut events = client.source.subscribe();
    loop {
        let error = match client.read(&mut figures).await {
            Ok(()) => None,
            // If the first reading fails, the command ends. After that, Redis may return.
            Err(failure) if figures.as_of().is_none() => return Err(failure),
            Err(failure) => failure.message().map(str::to_owned),
        };
        draw(&figures, &which.filter(), error.as_deref(), json)?;
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            // Show a change at once.
            _ = events.recv() => {}
        }
    }
}

fn draw(figures: &Figures, filter: &Filter, error: Option<&str>, json: bool) -> Result<(), Failure> {
    let (rows, total) = figures.page(filter, Instant::now());
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::json!(rows))?;
        return Ok(out.flush()?);
    }
    if text::is_terminal() {
        // Move home, draw over the old text, clear the rest. Clearing first would flicker.
        write!(out, "\x1b[H")?;
    }
    let line = |out: &mut std::io::StdoutLock<'_>, text: &str| writeln!(out, "{text}\x1b[K");
    let counts = figures.counts().into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(state, count)| format!("{count} {state}")).collect();
    let as_of = figures.as_of().map(seconds).map(text::time).unwrap_or_default();
    line(&mut out, &format!("{}   {as_of}", counts.join(", ")))?;
    if let Some(error) = error {
        line(&mut out, &format!("NOT CURRENT: {}", text::plain(error)))?;
    }
    let height = usize::from(text::terminal_size().1).saturating_sub(4);
    for row in table(&rows, true).lines().take(height) {
        line(&mut out, row)?;
    }
    if rows.len() < total || rows.len() + 1 > height {
        line(&mut out, &format!("… {total} in total"))?;
    }
    write!(out, "\x1b[J")?;
    Ok(out.flush()?)
}

fn table(rows: &[Row], with_rates: bool) -> String {
    let now = seconds(SystemTime::now());
    let mut header = vec!["state", "name", "since", "next", "failures"];
    if with_rates {
        header.extend(["calls/s", "failed", "rejected/s", "fallback/s"]);
    }
    header.push("reason");
    let mut table = text::table(&header);
    for row in rows {
        let mut cells = vec![
            text::state(row.state),
            Cell::new(text::plain(&row.name)),
            Cell::new(text::since(row, now)),
            Cell::new(text::next(row)),
            Cell::new(row.failure_count).set_alignment(CellAlignment::Right),
        ];
        if with_rates {
            let failed = row.failure_rate.map_or_else(String::new, |rate| format!("{:.0} %", rate * 100.0));
            let shown = |rate: Option<f64>| rate.map_or_else(String::new, |rate| format!("{rate:.1}"));
            let Rates { calls, rejected, fallback, .. } = row.per_second;
            let rates = [format!("{calls:.1}"), failed, shown(rejected), shown(fallback)];
            cells.extend(rates.map(|rate| Cell::new(rate).set_alignment(CellAlignment::Right)));
        }
        cells.push(Cell::new(text::reason(row)));
        table.add_row(cells);
    }
    if rows.is_empty() { String::new() } else { table.trim_fmt() }
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            states: self.state.clone(),
            search: self.search.clone(),
            sort: self.sort,
            offset: 0,
            limit: self.limit,
            with_trend: false,
        }
    }
}
