//! `cbctl events`.

use std::time::SystemTime;

use cb_runtime::Event;
use serde_json::Value;

use super::Failure;
use super::client::Client;
use super::{output, text};
use crate::event_log::{describe, transition};

pub(super) async fn events(client: &Client, follow: bool, number: usize, json: bool) -> Result<(), Failure> {
    let mut events = client.source.subscribe();
    let past = client.source.history(number).await.map_err(|error| client.away(&error.to_string()))?;
    for change in &past {
        print(&transition("transition", change), json)?;
    }
    if !follow {
        return Ok(());
    }
    while let Some(event) = events.recv().await {
        if matches!(&event, Event::Transition(change) if past.iter().any(|known| known.cursor == change.cursor))
        {
            continue;
        }
        if let Some((_, event)) = describe(&event, SystemTime::now()) {
            print(&event, json)?;
        }
    }
    Ok(())
}

fn print(event: &Value, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(event);
    }
    let field = |name: &str| event[name].as_str().map(text::plain).unwrap_or_default();
    let at = text::time(event["at"].as_f64().unwrap_or_default());
    let what = match &*field("event") {
        "transition" => format!("{} → {}", field("from"), field("to")),
        "local-transition" => format!("{} → {} (this instance only)", field("from"), field("to")),
        other => other.to_owned(),
    };
    let why = if event["reason"].is_string() { field("reason") } else { field("error") };
    let who = if field("actor").is_empty() { field("originator") } else { field("actor") };
    let who = if who.is_empty() { who } else { format!(" by {who}") };
    output::line(format_args!("{at}  {}  {what}  {why}{who}", field("breaker")))
}
