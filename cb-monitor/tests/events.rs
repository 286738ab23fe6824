//! Server-sent events: in order, resumable, bounded; and what a reader costs.

mod common;

use std::time::Duration;

use cb_testkit::PATIENCE;
use serde_json::Value;

use common::{Fleet, fail};

/// One event of a stream.
#[derive(Debug, Default)]
struct Event {
    id: String,
    kind: String,
    data: String,
}

/// A reader of a stream.
struct Stream {
    response: reqwest::Response,
    buffer: String,
}

impl Stream {
    async fn open(fleet: &Fleet, query: &str, last_id: Option<&str>) -> Stream {
        let mut request = fleet.http.get(fleet.url(&format!("/events{query}")));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream { response, buffer: String::new() }
    }

    async fn next(&mut self) -> Event {
        let read = async {
            loop {
                if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.buffer = rest;
                    return event;
                }
                let chunk = self.response.chunk().await.unwrap().expect("the stream goes on");
                self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        let text = tokio::time::timeout(PATIENCE, read).await.expect("an event");
        let mut event = Event::default();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => event.id = id.into(),
                Some(("event", kind)) => event.kind = kind.into(),
                Some(("data", data)) => event.data = data.into(),
                _ => {}
            }
        }
        event
    }

    async fn of_kind(&mut self, kind: &str) -> (Event, Value) {
        loop {
            let event = self.next().await;
            if event.kind == kind {
                let data = serde_json::from_str(&event.data).unwrap();
                return (event, data);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_another_process_arrive_as_events() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let mut stream = Stream::open(&fleet, "", None).await;
    assert_eq!(stream.next().await.kind, "hello");
    fleet.trip("orders\n<b>").await;
    let (_, change) = stream.of_kind("transition").await;
    assert_eq!(change["breaker"], "orders\n<b>");
    assert_eq!((&change["from"], &change["to"]), (&"closed".into(), &"open".into()));
    assert_eq!(change["originator"], fleet.application.instance());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_behind_the_last_event_that_was_seen() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let mut stream = Stream::open(&fleet, "", None).await;
    fleet.trip("first").await;
    let (seen, _) = stream.of_kind("transition").await;
    drop(stream);
    fleet.trip("second").await;
    fleet.trip("third").await;
    let mut resumed = Stream::open(&fleet, "", Some(&seen.id)).await;
    for name in ["second", "third"] {
        assert_eq!(resumed.of_kind("transition").await.1["breaker"], name);
    }
    for unknown in ["another-process/7", "garbage", "-1", ""] {
        let mut stream = Stream::open(&fleet, "", Some(unknown)).await;
        assert_eq!(stream.next().await.kind, "gap", "{unknown}");
        assert_eq!(stream.of_kind("transition").await.1["breaker"], "first", "all that is still kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_at_another_monitor_of_the_fleet() {
    let mut fleet = Fleet::start(|monitor| monitor).await;
    let mut stream = Stream::open(&fleet, "", None).await;
    fleet.trip("first").await;
    let (seen, _) = stream.of_kind("transition").await;
    drop(stream);
    fleet.trip("second").await;
    // As after a deploy: the new process knows the history from the store only.
    fleet.address = common::serve(cb_monitor::Monitor::new(common::registry(&fleet.redis))).await;
    let mut resumed = Stream::open(&fleet, "", Some(&seen.id)).await;
    assert_eq!(resumed.of_kind("transition").await.1["breaker"], "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_before_the_first_reader_came_is_told() {
    let fleet = Fleet::start(|monitor| monitor).await;
    fleet.trip("payments").await;
    let told = |answer: &common::Answer| answer.json()["timeline"][0]["to"] == "open";
    let detail = fleet.until("/breakers/payments", told).await.json();
    let at = detail["timeline"][0]["at"].as_f64().unwrap();
    assert_eq!(detail["last_state_change"], at, "the store's time, not the one at which it was read");
    assert_eq!(fleet.get("/history?limit=5").await.json()[0]["breaker"], "payments");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_is_sent_every_second_to_those_who_ask() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let mut stream = Stream::open(&fleet, "?overview=true", None).await;
    let (_, first) = stream.of_kind("overview").await;
    assert_eq!((&first["total"], &first["store"]["up"]), (&0.into(), &true.into()));
    fleet.trip("orders").await;
    loop {
        let (_, overview) = stream.of_kind("overview").await;
        if overview["states"]["open"] == 1 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Stream::open(&fleet, "", None).await);
    }
    let refused = fleet.get("/events").await;
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("64 streams are open already"), "{}", refused.error());
    drop(streams);
    let start = std::time::Instant::now();
    loop {
        let response = fleet.http.get(fleet.url("/events")).send().await.unwrap();
        if response.status() == 200 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "closed streams give their places back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_readers_cost_redis_no_more_than_one_and_nobody_costs_nothing() {
    let fleet = Fleet::start(|monitor| monitor).await;
    fail(&fleet.breaker("orders"), 1).await;
    fleet.until("/stats", |answer| answer.headers["x-total-count"] == "1").await;
    // Commands in three seconds, the application's own among them.
    let commands = async || {
        let before = fleet.redis.commands_processed();
        tokio::time::sleep(Duration::from_secs(3)).await;
        fleet.redis.commands_processed() - before
    };
    // The exchanges after the failure have ended.
    let mut idle = commands().await;
    while idle > 20 {
        idle = commands().await;
    }
    let mut streams = vec![Stream::open(&fleet, "?overview=true", None).await];
    let one = commands().await;
    for _ in 1..20 {
        streams.push(Stream::open(&fleet, "?overview=true", None).await);
    }
    let twenty = commands().await;
    assert!(one <= idle + 3 * 12, "one reader: {one} commands, without one: {idle}");
    assert!(twenty <= one + 15, "twenty readers: {twenty} commands, one: {one}");
    drop(streams);
    let mut after = commands().await;
    for _ in 0..5 {
        if after <= idle + 3 {
            break;
        }
        after = commands().await;
    }
    assert!(after <= idle + 3, "after all are gone: {after} commands, before: {idle}");
}
