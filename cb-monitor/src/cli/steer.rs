//! `cbctl open`, `disable`, `metrics-only`, `release`, `reset`.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use cb_runtime::State;

use super::args::ActionOptions;
use super::client::Client;
use super::{Failure, output, show, text};
use crate::action::{Action, ActionRequest, Refusal};
use crate::blast_radius::BlastRadius;
use crate::figures::{Figures, Row};

pub(super) async fn steer(
    client: &Client,
    action: Action,
    options: &ActionOptions,
    json: bool,
) -> Result<(), Failure> {
    let request = ActionRequest::new(action, &options.reason, &options.actor, options.expires_in.as_deref())
        .map_err(failure)?;
    let mut figures = Figures::default();
    let mut row = show::find(client, &options.name, &mut figures).await?;
    if !options.yes {
        if !std::io::stdin().is_terminal() {
            let error = "this needs confirmation, and there is no terminal to ask on; add --yes to skip it";
            return Err(Failure::Unconfirmed(error.into()));
        }
        // Rates need two readings.
        tokio::time::sleep(Duration::from_secs(1)).await;
        row = show::find(client, &options.name, &mut figures).await.unwrap_or(row);
        let mut instances = client.source.instances().await.unwrap_or_default();
        // This command is an instance, too.
        instances.alive = instances.alive.saturating_sub(1);
        confirm(action, &row, &request, BlastRadius::of(&row, &instances))?;
    }
    client.source.perform(&options.name, &request).await.map_err(failure)?;
    let state = match action {
        // It ends an override. A circuit that has none, or that has failed again since, may be open.
        Action::Release => show::find(client, &options.name, &mut figures).await?.state,
        _ => action.leads_to(),
    };
    let name = text::plain(&options.name);
    if json {
        let answer =
            serde_json::json!({ "breaker": options.name, "action": action.as_str(), "state": state });
        output::line(answer)
    } else if action == Action::Release && !row.state.is_manual() {
        let remedy = if state == State::Closed { "" } else { "; `cbctl reset` would close it" };
        output::line(format_args!("{name} is {state}: it had no manual override to release{remedy}"))
    } else {
        let span = request.expires_in.map(|span| format!(" for {}", humantime::format_duration(span)));
        output::line(format_args!("{name} is {state}{}", span.unwrap_or_default()))
    }
}

/// Shows what the action would do, and asks for confirmation.
fn confirm(action: Action, row: &Row, request: &ActionRequest, radius: BlastRadius) -> Result<(), Failure> {
    let effect = match action {
        Action::Open => "all calls will be rejected",
        Action::Disable => "all calls will be made, and nothing counted",
        Action::MetricsOnly => "all calls will be made and counted, and none rejected",
        Action::Release if row.state.is_manual() => "the manual override will end",
        Action::Release => "nothing will change, as there is no manual override",
        Action::Reset => "the circuit will close, and its counts restart at zero",
    };
    let until = match request.expires_in {
        Some(span) => format!(", for {}", humantime::format_duration(span)),
        None if action.takes_an_expiry() => ", until someone releases it".into(),
        None => String::new(),
    };
    write!(
        std::io::stderr(),
        "\"{}\" is {}. {}: {effect}{until}. This concerns {radius}. Go on? [y/N] ",
        text::plain(&row.name),
        row.state,
        action.as_str()
    )
    .map_err(|error| Failure::Unconfirmed(error.to_string()))?;
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
