//! The page in a real browser: Debian's chromium, driven by playwright-core. `scripts/test` installs both.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use cb_runtime::{BreakerConfig, State};
use cb_testkit::{Browser, Proxy};
use serde_json::json;

use common::{Fleet, TOKEN, fail, succeed};

fn row(name: &str) -> String {
    format!("#rows .row[data-name={}]:not([hidden])", json!(name))
}

/// Where the application of [`an_application_opens_its_circuit_when_its_calls_fail`] finds its Redis, if
/// another test has started it as a process.
const APPLICATION: &str = "CB_MONITOR_TEST_APPLICATION";

/// An application: a process of its own where the next test starts it, which then tells it when to fail.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_opens_its_circuit_when_its_calls_fail() {
    let (redis, url) = if let Ok(url) = std::env::var(APPLICATION) {
        (None, url)
    } else {
        let redis = cb_testkit::RedisServer::start();
        let url = redis.url();
        (Some(redis), url)
    };
    let registry = cb_runtime::Registry::builder().redis(url).namespace(common::NAMESPACE).build().unwrap();
    let config = BreakerConfig::default().failure_threshold(3);
    let breaker = registry.get_or_create("payments", config);
    fail(&breaker, 1).await;
    let told = || std::io::stdin().read_line(&mut String::new()).unwrap();
    if redis.is_none() {
        told();
    }
    fail(&breaker, 2).await;
    assert_eq!(breaker.state(), State::Open);
    if redis.is_none() {
        let opened = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        println!("opened at {}", opened.as_millis());
        told();
    }
    breaker.reset().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_that_opens_in_another_process_turns_its_row() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let mut application = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_application_opens_its_circuit_when_its_calls_fail", "--nocapture"])
        .env(APPLICATION, fleet.redis.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tell = application.stdin.take().unwrap();
    // Read to the end: a process that cannot write what it says fails.
    let mut said = BufReader::new(application.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut browser = Browser::start();
    browser.open(&fleet.url("/"));
    browser.until(&row("payments"), "closed");
    browser.until("#live", "Live");
    browser.order("expect", json!({ "selector": row("payments"), "name": "open" }));
    writeln!(tell).unwrap();
    let opened = said.find_map(|line| {
        // The test harness has begun this line, so the text is searched for anywhere in it.
        line.split_once("opened at ")?.1.parse::<f64>().ok()
    });
    let turned = browser.order("expected", json!({})).as_f64().unwrap();
    // Two clocks of one machine: the application's, and the browser's at the frame that shows the change.
    let took = turned - opened.expect("the application has opened its circuit");
    eprintln!("a row has turned {took} ms after its circuit was opened in another process");
    // A second is promised; a machine that computes something else, too, is given more.
    assert!(took < 20_000.0, "{took} ms");
    browser.until(&row("payments"), "3 consecutive failures");
    browser.until("#headline", "1 circuit is open");
    browser.until("#changes", "payments");
    assert_eq!(browser.order("title", json!({})), json!("(1 open) Circuits"));
    browser.until(&row("payments"), "probe in");
    writeln!(tell).unwrap();
    browser.until(&row("payments"), "closed");
    said.for_each(drop);
    application.wait().unwrap();
    browser.no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_needs_the_token_and_a_reason_and_is_carried_out() {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN)).await;
    fail(&fleet.breaker("payments"), 1).await;
    let mut browser = Browser::start();
    browser.open(&fleet.url("/"));
    browser.until(&row("payments"), "closed");
    browser.click(&row("payments"));
    browser.click("#detail button[data-action=open]");
    browser.until("#action-radius", "This concerns ");
    browser.click("#action-go");
    browser.until("#action-error", "Give a reason");
    browser.fill("#action-reason", "a migration");
    browser.click("#action-go");
    browser.until("#action-error", "needs the token");
    browser.fill("#action-token", "not the right token");
    browser.click("#action-go");
    browser.until("#action-error", "the token is wrong");
    assert_eq!(fleet.breaker("payments").state(), State::Closed, "nothing was changed");
    browser.fill("#action-token", TOKEN);
    browser.fill("#action-actor", "maria");
    browser.click("#action-go");
    browser.until(&row("payments"), "a migration — maria");
    browser.until("#detail", "forced open");
    // The token serves for the next action, too.
    browser.click("#detail button[data-action=release]");
    browser.fill("#action-reason", "it is over");
    browser.click("#action-go");
    browser.until(&row("payments"), "closed");
    // What it complains about is the answer 401 to the wrong token, which a browser logs by itself.
    let complaints = browser.order("complaints", json!({}));
    assert!(
        complaints.as_array().unwrap().iter().all(|text| text.as_str().unwrap().contains("401")),
        "{complaints}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_figures_need_a_token_asks_for_it_and_shows_them() {
    let reader = "a token that may read";
    let fleet = Fleet::start(|monitor| monitor.read_token(reader)).await;
    fleet.trip("payments").await;
    let mut browser = Browser::start();
    browser.open(&fleet.url("/"));
    browser.until("#headline", "needs a token");
    browser.fill("#token-value", reader);
    browser.click("#token-form button[type=submit]");
    browser.until(&row("payments"), "open");
    browser.until("#changes", "payments");
    browser.click("#changes button");
    browser.until("#detail h2", "payments");
    browser.click("#detail .close");
    assert_eq!(browser.text("#detail:not([hidden])"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_page_offers_no_action() {
    let fleet = Fleet::start(|monitor| monitor).await;
    fleet.trip("payments").await;
    let mut browser = Browser::start();
    browser.open(&fleet.url("/#breaker=payments"));
    browser.until("#detail", "read-only");
    assert_eq!(browser.order("count", json!({ "selector": "#detail [data-action]" })), json!(0));
    browser.no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn details_show_the_window_settings_with_their_origin_drift_and_the_timeline() {
    let fleet = Fleet::start(|monitor| monitor).await;
    // The calls are in the window for as long as the browser may take.
    let hour = Duration::from_secs(3600);
    let config =
        |limit| BreakerConfig::default().failure_rate_threshold(limit).window(hour).minimum_calls(100);
    let breaker = fleet.application.get_or_create("payments", config(0.5));
    breaker.by("maria").force_open("migration of the ledger").await.unwrap();
    fleet.control("payments").by("maria").because("the migration is done").release().await.unwrap();
    succeed(&breaker, 6).await;
    fail(&breaker, 2).await;
    let other = common::registry(&fleet.redis);
    succeed(&other.get_or_create("payments", config(0.25)), 1).await;
    let mut browser = Browser::start();
    browser.open(&fleet.url("/"));
    browser.until(&row("payments"), "settings differ");
    browser.click(&row("payments"));
    browser.until("#detail .meter", "2 of 9 calls failed (22 %)");
    browser.until("#detail", "failures in 1h.");
    browser.until("#detail .table tr", "failure_rate_threshold");
    browser.until("#detail .table", "attribute");
    browser.until("#detail .note", "differs: failure_rate_threshold 0.");
    browser.until("#detail .timeline", "migration of the ledger");
    browser.until("#detail .timeline", "the migration is done");
    browser.until("#detail .timeline", "by maria");
    browser.no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn details_of_a_metrics_only_circuit_say_how_often_it_would_have_opened() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let breaker = fleet.breaker("quotes");
    breaker.by("maria").metrics_only("the limits are new").await.unwrap();
    fail(&breaker, 3).await;
    assert_eq!(breaker.state(), State::MetricsOnly);
    let mut browser = Browser::start();
    browser.open(&fleet.url("/#breaker=quotes"));
    browser.until(&row("quotes"), "would have opened 1×");
    browser.until("#detail [data-figure=would-have-opened]", "1 time, last at");
    browser.until("#detail", "the limits are new — maria");
    browser.no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_breakers_are_scrolled_searched_and_filtered_smoothly() {
    const BREAKERS: usize = 10_000;
    // First, so that no other test's browser computes while the fleet is set up.
    let mut browser = Browser::start();
    let fleet = Fleet::start(|monitor| monitor).await;
    for tenant in 0..BREAKERS {
        fail(&fleet.breaker(&format!("tenant-{tenant:05}")), 1).await;
    }
    fleet.trip("tenant-07777").await;
    fleet
        .until("/stats?limit=1", |answer| answer.headers.get("x-total-count").is_some_and(|n| n == "10000"))
        .await;
    browser.open(&fleet.url("/"));
    browser.until("#found", "10\u{202f}000 circuits");
    browser.until("#rows .row[aria-rowindex='2']", "tenant-07777");
    let measured = browser.order("scroll", json!({ "selector": "#rows" }));
    eprintln!("10,000 breakers: {measured}");
    assert!(measured["nodes"].as_f64().unwrap() < 1500.0, "only what is seen is in the document: {measured}");
    assert!(measured["heap_mb"].as_f64().unwrap() < 30.0, "{measured}");
    // What a frame costs the page's thread: that is the same on a machine that computes something else, too.
    assert!(measured["busy_ms"].as_f64().unwrap() < 16.0, "{measured}");
    browser.until("#rows .row", "tenant-09999");
    browser.fill("#search", "TENANT-0123");
    browser.until("#found", "10 of 10\u{202f}000");
    browser.until("#rows .row[aria-rowindex='11']", "tenant-01239");
    browser.fill("#search", "");
    browser.click(".chip.open");
    browser.until("#found", "1 of 10\u{202f}000");
    browser.no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_done_by_keyboard() {
    let fleet = Fleet::start(|monitor| monitor).await;
    for name in ["alpha", "beta", "gamma"] {
        succeed(&fleet.breaker(name), 1).await;
        fail(&fleet.breaker(name), 1).await;
    }
    let mut browser = Browser::start();
    browser.open(&fleet.url("/#sort=name"));
    browser.until("#found", "3 circuits");
    browser.press("/");
    browser.press("ArrowDown");
    browser.press("ArrowDown");
    let focused = browser.order("focused", json!({}));
    assert!(focused.as_str().unwrap().contains("beta"), "{focused}");
    browser.press("Enter");
    browser.until("#detail h2", "beta");
    assert!(
        browser.order("hash", json!({})).as_str().unwrap().contains("breaker=beta"),
        "it can be sent to someone"
    );
    browser.press("Escape");
    assert_eq!(browser.text("#detail:not([hidden])"), "");
    browser.press("End");
    let focused = browser.order("focused", json!({}));
    assert!(focused.as_str().unwrap().contains("gamma"), "{focused}");
    browser.no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_reasons_and_actors_are_text_whatever_is_in_them() {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN)).await;
    let hostile = "<img src=x onerror=alert(1)>'\"\n\u{202e}&lt;</script><script>alert(2)</script>/../?#%";
    let breaker = fleet.breaker(hostile);
    fail(&breaker, 1).await;
    breaker.by("<svg onload=alert(3)>").force_open("\"><iframe src=javascript:alert(4)>").await.unwrap();
    let mut browser = Browser::start();
    browser.open(&fleet.url("/"));
    browser.until("#rows .row", "<img src=x onerror=alert(1)>");
    browser.until("#rows .row", "\"><iframe src=javascript:alert(4)> — <svg onload=alert(3)>");
    browser.click("#rows .row:not([hidden])");
    browser.until("#detail h2", "<script>alert(2)</script>");
    browser.click("#detail button[data-action=release]");
    browser.fill("#action-token", TOKEN);
    browser.fill("#action-reason", "<b>over</b>");
    browser.click("#action-go");
    browser.until("#rows .row", "closed");
    browser.press("Escape");
    browser.until("#changes", "<img src=x onerror=alert(1)>");
    let markup =
        json!({ "selector": "main img, main script, main iframe, main b[onload], main svg[onload]" });
    assert_eq!(browser.order("count", markup), json!(0));
    browser.no_complaints();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_figures_never_look_new() {
    let mut fleet = Fleet::start(|monitor| monitor).await;
    let to_the_monitor = Proxy::start(fleet.address.rsplit_once(':').unwrap().1.parse().unwrap());
    fleet.address = format!("127.0.0.1:{}", to_the_monitor.port());
    let an_hour = Duration::from_secs(3600);
    fleet.breaker("payments").expires_in(an_hour).force_open("a migration").await.unwrap();
    let mut browser = Browser::start();
    browser.open(&fleet.url("/"));
    browser.until(&row("payments"), "ends in");
    to_the_monitor.cut();
    browser.until("#banner", "No connection to the monitor since");
    browser.until("body.stale #rows .row", "unknown");
    to_the_monitor.heal();
    browser.until("body:not(.stale) #live", "Live");
    browser.until(&row("payments"), "ends in");
    fleet.redis.stop();
    browser.until("#banner", "Redis does not answer");
    browser.until("body.stale #rows .row", "unknown");
    fleet.redis.restart();
    browser.until("body:not(.stale) #live", "Live");
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_no_barrier_in_light_in_dark_and_on_a_phone() {
    let fleet = Fleet::start(|monitor| monitor.token(TOKEN)).await;
    for name in ["search", "users"] {
        fail(&fleet.breaker(name), 1).await;
    }
    fleet.trip("payments").await;
    for (name, state) in [("legacy", 0), ("images", 1), ("quotes", 2)] {
        let breaker = fleet.breaker(name);
        match state {
            0 => breaker.force_open("migration").await,
            1 => breaker.disable("rollout").await,
            _ => breaker.metrics_only("watching").await,
        }
        .unwrap();
    }
    let mut browser = Browser::start();
    for (dark, phone) in [(false, false), (true, false), (false, true), (true, true)] {
        let (width, height) = if phone { (390, 844) } else { (1440, 900) };
        let page =
            json!({ "url": fleet.url("/"), "dark": dark, "phone": phone, "width": width, "height": height });
        browser.order("open", page);
        browser.until("#rows", "payments");
        browser.until("#headline", "2 circuits are open");
        assert_eq!(browser.order("axe", json!({})), json!([]), "dark: {dark}, phone: {phone}");
        browser.click(&row("payments"));
        browser.until("#detail h2", "payments");
        assert_eq!(browser.order("axe", json!({})), json!([]), "details; dark: {dark}, phone: {phone}");
        browser.click("#detail button[data-action=open]");
        browser.until("#action-title", "payments");
        assert_eq!(browser.order("axe", json!({})), json!([]), "an order; dark: {dark}, phone: {phone}");
        browser.no_complaints();
    }
}
