//! The whole fleet as JSON.

use std::time::{Instant, SystemTime};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use cb_runtime::{InstanceInfo, State as Circuit};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::figures::{Filter, Row, Sort, seconds};
use crate::fleet::Instances;
use crate::hub::{Hub, Overview};
use crate::problem::Problem;
use crate::sync::lock;

/// The default and the largest number of rows in an answer.
const LIMIT: usize = 1000;
const MAX_LIMIT: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatsQuery {
    state: Option<String>,
    search: Option<String>,
    sort: Option<String>,
    offset: Option<usize>,
    limit: Option<usize>,
    trend: Option<bool>,
}

/// The requested rows. `X-Total-Count` has the number of all rows.
pub(super) async fn stats(
    State(Context { hub, .. }): State<Context>,
    asked: Result<Query<StatsQuery>, QueryRejection>,
) -> Result<(HeaderMap, Json<Vec<Row>>), Problem> {
    let Query(asked) = asked.map_err(|rejection| {
        Problem::bad_request(format!(
            "{}; there are state, search, sort, offset, limit and trend",
            rejection.body_text()
        ))
    })?;
    let filter = asked.filter()?;
    hub.refresh().await;
    let (rows, total) = lock(&hub.figures).page(&filter, Instant::now());
    let mut headers = freshness(&hub);
    headers.insert(HeaderName::from_static("x-total-count"), total.into());
    Ok((headers, Json(rows)))
}

/// When the store was read, and why it cannot be read now: figures from before the loss of the store must not
/// look current.
pub(super) fn freshness(hub: &Hub) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut insert = |name, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    insert("x-now", seconds(SystemTime::now()).to_string());
    if let Some(as_of) = lock(&hub.figures).as_of() {
        insert("x-as-of", seconds(as_of).to_string());
    }
    if let Some(problem) = hub.problem() {
        insert("x-store", problem.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect());
    }
    headers
}

/// Counts by state, the fleet's rates, and the status of the store.
pub(super) async fn overview(State(Context { hub, .. }): State<Context>) -> Json<Overview> {
    hub.refresh().await;
    Json(hub.overview())
}

/// The fleet's instances, by their signs of life.
pub(super) async fn instances(
    State(Context { hub, .. }): State<Context>,
) -> Result<Json<Vec<InstanceInfo>>, Problem> {
    hub.refresh().await;
    Ok(Json(known_instances(&hub)?.list))
}

/// The instances, which are unknown while the store does not answer: that is not an empty fleet.
fn known_instances(hub: &Hub) -> Result<Instances, Problem> {
    hub.instances().ok_or_else(|| {
        let reason = hub.problem().unwrap_or_else(|| "it has not answered in time".into());
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "the instances are unknown, because the store is away ({reason}); try again when it is back"
            ),
        )
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsQuery {
    /// Only breakers whose settings differ between instances.
    #[serde(default)]
    drift: bool,
}

/// The settings of each breaker in each instance.
pub(super) async fn settings(
    State(Context { hub, .. }): State<Context>,
    asked: Result<Query<SettingsQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(asked) = asked
        .map_err(|rejection| Problem::bad_request(format!("{}; there is drift", rejection.body_text())))?;
    hub.refresh().await;
    let instances = known_instances(&hub)?;
    let all = instances.settings.all().iter();
    let shown = all.filter(|(_, instances)| !asked.drift || instances.iter().any(|instance| instance.drift));
    Ok(Json(shown.map(|(name, instances)| (name.clone(), json!(instances))).collect()))
}

impl StatsQuery {
    fn filter(self) -> Result<Filter, Problem> {
        let states = self.state.unwrap_or_default();
        let states = states.split(',').map(str::trim).filter(|state| !state.is_empty());
        let states = states.map(|state| {
            state.parse::<Circuit>().map_err(|error| Problem::bad_request(format!("state: {error}")))
        });
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::bad_request(format!(
                "limit must be from 1 to {MAX_LIMIT}; use offset for the rest"
            )));
        }
        let sort = self.sort.as_deref().map_or(Ok(Sort::default()), str::parse);
        Ok(Filter {
            states: states.collect::<Result<_, _>>()?,
            search: self.search.unwrap_or_default(),
            sort: sort.map_err(|problem| Problem::bad_request(format!("sort {problem}")))?,
            offset: self.offset.unwrap_or(0),
            limit,
            with_trend: self.trend.unwrap_or(false),
        })
    }
}
