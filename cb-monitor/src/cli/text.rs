//! Text for a terminal.

use std::io::IsTerminal;

use cb_runtime::State;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use crate::figures::Row;

/// Escapes control characters, and characters that change the direction of writing: anybody who can write to
/// Redis chooses names and reasons.
pub(super) fn plain(text: &str) -> String {
    let dangerous = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if dangerous(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// A duration with at most two units: "5m 3s".
pub(super) fn span(seconds: f64) -> String {
    let text =
        humantime::format_duration(std::time::Duration::from_secs(seconds.max(0.0) as u64)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

fn color(state: State) -> Color {
    match state {
        State::Closed => Color::Green,
        State::Open => Color::Red,
        State::HalfOpen => Color::Yellow,
        State::ForcedOpen => Color::Magenta,
        State::Disabled => Color::DarkGrey,
        _ => Color::Blue,
    }
}

pub(super) fn state(state: State) -> Cell {
    Cell::new(state).fg(color(state))
}

/// The columns and lines of the terminal, or 160 × 60 if there is no terminal or its size is unknown.
pub(super) fn terminal_size() -> (u16, u16) {
    let size = if is_terminal() { crossterm::terminal::size().ok() } else { None };
    size.filter(|(columns, lines)| *columns > 0 && *lines > 0).unwrap_or((160, 60))
}

/// An empty table in the common style.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    if is_terminal() {
        table.set_width(terminal_size().0);
    }
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|title| Cell::new(title.to_uppercase()).fg(Color::DarkGrey)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The breaker's next timed event: a probe, or the end of an override.
pub(super) fn next(row: &Row) -> String {
    match (row.state, row.retry_after) {
        (_, None) => String::new(),
        (State::Open, Some(left)) if left < 1.0 => "probe is due".into(),
        (State::Open, Some(left)) => format!("probe in {}", span(left)),
        (_, Some(left)) => format!("ends in {}", span(left)),
    }
}

pub(super) fn since(row: &Row, now: f64) -> String {
    match row.last_state_change {
        Some(at) => span(now - at),
        None => String::new(),
    }
}

/// The reason of the state, with the actor of an override.
pub(super) fn reason(row: &Row) -> String {
    let reason = plain(&row.reason);
    if row.actor.is_empty() { reason } else { format!("{reason} ({})", plain(&row.actor)) }
}

/// Seconds since 1970 as a time of day in UTC.
pub(super) fn time(at: f64) -> String {
    let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs_f64(at.max(0.0));
    humantime::format_rfc3339_seconds(at).to_string()
}
