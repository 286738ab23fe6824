//! One breaker with all its details.

use std::time::Instant;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::Context;
use super::stats::freshness;
use crate::blast_radius::BlastRadius;
use crate::hub::Hub;
use crate::problem::Problem;
use crate::sync::lock;

/// The number of transitions in a breaker's timeline.
const TIMELINE: usize = 50;

pub(super) async fn breaker(
    State(Context { hub, access }): State<Context>,
    path: Result<Path<String>, PathRejection>,
) -> Result<(HeaderMap, Json<Value>), Problem> {
    let Path(name) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    hub.refresh().await;
    let row = lock(&hub.figures).row(&name, Instant::now());
    let row = row.ok_or_else(|| unknown(&hub, &name))?;
    let timeline = lock(&hub.log).of_breaker(&name, TIMELINE);
    let instances = hub.instances().unwrap_or_default();
    let mut answer = json!(row);
    answer["timeline"] = json!(timeline);
    answer["can_act"] = json!(!access.is_read_only());
    answer["instances"] = json!(instances.settings.of(&name));
    answer["concerns"] = json!(BlastRadius::of(&row, &instances));
    // Known only if the breaker is registered in this process.
    answer["here"] = json!(hub.source.snapshot(&name));
    Ok((freshness(&hub), Json(answer)))
}

/// The error for a name that the fleet does not know.
pub(super) fn unknown(hub: &Hub, name: &str) -> Problem {
    let figures = lock(&hub.figures);
    let advice = match figures.similar(name) {
        Some(similar) => format!("did you mean \"{similar}\"?"),
        None => format!("look at the names in stats; there are {}", figures.len()),
    };
    let shown: String = name.chars().take(100).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("no breaker of this namespace has the name \"{shown}\": {advice}"),
    )
}
