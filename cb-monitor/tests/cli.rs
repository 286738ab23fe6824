//! `cbctl` as a process, with a real Redis.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use cb_runtime::{BreakerConfig, Registry, State};
use cb_testkit::{PATIENCE, RedisServer, wait_until};
use serde_json::{Value, json};

use common::{NAMESPACE, registry};

fn cbctl(redis: &RedisServer) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cbctl"));
    command.args(["--redis", &redis.url(), "--namespace", NAMESPACE]).env("CB_ACTOR", "maria");
    command.stdin(Stdio::null());
    command
}

fn run(redis: &RedisServer, arguments: &[&str]) -> Output {
    cbctl(redis).args(arguments).output().unwrap()
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A fleet with one breaker that has failed once.
#[tokio::main(flavor = "current_thread")]
async fn one_breaker(registry: &Registry, name: &str) {
    let breaker = registry.get_or_create(name, BreakerConfig::default().failure_threshold(3));
    common::fail(&breaker, 1).await;
    registry.fleet().await.unwrap();
}

#[test]
fn a_breaker_is_listed_shown_opened_and_released() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    let rows = json_of(&run(&redis, &["list", "--json"]));
    assert_eq!((&rows[0]["name"], &rows[0]["state"]), (&json!("orders"), &json!("closed")));
    let opened = run(&redis, &["open", "orders", "--reason", "migration", "--for", "1h", "--yes"]);
    assert_eq!((opened.status.code(), &*text(&opened.stdout)), (Some(0), "orders is forced-open for 1h\n"));
    wait_until(PATIENCE, "the fleet hears of it", || {
        fleet.breaker("orders").is_some_and(|breaker| breaker.state() == State::ForcedOpen)
    });
    let shown = json_of(&run(&redis, &["show", "orders", "--json"]));
    assert_eq!((&shown["reason"], &shown["actor"]), (&json!("migration"), &json!("maria")));
    let shown = text(&run(&redis, &["show", "orders"]).stdout);
    assert!(shown.contains("forced-open") && shown.contains("ends in 59m"), "{shown}");
    let listed = text(&run(&redis, &["list", "--state", "forced-open"]).stdout);
    assert!(listed.contains("orders") && listed.contains("migration (maria)"), "{listed}");
    let events = text(&run(&redis, &["events"]).stdout);
    assert!(events.contains("orders  closed → forced-open  migration by maria"), "{events}");
    for (action, state) in [
        ("disable", "disabled"),
        ("metrics-only", "metrics-only"),
        ("release", "closed"),
        ("reset", "closed"),
    ] {
        let answer = json_of(&run(&redis, &[action, "orders", "--reason", "a test", "--yes", "--json"]));
        assert_eq!(answer, json!({"breaker": "orders", "action": action, "state": state}));
    }
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "orders");
    let code = |arguments: &[&str], said: &str| {
        let output = run(&redis, arguments);
        let errors = text(&output.stderr);
        assert!(errors.contains(said), "{arguments:?}: {errors}");
        output.status.code().unwrap()
    };
    assert_eq!(code(&["show", "order"], "did you mean \"orders\"?"), 3);
    assert_eq!(code(&["open", "order", "--reason", "typo", "--yes"], "did you mean \"orders\"?"), 3);
    assert_eq!(code(&["open", "orders"], "--reason"), 2);
    assert_eq!(code(&["open", "orders", "--reason", " ", "--yes"], "\"reason\" is missing"), 2);
    assert_eq!(code(&["open", "orders", "--reason", "r", "--for", "soon", "--yes"], "such as \"30m\""), 2);
    assert_eq!(code(&["list", "--state", "ajar"], "there are closed, open"), 2);
    assert_eq!(code(&["open", "orders", "--reason", "r"], "add --yes"), 5);
    let state = json_of(&run(&redis, &["show", "orders", "--json"]))["state"].clone();
    assert_eq!(state, "closed", "nothing was changed by any of these");
    redis.stop();
    assert_eq!(code(&["list"], "`cbctl doctor` says more"), 4);
    assert_eq!(code(&["doctor"], ""), 1);
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}name");
    let listed = text(&run(&redis, &["list"]).stdout);
    assert!(listed.contains("\\u{1b}[2J") && listed.contains("\\u{202e}name"), "{listed:?}");
    assert!(!listed.contains('\u{1b}') && !listed.contains('\u{202e}'), "{listed:?}");
}

#[test]
fn events_are_followed_as_they_happen() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    let mut following =
        cbctl(&redis).args(["events", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    // Whatever came first: the history, or the subscription.
    let opened = run(&redis, &["open", "orders", "--reason", "now", "--yes"]);
    assert!(opened.status.success(), "{opened:?}");
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&event["breaker"], &event["to"]), (&json!("orders"), &json!("forced-open")));
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn doctor_says_what_is_fine_and_what_to_do_about_the_rest() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "orders");
    let finding = |findings: &Value, check: &str| {
        findings.as_array().unwrap().iter().find(|found| found["check"] == check).cloned().unwrap_or_default()
    };
    let findings = json_of(&run(&redis, &["doctor", "--json"]));
    for check in ["connection", "version", "role", "eviction", "permissions", "clock", "fleet"] {
        assert_eq!(finding(&findings, check)["verdict"], "fine", "{findings:#}");
    }
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let output = run(&redis, &["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let eviction = finding(&findings, "eviction");
    assert_eq!(eviction["verdict"], "problem");
    assert!(eviction["message"].as_str().unwrap().contains("use noeviction"), "{eviction}");
    redis.cli(&["CONFIG", "SET", "requirepass", "secret"]);
    let output = run(&redis, &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("check user and password"), "{}", text(&output.stdout));
}

#[test]
fn serve_is_on_loopback_read_only_and_knows_its_own_hosts() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "orders");
    let mut serving = cbctl(&redis)
        .args(["serve", "--listen", "127.0.0.1:0", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(said["read_only"], true);
    let address = said["address"].as_str().unwrap();
    let (host, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let status = |host_header: &str| {
        let mut connection = std::net::TcpStream::connect(host).unwrap();
        write!(connection, "GET /{path}stats HTTP/1.1\r\nHost: {host_header}\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut status = String::new();
        BufReader::new(connection).read_line(&mut status).unwrap();
        status.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status(host), "200");
    assert_eq!(status("localhost:1"), "200");
    assert_eq!(status("evil.example"), "403", "DNS rebinding");
    serving.kill().unwrap();
    serving.wait().unwrap();
    let refused = run(&redis, &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--read-token-file"), "{}", text(&refused.stderr));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "short\n").unwrap();
    let refused = run(&redis, &["serve", "--token-file", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("at least 16 characters"), "{}", text(&refused.stderr));
}

#[test]
fn completions_and_the_manual_page_come_with_it() {
    let print = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cbctl")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    assert!(print(&["completions", "bash"]).contains("metrics-only"));
    assert!(print(&["completions", "zsh"]).contains("#compdef cbctl"));
    let manual = print(&["man"]);
    assert!(manual.contains(".TH cbctl") && manual.contains("Exit codes"), "{manual}");
    assert!(print(&["--help"]).contains("Exit codes:"));
}
