//! Who may do what; and that a bad request leaves nothing half-done.

mod common;

use cb_runtime::State;
use serde_json::json;

use common::{Fleet, TOKEN, answer, fail};

/// A monitor with a token, and a breaker that the fleet knows.
async fn steerable() -> Fleet {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN)).await;
    fail(&fleet.breaker("orders"), 1).await;
    fleet.until("/stats", |answer| answer.headers["x-total-count"] == "1").await;
    fleet
}

async fn nothing_has_changed(fleet: &Fleet) {
    let row = &fleet.get("/stats").await.json()[0];
    assert_eq!((&row["state"], &row["epoch"]), (&json!("closed"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_of_its_own_a_monitor_is_read_only() {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN).read_only()).await;
    fail(&fleet.breaker("orders"), 1).await;
    let refused = fleet.post("/breakers/orders/open", &json!({"reason": "why not"})).await;
    assert_eq!(refused.status, 403);
    assert!(refused.error().contains("read-only; start it with a token"), "{}", refused.error());
    fleet.until("/breakers/orders", |answer| answer.status == 200 && answer.json()["can_act"] == false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_401_and_many_of_them_are_429_but_the_right_one_still_acts() {
    let fleet = steerable().await;
    let url = fleet.url("/breakers/orders/open");
    let order = json!({"reason": "guessing"});
    let none = answer(fleet.http.post(&url).json(&order)).await;
    assert_eq!(
        (none.status, none.headers["www-authenticate"].to_str().unwrap()),
        (401, "Bearer realm=\"circuits\"")
    );
    assert!(none.error().contains("Authorization: Bearer <token>"), "{}", none.error());
    let basic = answer(fleet.http.post(&url).basic_auth("alice", Some(TOKEN)).json(&order)).await;
    assert_eq!(basic.status, 401);
    let guess = || answer(fleet.http.post(&url).bearer_auth("another token").json(&order));
    let first = guess().await;
    assert_eq!(first.status, 401);
    assert!(first.error().contains("the token is wrong"), "{}", first.error());
    let mut limited = guess().await;
    for _ in 0..50 {
        limited = guess().await;
        if limited.status == 429 {
            break;
        }
    }
    assert_eq!(limited.status, 429);
    assert!(limited.headers.contains_key("retry-after"));
    nothing_has_changed(&fleet).await;
    assert_eq!(fleet.post("/breakers/orders/open", &order).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_cannot_act_even_with_the_token() {
    let fleet = steerable().await;
    let url = fleet.url("/breakers/orders/open");
    let order = || fleet.http.post(&url).bearer_auth(TOKEN).json(&json!({"reason": "cross-site"}));
    for request in [
        order().header("origin", "https://evil.example"),
        order().header("origin", "null"),
        order().header("sec-fetch-site", "cross-site"),
        order().header("sec-fetch-site", "same-site"),
    ] {
        let refused = answer(request).await;
        assert_eq!(refused.status, 403);
        assert!(refused.error().contains("another origin"), "{}", refused.error());
    }
    // What a form can send, had it the token.
    let form = fleet.http.post(&url).bearer_auth(TOKEN).header("content-type", "text/plain");
    assert_eq!(answer(form.body(r#"{"reason": "form"}"#)).await.status, 415);
    // No other origin may read an answer, either.
    let preflight =
        fleet.http.request(reqwest::Method::OPTIONS, &url).header("origin", "https://evil.example");
    assert!(!answer(preflight).await.headers.contains_key("access-control-allow-origin"));
    nothing_has_changed(&fleet).await;
    let own =
        order().header("origin", format!("http://{}", fleet.address)).header("sec-fetch-site", "same-origin");
    assert_eq!(answer(own).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_invalid_is_refused_with_what_would_be_valid() {
    let fleet = steerable().await;
    let long = "x".repeat(201);
    for (action, order, status, advice) in [
        ("open", json!({}), 422, "\"reason\" is missing"),
        ("open", json!({"reason": "  "}), 422, "\"reason\" is missing"),
        ("open", json!({"reason": long}), 422, "at most 200"),
        ("open", json!({"reason": "two\nlines"}), 422, "in one line"),
        ("open", json!({"reason": "r", "actor": long}), 422, "\"actor\" has 201 bytes"),
        ("open", json!({"reason": "r", "for": "soon"}), 422, "such as \"30m\""),
        ("open", json!({"reason": "r", "for": "10ms"}), 422, "at least 1s"),
        ("release", json!({"reason": "r", "for": "1h"}), 422, "only open, disable and metrics-only"),
        ("open", json!({"reason": 7}), 400, "the body must be like"),
        ("open", json!({"reason": "r", "until": "1h"}), 400, "unknown field `until`"),
        ("open", json!({"reason": "x".repeat(5000)}), 413, "larger than 4096 bytes"),
        ("explode", json!({"reason": "r"}), 404, "there are open, disable, metrics-only, release, reset"),
    ] {
        let refused = fleet.post(&format!("/breakers/orders/{action}"), &order).await;
        assert_eq!(refused.status, status, "{action} {order}: {}", refused.text);
        assert!(refused.error().contains(advice), "{action} {order}: {}", refused.error());
    }
    nothing_has_changed(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_breaker_is_404_with_the_name_that_was_probably_wanted() {
    let fleet = steerable().await;
    let refused = fleet.post("/breakers/Order/open", &json!({"reason": "typo"})).await;
    assert_eq!(refused.status, 404);
    assert!(refused.error().contains("did you mean \"orders\"?"), "{}", refused.error());
    assert_eq!(fleet.get("/breakers/xyz").await.status, 404);
    assert_eq!(fleet.get("/stats").await.headers["x-total-count"], "1", "no breaker was made by asking");
    let not_utf8 = fleet.get("/breakers/%ff").await;
    assert_eq!(not_utf8.status, 400);
    assert!(!not_utf8.error().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_limited_in_rate() {
    let fleet = steerable().await;
    let order = json!({"reason": "a loop"});
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(fleet.post("/breakers/orders/release", &order).await.status);
        if statuses.last() == Some(&429) {
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert!(statuses.len() > 15, "a person's pace is not limited: {statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_reading_needs_a_token_only_the_empty_page_and_live_are_open() {
    let reader = "a token to read by";
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN).read_token(reader)).await;
    for path in ["/health", "/stats", "/overview", "/metrics", "/events", "/breakers/orders"] {
        assert_eq!(fleet.get(path).await.status, 401, "{path}");
    }
    for path in ["/", "/page.js", "/page.css", "/live"] {
        assert_eq!(fleet.get(path).await.status, 200, "{path}");
    }
    for token in [reader, TOKEN] {
        assert_eq!(answer(fleet.http.get(fleet.url("/stats")).bearer_auth(token)).await.status, 200);
    }
    let url = fleet.url("/breakers/orders/open");
    let refused = answer(fleet.http.post(url).bearer_auth(reader).json(&json!({"reason": "r"}))).await;
    assert_eq!(refused.status, 403);
    assert!(refused.error().contains("may read, but not act"), "{}", refused.error());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_the_token_do_not_lock_readers_out() {
    let reader = "a token to read by";
    let fleet = Fleet::start(|monitor| monitor.read_token(reader)).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (http, url) = (fleet.http.clone(), fleet.url("/stats"));
        clients.spawn(async move {
            for _ in 0..100 {
                assert_eq!(answer(http.get(&url)).await.status, 401, "so that the page asks for the token");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
        assert_eq!(answer(fleet.http.get(fleet.url("/metrics")).bearer_auth(reader)).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_a_file_with_a_line_feed_is_accepted_without_it() {
    let reader = "a token to read by";
    let line = |token| format!(" {token}\r\n");
    let fleet = Fleet::start(|monitor| monitor.token(line(TOKEN)).read_token(line(reader))).await;
    for token in [reader, TOKEN] {
        assert_eq!(answer(fleet.http.get(fleet.url("/stats")).bearer_auth(token)).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_framing_sniffing_and_foreign_content() {
    let fleet = Fleet::start(|monitor| monitor).await;
    for path in ["/", "/page.js", "/page.css", "/stats", "/metrics", "/nowhere"] {
        let headers = fleet.get(path).await.headers;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
    }
    let page = fleet.get("/").await;
    assert!(!page.text.contains("<style") && !page.text.contains("style=") && !page.text.contains("onclick"));
}

/// Redis carries out afterwards what it has received while it was frozen. Whether it has received this order
/// depends on the connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_store_may_have_received_is_504() {
    let fleet = steerable().await;
    let mut attempts = 0;
    let unconfirmed = loop {
        fleet.redis.freeze();
        let answer = fleet.post("/breakers/orders/open", &json!({"reason": "migration"})).await;
        fleet.redis.thaw();
        if answer.status != 503 {
            break answer;
        }
        // The figures were old enough to be read again, which failed before the order was placed.
        assert!(answer.error().contains("so nothing was changed"), "{}", answer.error());
        attempts += 1;
        assert!(attempts < 20, "no order has reached the store");
        fleet.until("/stats", |answer| !answer.headers.contains_key("x-store")).await;
        nothing_has_changed(&fleet).await;
    };
    assert_eq!(unconfirmed.status, 504);
    assert!(unconfirmed.error().contains("the action may have arrived"), "{}", unconfirmed.error());
    assert!(!unconfirmed.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_reaches_the_fleet() {
    let fleet = steerable().await;
    assert_eq!(fleet.post("/breakers/orders/disable", &json!({"reason": "r"})).await.status, 200);
    cb_testkit::wait_until(cb_testkit::PATIENCE, "the application hears of it", || {
        fleet.breaker("orders").state() == State::Disabled
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn short_token_works_and_empty_token_matches_nothing() {
    let short = Fleet::start(|monitor| monitor.token("secret")).await;
    fail(&short.breaker("orders"), 1).await;
    short.until("/stats", |answer| answer.headers["x-total-count"] == "1").await;
    let order = json!({"reason": "r"});
    let act = |url: String, token: &'static str| {
        answer(short.http.post(url).header("authorization", format!("Bearer {token}")).json(&order))
    };
    assert_eq!(act(short.url("/breakers/orders/open"), "secret").await.status, 200);
    let empty = Fleet::start(|monitor| monitor.token("").read_token("")).await;
    assert_eq!(act(empty.url("/breakers/orders/open"), "").await.status, 401);
    assert_eq!(empty.get("/stats").await.status, 401);
}
