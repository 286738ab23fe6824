//! The metrics, the alert rules and the dashboard, with a real Prometheus.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cb_testkit::PATIENCE;
use serde_json::Value;

use common::{Fleet, answer, fail, succeed};

fn docs(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file)
}

#[track_caller]
fn promtool(arguments: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: apt-get install prometheus, or run scripts/test");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

/// A Prometheus that scrapes a monitor four times a second, in a folder of its own.
struct Prometheus {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Prometheus {
        // Another process may take the port between its choice and Prometheus' bind.
        (0..20).find_map(|_| Prometheus::launch(target)).expect("Prometheus starts")
    }

    /// `None` if the process has ended.
    fn launch(target: &str) -> Option<Prometheus> {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms }}\n\
             scrape_configs:\n  \
             - {{ job_name: monitor, metrics_path: /circuits/metrics, static_configs: [{{ targets: ['{target}'] }}] }}\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is missing: apt-get install prometheus, or run scripts/test");
        let url = format!("http://127.0.0.1:{port}/api/v1/query");
        let mut prometheus = Prometheus { process, url, _folder: folder };
        let (mut has_ended, mut is_ready) = (false, false);
        cb_testkit::wait_until(PATIENCE, "Prometheus is ready", || {
            has_ended = prometheus.process.try_wait().expect("a child").is_some();
            is_ready = says_ready(port).unwrap_or(false);
            has_ended || is_ready
        });
        (!has_ended).then_some(prometheus)
    }

    /// The series that a query finds; an error if it is no query.
    async fn query(&self, http: &reqwest::Client, query: &str) -> Result<Vec<Value>, String> {
        let Ok(response) = http.get(&self.url).query(&[("query", query)]).send().await else {
            return Ok(vec![]);
        };
        let text = response.text().await.unwrap_or_default();
        let Ok(answer) = serde_json::from_str::<Value>(&text) else { return Ok(vec![]) };
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(text),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn says_ready(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains("Prometheus Server is Ready"))
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_the_metrics_even_with_hostile_names() {
    let fleet = Fleet::start(|monitor| monitor).await;
    fleet.trip("pay\"ments\\\n{}\u{202e}é").await;
    fail(&fleet.breaker("orders"), 1).await;
    fleet.control("legacy").force_open("migration").await.unwrap();
    let scraped = fleet
        .until("/metrics", |answer| answer.text.contains("\"legacy\"") && answer.text.contains("\"orders\""))
        .await;
    promtool(&["check", "metrics"], &scraped.text);
}

#[test]
fn promtool_accepts_the_alert_rules_and_they_do_what_they_say() {
    promtool(&["check", "rules", docs("prometheus-alerts.yml").to_str().unwrap()], "");
    promtool(&["test", "rules", docs("prometheus-alerts.test.yml").to_str().unwrap()], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_and_every_fleet_alert_finds_something_in_a_real_prometheus() {
    let fleet = Fleet::start(|monitor| monitor).await;
    let prometheus = Prometheus::start(&fleet.address);
    fleet.control("legacy").expires_in(Duration::from_secs(3600)).force_open("migration").await.unwrap();
    fail(&fleet.breaker("orders"), 1).await;
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(docs("grafana-dashboard.json")).unwrap()).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "5s").replace("$breaker", ".*");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    assert!(queries.len() >= 14);
    let start = Instant::now();
    while !queries.is_empty() {
        // Calls between the scrapes, and a circuit that opens and is closed.
        let breaker = fleet.breaker("orders");
        succeed(&breaker, 5).await;
        fail(&breaker, 1).await;
        fleet.trip("payments").await;
        let mut missing = Vec::new();
        for (title, query) in queries {
            match prometheus.query(&fleet.http, &query).await {
                Ok(series) if !series.is_empty() => {}
                Ok(_) => missing.push((title, query)),
                Err(error) => panic!("{title}: {query}: {error}"),
            }
        }
        queries = missing;
        assert!(start.elapsed() < 2 * PATIENCE, "these found nothing: {queries:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        fleet.control("payments").reset().await.unwrap();
    }
    // The template variable's query, and what the alerts look at.
    for query in ["count by (breaker) (circuit_breaker_fleet_state)", "circuit_breaker_fleet_epoch_total"] {
        assert!(!prometheus.query(&fleet.http, query).await.unwrap().is_empty(), "{query}");
    }
    let scraped = answer(fleet.http.get(fleet.url("/metrics"))).await.text;
    let rules = std::fs::read_to_string(docs("prometheus-alerts.yml")).unwrap();
    for name in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if name.strip_prefix("circuit_breaker_fleet_").is_some_and(|rest| !rest.is_empty()) {
            assert!(scraped.contains(name), "an alert looks at {name}, which the monitor does not have");
        }
    }
}
