//! Entries of the event stream.

use std::sync::Arc;

use super::Fields;
use crate::snapshot::State;
use crate::store::redis::keys::decode;
use crate::store::{Counts, MAX_COUNT, MAX_EPOCH, MAX_SPAN_US, Position, Record, StreamEvent, cut};

/// An entry of the event stream; the error says what is wrong with it.
pub(in crate::store::redis) fn event(id: String, fields: &Fields<'_>) -> Result<StreamEvent, String> {
    let text = |field: &'static str| fields.text(field);
    let number = |field: &'static str| {
        let value = text(field)?;
        let number = value.parse::<u64>().ok().filter(|number| *number <= MAX_COUNT);
        number.ok_or_else(|| format!("{field} {} is no number", shown(value)))
    };
    let state =
        |field: &'static str| text(field)?.parse::<State>().map_err(|problem| format!("{field}: {problem}"));
    // In the order of the entry's fields.
    let (incarnation, number_of_event) = (text("incarnation")?.to_owned(), number("number")?);
    let encoded = text("name")?;
    let name = decode(encoded).ok_or_else(|| format!("name {} is no breaker's", shown(encoded)))?;
    let from = if text("from")?.is_empty() { None } else { Some(state("from")?) };
    let to = state("state")?;
    let epoch = Some(number("epoch")?).filter(|epoch| *epoch <= MAX_EPOCH).ok_or("epoch is too large")?;
    let (reason, originator) = (cut(text("reason")?).to_owned(), text("by")?.to_owned());
    // An instance of an earlier layout does not tell.
    let actor = cut(if fields.has("actor") { text("actor")? } else { "" }).to_owned();
    let at_us = number("at_us")?;
    let remaining_us = if text("remaining_us")?.is_empty() { None } else { Some(number("remaining_us")?) };
    let reset_timeout_us = number("reset_timeout_us")?.min(MAX_SPAN_US);
    let attempt = u32::try_from(number("attempt")?).map_err(|_| "attempt is too large".to_owned())?;
    Ok(StreamEvent {
        position: Position { incarnation, id, number: number_of_event },
        name: Arc::from(name),
        from,
        record: Record {
            epoch,
            state: to,
            reason,
            originator,
            actor,
            remaining_us: to.remaining(remaining_us, reset_timeout_us),
            since_us: 0,
            reset_timeout_us,
            attempt,
        },
        evidence: Counts {
            successes: number("successes")?,
            failures: number("failures")?,
            slow: number("slow")?,
        },
        at_us,
    })
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}
