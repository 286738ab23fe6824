//! Entries of the event stream.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{FromRedisValue, Value};

use crate::snapshot::State;
use crate::store::redis::keys::decode;
use crate::store::{Counts, MAX_COUNT, MAX_EPOCH, MAX_SPAN_US, Position, Record, StreamEvent, cut};

/// An entry of the event stream; the error says what is wrong with it.
pub(in crate::store::redis) fn event(
    id: String,
    fields: &HashMap<String, Value>,
) -> Result<StreamEvent, String> {
    let text = |field: &str| {
        let value = fields.get(field).ok_or_else(|| format!("{field} is missing"))?;
        String::from_redis_value_ref(value).map_err(|_| format!("{field} is not a text"))
    };
    let number = |field: &str| {
        let value = text(field)?;
        let number = value.parse::<u64>().ok().filter(|number| *number <= MAX_COUNT);
        number.ok_or_else(|| format!("{field} {} is no number", shown(&value)))
    };
    let state = |field: &str| text(field)?.parse::<State>().map_err(|problem| format!("{field}: {problem}"));
    let encoded = text("name")?;
    let name = decode(&encoded).ok_or_else(|| format!("name {} is no breaker's", shown(&encoded)))?;
    let to = state("state")?;
    let reset_timeout_us = number("reset_timeout_us")?.min(MAX_SPAN_US);
    let remaining_us = if text("remaining_us")?.is_empty() { None } else { Some(number("remaining_us")?) };
    Ok(StreamEvent {
        position: Position { incarnation: text("incarnation")?, id, number: number("number")? },
        name: Arc::from(name),
        from: if text("from")?.is_empty() { None } else { Some(state("from")?) },
        record: Record {
            epoch: Some(number("epoch")?).filter(|epoch| *epoch <= MAX_EPOCH).ok_or("epoch is too large")?,
            state: to,
            reason: cut(&text("reason")?).to_owned(),
            originator: text("by")?,
            // An instance of an earlier layout does not tell.
            actor: if fields.contains_key("actor") { cut(&text("actor")?).to_owned() } else { String::new() },
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
