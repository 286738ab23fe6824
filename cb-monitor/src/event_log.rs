//! The latest events with numbers, from which a reader can continue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use cb_runtime::{Cursor, Event, Transition};
use serde_json::{Value, json};

use crate::figures::seconds;

/// Older events are dropped.
const CAPACITY: usize = 1000;

/// One event as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) number: u64,
    pub(crate) kind: &'static str,
    pub(crate) data: Arc<Value>,
    /// The place in the fleet's history of the latest transition up to this event.
    place: Option<Cursor>,
}

/// The latest events.
pub(crate) struct EventLog {
    /// Distinguishes the numbers of processes.
    origin: String,
    events: VecDeque<Logged>,
    next: u64,
}

/// Where a reader continues.
pub(crate) enum Resumption {
    /// The events from this number on.
    From(u64),
    /// Events are missing before this number.
    Gap(u64),
}

impl EventLog {
    pub(crate) fn new(origin: String) -> EventLog {
        EventLog { origin, events: VecDeque::new(), next: 1 }
    }

    /// Adds an event; `place` is a transition's in the fleet's history.
    pub(crate) fn push(&mut self, kind: &'static str, data: Value, place: Option<Cursor>) {
        if place.is_some() && self.events.iter().any(|event| event.kind == kind && event.place == place) {
            // The history already contained it.
            return;
        }
        if self.events.len() == CAPACITY {
            self.events.pop_front();
        }
        let place = place.or_else(|| self.events.back().and_then(|event| event.place.clone()));
        self.events.push_back(Logged { number: self.next, kind, data: Arc::new(data), place });
        self.next += 1;
    }

    /// The number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.events.front().map_or(self.next, |event| event.number)
    }

    /// The event's id for `Last-Event-ID`: its number in this process, and its place in the fleet's history,
    /// which other processes know, too. A place that they could not read is left out: Redis may hold
    /// anything, and an id with control characters would panic.
    pub(crate) fn id(&self, number: u64) -> String {
        let place = self.get(number).and_then(|event| event.place.as_ref());
        let place = place.map(Cursor::to_string).filter(|place| place.parse::<Cursor>().is_ok());
        let place = place.unwrap_or_default();
        format!("{}/{number}/{place}", self.origin)
    }

    /// Where a reader continues after the event of this id.
    pub(crate) fn resume(&self, id: &str) -> Resumption {
        let mut parts = id.splitn(3, '/');
        let (origin, number) =
            (parts.next().unwrap_or_default(), parts.next().and_then(|number| number.parse::<u64>().ok()));
        if origin == self.origin {
            return match number {
                Some(number) if number < self.next && number + 1 >= self.oldest() => {
                    Resumption::From(number + 1)
                }
                _ => Resumption::Gap(self.oldest()),
            };
        }
        let place: Option<Cursor> = parts.next().and_then(|place| place.parse().ok());
        let seen = self.events.iter().rev().find(|event| place.is_some() && event.place == place);
        seen.map_or(Resumption::Gap(self.oldest()), |event| Resumption::From(event.number + 1))
    }

    fn get(&self, number: u64) -> Option<&Logged> {
        self.events.get(usize::try_from(number.checked_sub(self.oldest())?).ok()?)
    }

    /// The latest events, latest first.
    pub(crate) fn latest(&self, limit: usize) -> Vec<Arc<Value>> {
        self.events.iter().rev().take(limit).map(|event| event.data.clone()).collect()
    }

    /// Up to `limit` events from this number on.
    pub(crate) fn since(&self, number: u64, limit: usize) -> Vec<Logged> {
        let start = self.events.partition_point(|event| event.number < number);
        self.events.iter().skip(start).take(limit).cloned().collect()
    }

    /// The latest events of one breaker, latest first.
    pub(crate) fn of_breaker(&self, name: &str, limit: usize) -> Vec<Arc<Value>> {
        let of_it = |event: &&Logged| event.data.get("breaker").is_some_and(|breaker| breaker == name);
        self.events.iter().rev().filter(of_it).take(limit).map(|event| event.data.clone()).collect()
    }
}

/// An event's name and its fields; `None` for events that are too frequent to send.
pub(crate) fn describe(event: &Event, at: SystemTime) -> Option<(&'static str, Value)> {
    let at = seconds(at);
    Some(match event {
        Event::Transition(change) => ("transition", transition("transition", change)),
        Event::LocalTransition(change) => ("local-transition", transition("local-transition", change)),
        Event::WouldHaveOpened { breaker, reason } => (
            "would-have-opened",
            json!({ "event": "would-have-opened", "at": at, "breaker": breaker, "reason": reason }),
        ),
        Event::HealthCheck { breaker, result, took } => (
            "health-check",
            json!({
                "event": "health-check", "at": at, "breaker": breaker, "passed": result.is_ok(),
                "error": result.as_ref().err(), "took": took.as_secs_f64(),
            }),
        ),
        Event::StoreLost(error) => {
            ("store-lost", json!({ "event": "store-lost", "at": at, "error": error.to_string() }))
        }
        Event::StoreRestored => ("store-restored", json!({ "event": "store-restored", "at": at })),
        Event::Error(error) => {
            ("problem", json!({ "event": "problem", "at": at, "error": error.to_string() }))
        }
        _ => return None,
    })
}

pub(crate) fn transition(kind: &str, change: &Transition) -> Value {
    json!({
        "event": kind,
        "at": seconds(change.at),
        "breaker": change.breaker,
        "epoch": change.epoch,
        "from": change.from,
        "to": change.to,
        "reason": change.reason,
        "actor": change.actor,
        "originator": change.originator,
        "failures": change.failures,
        "successes": change.successes,
        "open_for": change.open_for.map(|span| span.as_secs_f64()),
    })
}
