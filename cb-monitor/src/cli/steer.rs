//! `cbctl open`, `disable`, `metrics-only`, `release`, `reset`.

use std::io::{BufRead, IsTerminal, Write};

use super::args::Asked;
use super::client::Client;
use super::{Failure, show, text};
use crate::figures::Row;
use crate::fleet::{Action, Order, Refusal};

pub(super) async fn steer(client: &Client, action: Action, asked: &Asked, json: bool) -> Result<(), Failure> {
    let order =
        Order::new(action, &asked.reason, &asked.actor, asked.expires_in.as_deref()).map_err(failure)?;
    let row = show::find(client, &asked.name).await?;
    if !asked.yes {
        let instances =
            client.source.instances().await.map_or(0, |instances| instances.alive.saturating_sub(1));
        confirm(action, &row, &order, instances)?;
    }
    client.source.obey(&asked.name, &order).await.map_err(failure)?;
    let (name, state) = (text::plain(&asked.name), action.leads_to());
    if json {
        let answer = serde_json::json!({ "breaker": asked.name, "action": action.as_str(), "state": state });
        println!("{answer}");
    } else {
        let span = order.expires_in.map(|span| format!(" for {}", humantime::format_duration(span)));
        println!("{name} is {state}{}", span.unwrap_or_default());
    }
    Ok(())
}

/// Says what the order would do, and waits for a yes.
fn confirm(action: Action, row: &Row, order: &Order, instances: usize) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let error = "nobody can be asked for confirmation here; add --yes if you are sure";
        return Err(Failure::Unconfirmed(error.into()));
    }
    let effect = match action {
        Action::Open => "will reject all calls",
        Action::Disable => "will make all calls, and count nothing",
        Action::MetricsOnly => "will make all calls, and reject none",
        Action::Release => "will end the manual override",
        Action::Reset => "will close the circuit, and count from nothing",
    };
    let until = match order.expires_in {
        Some(span) => format!(", for {}", humantime::format_duration(span)),
        None if action.takes_an_expiry() => ", until someone releases it".into(),
        None => String::new(),
    };
    eprint!(
        "\"{}\" is {}. {}: {instances} instances {effect}{until}. Go on? [y/N] ",
        text::plain(&row.name),
        row.state,
        action.as_str()
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Unconfirmed("nothing was changed".into())),
    }
}

fn failure(refusal: Refusal) -> Failure {
    let message = refusal.message().to_owned();
    match refusal {
        Refusal::Invalid(_) => Failure::Usage(message),
        Refusal::StoreAway(_) | Refusal::InDoubt(_) => Failure::Store(message),
    }
}
