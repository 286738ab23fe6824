//! `cbctl open`, `disable`, `metrics-only`, `release`, `reset`.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use super::args::OverrideRequest;
use super::client::Client;
use super::{Failure, show, text};
use crate::blast_radius::BlastRadius;
use crate::figures::{Figures, Row};
use crate::order::{Action, Order, Refusal};

pub(super) async fn steer(
    client: &Client,
    action: Action,
    request: &OverrideRequest,
    json: bool,
) -> Result<(), Failure> {
    let order = Order::new(action, &request.reason, &request.actor, request.expires_in.as_deref())
        .map_err(failure)?;
    let mut figures = Figures::default();
    let row = show::find(client, &request.name, &mut figures).await?;
    if !request.yes {
        if !std::io::stdin().is_terminal() {
            let error = "this needs confirmation, and there is no terminal to ask on; add --yes to skip it";
            return Err(Failure::Unconfirmed(error.into()));
        }
        // Rates need two readings.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let row = show::find(client, &request.name, &mut figures).await.unwrap_or(row);
        let mut instances = client.source.instances().await.unwrap_or_default();
        // This command is an instance, too.
        instances.alive = instances.alive.saturating_sub(1);
        confirm(action, &row, &order, BlastRadius::of(&row, &instances))?;
    }
    client.source.obey(&request.name, &order).await.map_err(failure)?;
    let (name, state) = (text::plain(&request.name), action.leads_to());
    if json {
        let answer =
            serde_json::json!({ "breaker": request.name, "action": action.as_str(), "state": state });
        println!("{answer}");
    } else {
        let span = order.expires_in.map(|span| format!(" for {}", humantime::format_duration(span)));
        println!("{name} is {state}{}", span.unwrap_or_default());
    }
    Ok(())
}

/// Shows what the order would do, and asks for confirmation.
fn confirm(action: Action, row: &Row, order: &Order, radius: BlastRadius) -> Result<(), Failure> {
    let effect = match action {
        Action::Open => "all calls will be rejected",
        Action::Disable => "all calls will be made, and nothing counted",
        Action::MetricsOnly => "all calls will be made and counted, and none rejected",
        Action::Release => "the manual override will end",
        Action::Reset => "the circuit will close, and its counts restart at zero",
    };
    let until = match order.expires_in {
        Some(span) => format!(", for {}", humantime::format_duration(span)),
        None if action.takes_an_expiry() => ", until someone releases it".into(),
        None => String::new(),
    };
    eprint!(
        "\"{}\" is {}. {}: {effect}{until}. This concerns {radius}. Go on? [y/N] ",
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
