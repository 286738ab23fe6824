//! What a person sees on a terminal, and types.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use cb_testkit::RedisServer;
use serde_json::{Value, json};

use crate::common::{NAMESPACE, registry};
use crate::{cbctl, end_as_a_person_does, json_of, one_breaker, run, text};

/// Runs it on a terminal, and types this.
fn on_a_terminal(redis: &RedisServer, arguments: &str, typed: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_cbctl");
    let line = format!("{program} --redis {} --namespace {NAMESPACE} {arguments}", redis.url());
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("CB_ACTOR", "maria")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is missing: apt-get install bsdutils");
    let mut keys = script.stdin.take().unwrap();
    keys.write_all(typed.as_bytes()).unwrap();
    // Open until the end: the terminal goes with it.
    let output = script.wait_with_output().unwrap();
    drop(keys);
    output
}

#[test]
fn an_order_says_what_it_concerns_and_waits_for_a_yes() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    let state = || json_of(&run(&redis, &["show", "orders", "--json"]))["state"].clone();
    let refused = on_a_terminal(&redis, "open orders --reason migration --for 1h", "n\n");
    let asked = text(&refused.stdout);
    assert!(asked.contains("\"orders\" is closed. open: all calls will be rejected, for 1h."), "{asked}");
    assert!(asked.contains("This concerns 1 instance, no calls at the moment. Go on? [y/N]"), "{asked}");
    assert_eq!((refused.status.code(), state()), (Some(5), json!("closed")), "{asked}");
    let enter = on_a_terminal(&redis, "open orders --reason migration", "\n");
    assert_eq!((enter.status.code(), state()), (Some(5), json!("closed")));
    let confirmed = on_a_terminal(&redis, "open orders --reason migration", "y\n");
    assert!(text(&confirmed.stdout).contains("until someone releases it"), "{confirmed:?}");
    assert_eq!((confirmed.status.code(), state()), (Some(0), json!("forced-open")));
    let released = on_a_terminal(&redis, "release orders --reason done", "yes\n");
    assert!(text(&released.stdout).contains("release: the manual override will end."), "{released:?}");
    assert_eq!((released.status.code(), state()), (Some(0), json!("closed")));
    let events = text(&run(&redis, &["events"]).stdout);
    assert!(events.contains("orders  forced-open → closed  done by maria"), "{events}");
}

#[test]
fn watch_shows_changes_as_they_happen_and_goes_on_without_redis() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    let mut watching = cbctl(&redis).args(["watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut states = lines.map(|line| {
        let rows: Value = serde_json::from_str(&line.unwrap()).unwrap();
        rows[0]["state"].as_str().unwrap_or_default().to_owned()
    });
    assert_eq!(states.find(|state| !state.is_empty()).unwrap(), "closed");
    assert!(run(&redis, &["open", "orders", "--reason", "now", "--yes"]).status.success());
    states.find(|state| state == "forced-open").unwrap();
    end_as_a_person_does(&mut watching);

    let mut watching = cbctl(&redis).arg("watch").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines
        .find(|line| line.contains("forced-open") && line.contains("orders") && line.contains("now"))
        .unwrap();
    redis.stop();
    lines.find(|line| line.contains("NOT CURRENT: ")).expect("old figures are marked as old");
    redis.restart();
    lines.find(|line| line.contains("forced-open") && line.contains("orders")).unwrap();
    end_as_a_person_does(&mut watching);
    let screen = on_a_terminal_for_a_moment(&redis, "watch");
    assert!(screen.contains("\u{1b}[H") && screen.contains("orders"), "{screen:?}");
}

/// What it shows on a terminal until it shows the breaker.
fn on_a_terminal_for_a_moment(redis: &RedisServer, arguments: &str) -> String {
    let program = env!("CARGO_BIN_EXE_cbctl");
    let line = format!("{program} --redis {} --namespace {NAMESPACE} {arguments}", redis.url());
    let mut script = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is missing: apt-get install bsdutils");
    let mut keys = script.stdin.take().unwrap();
    let mut shown = String::new();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
    while !shown.contains("orders") {
        shown += &lines.next().expect("it goes on").unwrap();
        shown.push('\n');
    }
    // Ctrl-C, typed.
    keys.write_all(b"\x03").unwrap();
    // The terminal takes what is still shown.
    let rest = std::thread::spawn(move || lines.count());
    script.wait().unwrap();
    rest.join().unwrap();
    shown
}
