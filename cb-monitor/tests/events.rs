//! Server-sent events: in order, resumable, bounded; and what a reader costs.

mod common;

use std::time::{Duration, Instant};

use cb_runtime::{BreakerConfig, Registry};
use cb_testkit::{PATIENCE, RedisServer};
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
    let process = seen.id.split('/').next().unwrap();
    let not_sent_yet = format!("{process}/{}/", u64::MAX);
    for unknown in ["another-process/7", &not_sent_yet, "garbage", "-1", ""] {
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
    let since = detail["last_state_change"].as_f64().unwrap();
    assert!((since - at).abs() < 0.5, "both are the store's time: {since} and {at}");
    assert_eq!(fleet.get("/history?limit=5").await.json()[0]["breaker"], "payments");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incarnation_with_control_characters_does_not_end_a_stream() {
    let redis = RedisServer::start();
    let incarnation = "a\r\n\0b";
    let place = ["number", "0", "last_id", "0-0", "touched_at", "0"];
    redis.cli(&[&["HSET", "cb1:{tests}:meta", "incarnation", incarnation], &place[..]].concat());
    let application = common::registry(&redis);
    let address = common::serve(cb_monitor::Monitor::new(common::registry(&redis))).await;
    let fleet = Fleet { redis, application, address, http: reqwest::Client::new() };
    let mut stream = Stream::open(&fleet, "", None).await;
    fleet.trip("first").await;
    let (seen, _) = stream.of_kind("transition").await;
    assert!(seen.id.ends_with("/1/"), "its number, and no place: {}", seen.id);
    fleet.trip("second").await;
    let mut resumed = Stream::open(&fleet, "", Some(&seen.id)).await;
    assert_eq!(resumed.of_kind("transition").await.1["breaker"], "second");
    let kept = fleet.redis.cli(&["HGET", "cb1:{tests}:meta", "incarnation"]);
    assert_eq!(kept, incarnation, "the store has not begun another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_and_problems_do_not_push_changes_out_of_the_log() {
    let redis = RedisServer::start();
    let application = common::registry(&redis);
    // As in a service, the monitor receives the application's own events.
    let address = common::serve(cb_monitor::Monitor::new(&application)).await;
    let fleet = Fleet { redis, application, address, http: reqwest::Client::new() };
    fleet.get("/history").await;
    for name in ["payments", "damaged"] {
        fleet.trip(name).await;
    }
    let mut events = fleet.application.subscribe();
    fleet.redis.cli(&["SET", "cb1:{tests}:b:damaged", "x"]);
    let interval = Duration::from_millis(10);
    let checked =
        BreakerConfig::default().health_check_interval(interval).idle_health_check_interval(interval);
    fleet.application.get_or_create("checked", checked.health_check(async || ()));
    let (mut checks, mut problems) = (0, 0);
    while checks < 10 || problems == 0 {
        match tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event").expect("an event") {
            cb_runtime::Event::HealthCheck { .. } => checks += 1,
            cb_runtime::Event::Error(_) => problems += 1,
            _ => {}
        }
    }
    fleet.breaker("payments").reset().await.unwrap();
    // This change comes after the others in the log.
    let closed = |event: &Value| event["breaker"] == "payments" && event["to"] == "closed";
    let is_told = |answer: &common::Answer| answer.json().as_array().unwrap().iter().any(closed);
    let history = fleet.until("/history?limit=60", is_told).await.json();
    let kinds: Vec<_> = history.as_array().unwrap().iter().map(|event| &event["event"]).collect();
    assert!(kinds.iter().all(|kind| *kind == "transition"), "{kinds:?}");
    assert!(kinds.len() >= 3, "{kinds:?}");
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

/// How often Redis has been asked each of these commands.
fn calls(redis: &RedisServer, commands: &[&str]) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let of = |command: &&str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")))?;
        line.split(',').next()?.parse::<u64>().ok()
    };
    commands.iter().filter_map(of).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_one_reading_a_second_and_without_a_reader_there_is_none() {
    let fleet = Fleet::start(|monitor| monitor).await;
    fail(&fleet.breaker("orders"), 1).await;
    let readings = || calls(&fleet.redis, &["hscan"]);
    // No reader has come yet: the monitor has not even looked once.
    fleet.application.fleet().await.unwrap();
    let (before, asked) = (readings(), calls(&fleet.redis, &["hgetall"]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((readings(), calls(&fleet.redis, &["hgetall"])), (before, asked));

    let mut streams = Vec::new();
    for readers in [1, 20] {
        while streams.len() < readers {
            streams.push(Stream::open(&fleet, "?overview=true", None).await);
        }
        let (before, start) = (readings(), Instant::now());
        // Every reader is served, from the same readings.
        for _ in 0..3 {
            for stream in &mut streams {
                stream.of_kind("overview").await;
            }
        }
        // On a busy machine, the overviews above may have been sent before.
        while readings() == before {
            streams[0].of_kind("overview").await;
        }
        let made = readings() - before;
        let most = start.elapsed().as_secs() + 2;
        assert!((1..=most).contains(&made), "{readers} readers: {made} readings in {:?}", start.elapsed());
    }
    drop(streams);
    // The last reading ends, and instances stop telling of their calls ten seconds after it.
    let watched = || fleet.redis.cli(&["EXISTS", "cb1:{tests}:watched"]).trim() == "1";
    cb_testkit::wait_until(PATIENCE, "nobody looks any more", || !watched());
    let before = readings();
    let monitored = fleet.redis.monitor();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let commands = monitored.finish();
    assert_eq!(readings(), before);
    // An instance that has not yet heard of it may tell once more.
    let figures = commands.iter().filter(|command| command.contains(":figures")).count();
    assert!(figures <= 4, "{commands:#?}");
}

/// Calls of ten circuits, of which some fail: an instance as in a service.
async fn load(registry: Registry) {
    let config = BreakerConfig::default().failure_rate_threshold(0.5).minimum_calls(1000);
    let breakers: Vec<_> =
        (0..10).map(|number| registry.get_or_create(&format!("service-{number}"), config.clone())).collect();
    loop {
        for breaker in &breakers {
            let fails = fastrand::f64() < 0.02;
            let _ = breaker.call(async || if fails { Err("down") } else { Ok(()) }).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Commands, and milliseconds of Redis' processor, a second.
async fn cost(redis: &RedisServer) -> (f64, f64) {
    let processor = || -> f64 {
        let of = |field| redis.info("cpu", field).parse::<f64>().unwrap();
        (of("used_cpu_user") + of("used_cpu_sys")) * 1000.0
    };
    let (commands, spent, start) = (redis.commands_processed(), processor(), Instant::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let seconds = start.elapsed().as_secs_f64();
    let commands = u32::try_from(redis.commands_processed() - commands).expect("a few thousand commands");
    (f64::from(commands) / seconds, (processor() - spent) / seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_costs_redis_less_than_an_instance() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let mut loads = tokio::task::JoinSet::new();
    loads.spawn(load(fleet.application.clone()));
    loads.spawn(load(common::registry(&fleet.redis)));
    fleet.until("/stats", |answer| answer.headers["x-total-count"] == "10").await;
    let nobody_looks = || fleet.redis.cli(&["EXISTS", "cb1:{tests}:watched"]).trim() == "0";
    cb_testkit::wait_until(PATIENCE, "nobody looks any more", nobody_looks);
    let (without, without_cpu) = cost(&fleet.redis).await;
    let mut stream = Stream::open(&fleet, "?overview=true", None).await;
    for _ in 0..3 {
        stream.of_kind("overview").await;
    }
    let reading = tokio::spawn(async move {
        loop {
            stream.of_kind("overview").await;
        }
    });
    let (with_reader, with_reader_cpu) = cost(&fleet.redis).await;
    reading.abort();
    cb_testkit::wait_until(PATIENCE, "nobody looks any more", nobody_looks);
    loads.spawn(load(common::registry(&fleet.redis)));
    cost(&fleet.redis).await;
    let (with_instance, with_instance_cpu) = cost(&fleet.redis).await;
    let (reader, instance) = (with_reader - without, with_instance - without);
    eprintln!(
        "Redis without a reader: {without:.0} commands and {without_cpu:.1} ms of processor a second; a reader \
         adds {reader:.0} and {:.1} ms, an instance {instance:.0} and {:.1} ms",
        with_reader_cpu - without_cpu,
        with_instance_cpu - without_cpu,
    );
    // The difference of two measurements of a busy Redis: a reader that costs as much as all of it is seen.
    assert!(
        reader <= instance + without,
        "a reader adds {reader:.0} commands a second, an instance {instance:.0}"
    );
}
