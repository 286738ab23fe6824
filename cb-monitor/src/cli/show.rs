//! `cbctl show`.

use std::time::{Instant, SystemTime};

use comfy_table::{Cell, Table};

use super::Failure;
use super::client::Client;
use super::{output, text};
use crate::figures::{Figures, Row, seconds};

pub(super) async fn show(client: &Client, name: &str, json: bool) -> Result<(), Failure> {
    let row = find(client, name, &mut Figures::default()).await?;
    let instances = client.source.instances().await.unwrap_or_default();
    let settings = instances.settings.of(name);
    if json {
        let mut answer = serde_json::json!(row);
        answer["instances"] = serde_json::json!(settings);
        return output::line(answer);
    }
    output::line(facts(&row).trim_fmt())?;
    if settings.is_empty() {
        return Ok(());
    }
    let mut table = text::table(&["node", "instance", "settings"]);
    for instance in settings {
        let given = instance.settings.iter().map(|(name, value)| format!("{name} = {value}"));
        let given = text::plain(&given.collect::<Vec<_>>().join(", "));
        let mark = if instance.drift { "differs: " } else { "" };
        table.add_row([
            text::plain(&instance.node),
            text::plain(&instance.instance),
            format!("{mark}{given}"),
        ]);
    }
    output::line(format_args!("\n{}", table.trim_fmt()))
}

/// What the fleet has of a breaker, one fact a line, without those that there are none of.
fn facts(row: &Row) -> Table {
    let now = seconds(SystemTime::now());
    let mut table = text::table(&[]);
    let mut line = |label: &str, value: Cell| {
        table.add_row([Cell::new(label), value]);
    };
    line("name", Cell::new(text::plain(&row.name)));
    line("state", text::state(row.state));
    for (label, value) in [
        (
            "since",
            row.last_state_change
                .map_or_else(String::new, |at| format!("{} ({})", text::span(now - at), text::time(at))),
        ),
        ("next", text::next(row)),
        ("reason", text::plain(&row.reason)),
        ("actor", text::plain(&row.actor)),
        ("instance", text::plain(&row.originator)),
        ("epoch", row.epoch.to_string()),
        ("failures", row.failure_count.to_string()),
        ("successes", row.success_count.to_string()),
        ("in a row", row.consecutive_failures.to_string()),
        ("probes", row.probes.to_string()),
        ("openings", row.openings.to_string()),
        (
            "would have opened",
            if row.would_have_opened > 0 {
                format!("{} times", row.would_have_opened)
            } else {
                String::new()
            },
        ),
        ("open only on", text::plain(&row.isolated.join(", "))),
        ("checks health", text::plain(row.leader.as_deref().unwrap_or_default())),
    ] {
        if !value.is_empty() {
            line(label, Cell::new(value));
        }
    }
    table
}

/// The row of a breaker. For an unknown name, the error suggests a similar one; for a damaged breaker, it
/// says what is damaged.
pub(super) async fn find(client: &Client, name: &str, figures: &mut Figures) -> Result<Row, Failure> {
    let damage = client.read(figures).await?;
    figures.row(name, Instant::now()).ok_or_else(|| {
        let of_it = format!("breaker \"{name}\" ");
        if let Some(problem) = damage.iter().find(|problem| problem.starts_with(&of_it)) {
            return Failure::Other(text::plain(problem));
        }
        let advice = match figures.similar(name) {
            Some(similar) => format!("did you mean \"{}\"?", text::plain(&similar)),
            None => format!("`cbctl list` shows all {}", figures.len()),
        };
        Failure::Unknown(format!(
            "no breaker of this namespace has the name \"{}\": {advice}",
            text::plain(name)
        ))
    })
}
