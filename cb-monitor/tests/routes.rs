//! What the routes answer, with a real Redis and a real connection.

mod common;

use std::sync::OnceLock;
use std::time::Duration;

use cb_monitor::Monitor;
use cb_runtime::{Registry, circuit_breaker};
use cb_testkit::RedisServer;
use serde_json::{Value, json};

use common::{Fleet, TOKEN, answer, fail, serve, succeed};

#[tokio::test(flavor = "multi_thread")]
async fn health_is_503_with_the_names_while_any_circuit_is_open() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let healthy = fleet.get("/health").await;
    assert_eq!((healthy.status, healthy.json()), (200, json!({"status": "healthy"})));
    fleet.trip("payments").await;
    fleet.breaker("orders");
    let degraded = fleet.until("/health", |answer| answer.status == 503).await;
    assert_eq!(degraded.json(), json!({"status": "degraded", "open_circuits": ["payments"]}));
    assert_eq!(fleet.get("/live").await.status, 200, "an open circuit is no reason to restart a process");
    fleet.breaker("payments").reset().await.unwrap();
    let healthy = fleet.until("/health", |answer| answer.status == 200).await;
    assert_eq!(healthy.json(), json!({"status": "healthy"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_has_every_breaker_of_the_namespace_worst_first() {
    let fleet = Fleet::start(|monitor| monitor).await;
    succeed(&fleet.breaker("a-well"), 4).await;
    fail(&fleet.breaker("b-failing"), 2).await;
    fleet.trip("c-open").await;
    let settled = |answer: &common::Answer| {
        let rows = answer.json();
        rows.as_array().is_some_and(|rows| rows.len() == 3)
            && rows[0]["name"] == "c-open"
            && rows[1]["failure_count"] == 2
            && rows[2]["success_count"] == 4
    };
    let answer = fleet.until("/stats", settled).await;
    assert_eq!(answer.headers["x-total-count"], "3");
    let rows = answer.json();
    assert_eq!(
        (&rows[0]["state"], &rows[0]["reason"]),
        (&json!("open"), &json!("3 consecutive failures (limit 3)"))
    );
    let retry_after = rows[0]["retry_after"].as_f64().unwrap();
    assert!((0.0..=30.0).contains(&retry_after), "{retry_after}");
    for field in ["last_failure_time", "last_state_change", "failure_count", "success_count", "epoch"] {
        assert!(rows[0].get(field).is_some(), "{field} in {rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_has_a_breaker_that_has_not_been_called() {
    let fleet = Fleet::start(|monitor| monitor).await;
    fleet.breaker("orders");
    let rows = fleet.until("/stats", |answer| answer.json() != json!([])).await.json();
    let never = (&rows[0]["last_failure_time"], &rows[0]["last_state_change"]);
    assert_eq!((&rows[0]["name"], &rows[0]["state"]), (&json!("orders"), &json!("closed")));
    assert_eq!(never, (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_are_filtered_searched_sorted_and_paged() {
    let fleet = Fleet::start(|monitor| monitor).await;
    for tenant in 0..12 {
        fail(&fleet.breaker(&format!("Tenant-{tenant:02}")), 1).await;
    }
    fleet.trip("orders").await;
    fleet.until("/stats", |answer| answer.headers["x-total-count"] == "13").await;
    let names = async |query: &str| {
        let answer = fleet.get(&format!("/stats?{query}")).await;
        let rows = answer.json();
        let names = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), answer.headers["x-total-count"].to_str().unwrap().to_owned())
    };
    assert_eq!(names("state=open,half-open").await, (vec!["orders".into()], "1".into()));
    assert_eq!(names("search=TENANT-1").await.0, ["Tenant-10", "Tenant-11"]);
    let page = names("sort=name&offset=2&limit=2").await;
    assert_eq!(page, (vec!["Tenant-02".into(), "Tenant-03".into()], "13".into()));
    assert_eq!(names("search=nothing+like+it").await, (vec![], "0".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_invalid_is_answered_with_what_would_be_valid() {
    let fleet = Fleet::start(|monitor| monitor).await;
    for (query, advice) in [
        ("state=ajar", "there are closed, open, half-open"),
        ("sort=best", "sort must be one of worst, name"),
        ("limit=0", "limit must be from 1 to 10000"),
        ("limit=many", "there are state, search, sort, offset"),
        ("page=2", "there are state, search, sort, offset"),
    ] {
        let answer = fleet.get(&format!("/stats?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.error().contains(advice), "{query}: {}", answer.error());
    }
    let lost = fleet.get("/nowhere/at/all").await;
    assert_eq!(lost.status, 404);
    assert!(lost.error().contains("there are health, live, stats"), "{}", lost.error());
    let posted = answer(fleet.http.post(fleet.url("/stats"))).await;
    assert_eq!(posted.status, 405);
    assert!(posted.error().contains("read by GET"), "{}", posted.error());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_carried_out_and_recorded_with_its_actor_and_reason() {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN)).await;
    fail(&fleet.breaker("orders"), 1).await;
    fleet.until("/stats", |answer| answer.headers["x-total-count"] == "1").await;
    let order = json!({"reason": "migration", "actor": "alice", "for": "30m"});
    let answer = fleet.post("/breakers/orders/open", &order).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json(), json!({"breaker": "orders", "action": "open", "state": "forced-open"}));
    let row = &fleet.get("/stats").await.json()[0];
    assert_eq!(
        (&row["state"], &row["reason"], &row["actor"]),
        (&json!("forced-open"), &json!("migration"), &json!("alice"))
    );
    let expiry = row["retry_after"].as_f64().unwrap();
    assert!((1700.0..=1800.0).contains(&expiry), "{expiry}");
    let detail =
        fleet.until("/breakers/orders", |answer| answer.json()["timeline"][0]["actor"] == "alice").await;
    assert_eq!(detail.json()["timeline"][0]["to"], "forced-open");
    for (action, state) in [
        ("metrics-only", "metrics-only"),
        ("disable", "disabled"),
        ("release", "closed"),
        ("reset", "closed"),
    ] {
        let order = json!({"reason": "a test", "actor": "bob"});
        let answer = fleet.post(&format!("/breakers/orders/{action}"), &order).await;
        assert_eq!(answer.status, 200, "{action}: {}", answer.text);
        fleet.until("/stats", |answer| answer.json()[0]["state"] == state).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_a_circuit_that_is_not_overridden_is_answered_with_its_state() {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN)).await;
    // Another state that a search for the name finds, too.
    fleet.control("all orders").force_open("a test").await.unwrap();
    fleet.trip("orders").await;
    fleet.until("/stats?state=open", |answer| answer.headers["x-total-count"] == "1").await;
    for (action, state) in
        [("release", "open"), ("disable", "disabled"), ("release", "closed"), ("release", "closed")]
    {
        let answer = fleet.post(&format!("/breakers/orders/{action}"), &json!({"reason": "a test"})).await;
        assert_eq!(answer.json(), json!({"breaker": "orders", "action": action, "state": state}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_only_the_store_knows_is_steered_too() {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN)).await;
    let name = "a/b c?d#e\"<é>";
    fail(&fleet.breaker(name), 1).await;
    fleet.until("/stats", |answer| answer.headers["x-total-count"] == "1").await;
    let path = "/breakers/a%2Fb%20c%3Fd%23e%22%3C%C3%A9%3E";
    let answer = fleet.post(&format!("{path}/open"), &json!({"reason": "hostile name"})).await;
    assert_eq!(answer.json()["breaker"], name);
    cb_testkit::wait_until(cb_testkit::PATIENCE, "the application hears of it", || {
        fleet.breaker(name).state() == cb_runtime::State::ForcedOpen
    });
    assert_eq!(fleet.get(path).await.json()["actor"], "cb-monitor", "nobody said who");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_text_for_prometheus() {
    let fleet = Fleet::start(|monitor| monitor).await;
    fleet.trip("pay\"ments\\\n").await;
    let metrics = fleet.until("/metrics", |answer| answer.text.contains("pay")).await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let line = r#"circuit_breaker_fleet_state{breaker="pay\"ments\\\n",state="open"} 1"#;
    assert!(metrics.text.lines().any(|found| found == line), "{}", metrics.text);
    assert!(metrics.text.contains("circuit_breaker_fleet_breakers{state=\"open\"} 1\n"), "{}", metrics.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_where_the_prefix_and_the_nesting_put_them() {
    let redis = RedisServer::start();
    let registry = common::registry(&redis);
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let get = async |address: &str, path: &str| answer(http.get(format!("http://{address}{path}"))).await;
    let address = serve(Monitor::new(&registry).prefix("/ops/breakers/")).await;
    assert_eq!(get(&address, "/ops/breakers/live").await.status, 200);
    let redirect = get(&address, "/ops/breakers").await;
    assert_eq!((redirect.status, redirect.headers["location"].to_str().unwrap()), (308, "breakers/"));
    assert!(
        get(&address, "/ops/breakers/").await.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    let address = serve(Monitor::new(&registry).prefix("")).await;
    assert_eq!(get(&address, "/live").await.status, 200);
    assert_eq!(get(&address, "/").await.status, 200);
    let nested = axum::Router::new().nest("/admin", Monitor::new(&registry).into_router());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, nested).await });
    assert_eq!(get(&address, "/admin/circuits/health").await.status, 200);
    assert_eq!(get(&address, "/admin/circuits").await.headers["location"], "circuits/");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_the_last_figures_are_marked_and_this_process_still_says_what_it_knows() {
    let redis = RedisServer::start();
    let registry = common::registry(&redis);
    let fleet = Fleet {
        address: serve(Monitor::new(&registry).token(TOKEN)).await,
        redis,
        application: registry,
        http: reqwest::Client::new(),
    };
    fail(&fleet.breaker("orders"), 1).await;
    fleet.until("/stats", |answer| answer.headers["x-total-count"] == "1").await;
    fleet.redis.stop();
    let lost = fleet.until("/overview", |answer| answer.json()["store"]["up"] == false).await.json();
    assert!(lost["as_of"].as_f64() < lost["now"].as_f64());
    assert!(lost["store"]["problem"].as_str().is_some_and(|problem| !problem.is_empty()));
    for path in ["/stats", "/breakers/orders"] {
        assert!(fleet.get(path).await.headers.contains_key("x-store"), "{path}");
    }
    // An empty list would say that there are no instances, and one of before the loss that they are alive.
    for path in ["/instances", "/settings"] {
        let unknown = fleet.get(path).await;
        assert_eq!(unknown.status, 503, "{path}");
        assert!(unknown.error().contains("the instances are unknown"), "{}", unknown.error());
    }
    assert_eq!(fleet.get("/live").await.status, 200);
    // It protects itself, and says so.
    fail(&fleet.breaker("orders"), 3).await;
    let degraded = fleet.until("/health", |answer| answer.status == 503).await.json();
    assert_eq!(degraded["open_circuits"], json!(["orders"]));
    assert!(degraded["store"].is_string());
    assert_eq!(fleet.get("/stats").await.json()[0]["local"], true);
    let refused = fleet.post("/breakers/orders/open", &json!({"reason": "now"})).await;
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("nothing was changed"), "{}", refused.error());
    fleet.redis.restart();
    fleet.until("/overview", |answer| answer.json()["store"]["up"] == true).await;
}

static APPLICATION: OnceLock<Registry> = OnceLock::new();

#[circuit_breaker(
    name = "payments",
    registry = APPLICATION.get().expect("the test has set it"),
    failure_threshold = 3,
    fallback = |_| Ok(0)
)]
async fn pay(amount: u64) -> Result<u64, &'static str> {
    if amount > 0 { Err("down") } else { Ok(amount) }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_a_fallback_answers_are_told_per_second() {
    let fleet = Fleet::start(|monitor| monitor).await;
    APPLICATION.set(fleet.application.clone()).expect("it is set once");
    let calls = tokio::spawn(async {
        loop {
            assert_eq!(pay(7).await, Ok(0));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let is_told = |rates: &Value| rates["fallback"].as_f64().is_some_and(|rate| rate > 0.0);
    fleet.until("/stats", |answer| is_told(&answer.json()[0]["per_second"])).await;
    fleet.until("/overview", |answer| is_told(&answer.json()["per_second"])).await;
    calls.abort();
}
