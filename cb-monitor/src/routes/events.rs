//! Events as they happen: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::Context;
use crate::event_log::Resumption;
use crate::hub::{Hub, MAX_STREAMS};
use crate::problem::Problem;
use crate::sync::lock;

/// The interval of the overview, if it is requested.
const EVERY: Duration = Duration::from_secs(1);
/// The number of events that are prepared at a time.
const CHUNK: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// The overview, once a second: the page's header.
    #[serde(default)]
    overview: bool,
    /// For readers that cannot set the header `Last-Event-ID`.
    last_event_id: Option<String>,
}

pub(super) async fn events(
    State(Context { hub, .. }): State<Context>,
    asked: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let Query(asked) = asked.map_err(|rejection| {
        Problem::bad_request(format!("{}; there are overview and last_event_id", rejection.body_text()))
    })?;
    let permit = hub.streams.clone().try_acquire_owned().map_err(|_| {
        let error = format!("{MAX_STREAMS} streams are open already; close one, or read stats in its place");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error).retry_after(5)
    })?;
    let last_id = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last_id = last_id.map(str::to_owned).or(asked.last_event_id);
    let news = hub.news().await;
    let reader = Reader::new(hub, news, permit, last_id.as_deref(), asked.overview);
    let stream = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    // Prevents proxies from buffering events.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    limit: Option<usize>,
}

/// The latest events, latest first.
pub(super) async fn history(
    State(Context { hub, .. }): State<Context>,
    asked: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<Vec<Arc<Value>>>, Problem> {
    let Query(asked) = asked
        .map_err(|rejection| Problem::bad_request(format!("{}; there is limit", rejection.body_text())))?;
    hub.news().await;
    Ok(Json(lock(&hub.log).latest(asked.limit.unwrap_or(100))))
}

/// One open stream.
struct Reader {
    hub: Arc<Hub>,
    news: watch::Receiver<u64>,
    ready: std::collections::VecDeque<Event>,
    /// The number of the next event to be sent.
    next: u64,
    overview: Option<Interval>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    fn new(
        hub: Arc<Hub>,
        news: watch::Receiver<u64>,
        permit: OwnedSemaphorePermit,
        last_id: Option<&str>,
        overview: bool,
    ) -> Reader {
        let mut ready = std::collections::VecDeque::new();
        let next = {
            let log = lock(&hub.log);
            match last_id.map(|id| log.resume(id)) {
                Some(Resumption::From(next)) => next,
                Some(Resumption::Gap(next)) => {
                    ready.push_back(gap(
                        "events before this one are no longer kept; read stats for what holds now",
                    ));
                    next
                }
                None => log.next(),
            }
        };
        // Sent at once, so that the reader knows its position and that it is connected.
        ready.push_back(Event::default().id(lock(&hub.log).id(next - 1)).event("hello").data("{}"));
        let overview = overview.then(|| {
            let mut interval = tokio::time::interval(EVERY);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Reader { hub, news, ready, next, overview, _permit: permit }
    }

    /// `None` once the registry is gone.
    async fn next(&mut self) -> Option<Event> {
        loop {
            self.collect();
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let tick = async {
                match &mut self.overview {
                    Some(interval) => drop(interval.tick().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = tick => {
                    self.hub.refresh().await;
                    let overview = json!(self.hub.overview()).to_string();
                    self.ready.push_back(Event::default().event("overview").data(overview));
                }
            }
        }
    }

    fn collect(&mut self) {
        if !self.ready.is_empty() {
            return;
        }
        self.news.borrow_and_update();
        let log = lock(&self.hub.log);
        if self.next < log.oldest() {
            self.ready.push_back(gap(
                "this reader was too slow: events were dropped; read stats for what holds now",
            ));
            self.next = log.oldest();
        }
        for event in log.since(self.next, CHUNK) {
            let id = log.id(event.number);
            // JSON has no bare line breaks, so nothing in a name or a reason can end the event's field.
            self.ready.push_back(Event::default().id(id).event(event.kind).data(event.data.to_string()));
            self.next = event.number + 1;
        }
    }
}

fn gap(message: &str) -> Event {
    Event::default().event("gap").data(json!({ "event": "gap", "message": message }).to_string())
}
