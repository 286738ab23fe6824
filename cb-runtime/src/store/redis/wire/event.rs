//! Entries of the event stream.

use std::sync::Arc;

use redis::Value;

use crate::snapshot::State;
use crate::store::redis::keys::decode;
use crate::store::{Counts, MAX_COUNT, MAX_EPOCH, MAX_SPAN_US, Position, Record, StreamEvent, cut};

/// The fields of a stream's entry, as they are read. Another client's need not have names in UTF-8.
pub(in crate::store::redis) type Fields = Vec<(Vec<u8>, Value)>;

/// The content of a field; the error says what is wrong with it.
pub(in crate::store::redis) fn text<'a>(
    fields: &'a [(Vec<u8>, Value)],
    field: &str,
) -> Result<&'a str, String> {
    match fields.iter().find(|(name, _)| name == field.as_bytes()) {
        Some((_, Value::BulkString(bytes))) => str::from_utf8(bytes).ok(),
        Some(_) => None,
        None => return Err(format!("{field} is missing")),
    }
    .ok_or_else(|| format!("{field} is not a text"))
}

/// An entry of the event stream; the error says what is wrong with it.
pub(in crate::store::redis) fn event(id: String, fields: &[(Vec<u8>, Value)]) -> Result<StreamEvent, String> {
    let text = |field: &'static str| text(fields, field);
    let number = |field: &'static str| {
        let value = text(field)?;
        let number = value.parse::<u64>().ok().filter(|number| *number <= MAX_COUNT);
        number.ok_or_else(|| format!("{field} {} is no number", shown(value)))
    };
    let state =
        |field: &'static str| text(field)?.parse::<State>().map_err(|problem| format!("{field}: {problem}"));
    let encoded = text("name")?;
    let name = decode(encoded).ok_or_else(|| format!("name {} is no breaker's", shown(encoded)))?;
    let to = state("state")?;
    let has_actor = fields.iter().any(|(name, _)| name == b"actor");
    let reset_timeout_us = number("reset_timeout_us")?.min(MAX_SPAN_US);
    let remaining_us = if text("remaining_us")?.is_empty() { None } else { Some(number("remaining_us")?) };
    Ok(StreamEvent {
        position: Position { incarnation: text("incarnation")?.to_owned(), id, number: number("number")? },
        name: Arc::from(name),
        from: if text("from")?.is_empty() { None } else { Some(state("from")?) },
        record: Record {
            epoch: Some(number("epoch")?).filter(|epoch| *epoch <= MAX_EPOCH).ok_or("epoch is too large")?,
            state: to,
            reason: cut(text("reason")?).to_owned(),
            originator: text("by")?.to_owned(),
            // An instance of an earlier layout does not tell.
            actor: cut(if has_actor { text("actor")? } else { "" }).to_owned(),
            remaining_us: to.remaining(remaining_us, reset_timeout_us),
            since_us: 0,
            reset_timeout_us,
            attempt: u32::try_from(number("attempt")?).map_err(|_| "attempt is too large".to_owned())?,
        },
        evidence: Counts {
            successes: number("successes")?,
            failures: number("failures")?,
            slow: number("slow")?,
        },
        at_us: number("at_us")?,
    })
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}
