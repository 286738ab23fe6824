//! `cbctl list` and `cbctl watch`.

use std::io::Write;
use std::time::{Instant, SystemTime};

use cb_runtime::{Event, Events};
use comfy_table::{Cell, CellAlignment};

use super::Failure;
use super::args::Which;
use super::client::Client;
use super::{output, text};
use crate::figures::{Figures, Filter, Rates, Row, seconds};
use crate::hub::{PACE, pace};

pub(super) async fn list(client: &Client, which: &Which, json: bool) -> Result<(), Failure> {
    let mut figures = Figures::default();
    let damage = client.read(&mut figures).await?;
    let (rows, total) = figures.page(&which.filter(), Instant::now());
    for problem in damage.iter().cloned().map(left_out) {
        output::warning(&problem, json);
    }
    if json {
        return output::line(serde_json::json!(rows));
    }
    if !rows.is_empty() {
        output::line(table(&rows, false))?;
    }
    if rows.len() < total {
        output::remark(format_args!("{} of {total}; a higher --limit shows more", rows.len()));
    }
    if total == 0 && damage.is_empty() {
        output::remark("no breaker of this namespace matches; is --namespace right?");
    }
    Ok(())
}

pub(super) async fn watch(client: &Client, which: &Which, json: bool) -> Result<(), Failure> {
    let filter = which.filter();
    let mut figures = Figures::default();
    let mut events = client.source.subscribe();
    let mut warned = Vec::new();
    loop {
        let begun = Instant::now();
        let (problems, is_current) = match client.read(&mut figures).await {
            Ok(damage) => (damage.into_iter().map(left_out).collect(), true),
            // If the first reading fails, the command ends. After that, Redis may return.
            Err(failure) if figures.as_of().is_none() => return Err(failure),
            Err(failure) => (vec![format!("NOT CURRENT: {}", failure.message().unwrap_or_default())], false),
        };
        let ended = Instant::now();
        let pause = if is_current { pace(&[ended - begun]) } else { PACE };
        let mut next = NextReading { due: ended + pause, soonest: ended + PACE };
        if json && warned != problems {
            for problem in &problems {
                output::warning(problem, json);
            }
            warned.clone_from(&problems);
        }
        loop {
            if !json {
                draw(&figures, &filter, &problems)?;
            } else if is_current {
                output::line(serde_json::json!(figures.page(&filter, Instant::now()).0))?;
            }
            if !next.comes_after_a_change(&mut events, &mut figures).await {
                break;
            }
        }
    }
}

/// When `watch` reads the store again.
struct NextReading {
    due: Instant,
    /// If the store is lost or restored, it is read then.
    soonest: Instant,
}

impl NextReading {
    /// Waits for transitions, and applies them: they are shown at once, and need no reading. Returns `false`
    /// once the reading is due.
    async fn comes_after_a_change(&mut self, events: &mut Events, figures: &mut Figures) -> bool {
        let mut changed = false;
        while Instant::now() < self.due {
            let event = match events.try_recv() {
                None if changed => return true,
                None => tokio::time::timeout_at(self.due.into(), events.recv()).await.ok().flatten(),
                event => event,
            };
            match event {
                Some(Event::Transition(change)) => {
                    figures.apply(&change, false, Instant::now());
                    changed = true;
                }
                Some(Event::StoreLost(_) | Event::StoreRestored) => self.due = self.due.min(self.soonest),
                // A damaged breaker is an error at each reading: it must not cause the next one.
                Some(_) => {}
                None => tokio::time::sleep_until(self.due.into()).await,
            }
        }
        false
    }
}

/// The warning of damage. A damaged breaker is missing in the list; a damaged key of all breakers has been
/// repaired.
fn left_out(damage: String) -> String {
    if damage.starts_with("breaker ") { format!("{damage}; it is left out") } else { damage }
}

fn draw(figures: &Figures, filter: &Filter, problems: &[String]) -> Result<(), Failure> {
    let (rows, total) = figures.page(filter, Instant::now());
    let mut out = std::io::stdout().lock();
    if text::is_terminal() {
        // Move home, draw over the old text, clear the rest. Clearing first would flicker.
        write!(out, "\x1b[H")?;
    }
    let line = |out: &mut std::io::StdoutLock<'_>, text: &str| writeln!(out, "{text}\x1b[K");
    let counts = figures.counts().into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(state, count)| format!("{count} {state}")).collect();
    let as_of = figures.as_of().map(seconds).map(text::time).unwrap_or_default();
    line(&mut out, &format!("{}   {as_of}", counts.join(", ")))?;
    let height = usize::from(text::terminal_size().1).saturating_sub(3);
    let problems = problems.iter().map(|problem| text::plain(problem));
    let lines: Vec<_> = problems.chain(table(&rows, true).lines().map(str::to_owned)).collect();
    for text in lines.iter().take(height) {
        line(&mut out, text)?;
    }
    if rows.len() < total || lines.len() > height {
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
