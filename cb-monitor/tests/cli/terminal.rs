//! What a person sees on a terminal, and types.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use cb_testkit::RedisServer;
use serde_json::{Value, json};

use crate::common::{NAMESPACE, registry};
use crate::{cbctl, damage, end_as_a_person_does, json_of, one_breaker, run, text};

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
    let again = on_a_terminal(&redis, "release orders --reason done", "n\n");
    assert!(text(&again.stdout).contains("nothing will change, as there is no manual override"), "{again:?}");
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

#[test]
fn watch_reads_at_its_pace_whatever_is_damaged_and_however_much_changes() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "users");
    damage(&redis, "orders");
    let commands = redis.monitor();
    let begun = Instant::now();
    let mut watching = cbctl(&redis)
        .args(["watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("users")).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for _ in 0..20 {
            fleet.control("users").force_open("a burst").await.unwrap();
            fleet.control("users").disable("a burst").await.unwrap();
        }
        fleet.control("users").metrics_only("the end").await.unwrap();
    });
    lines.find(|line| line.contains("the end")).unwrap();
    let readings = commands.finish();
    let readings =
        readings.iter().filter(|command| command.starts_with("\"SET\" \"cb1:{tests}:watched\"")).count();
    // Each second has at most one: the time is measured around all of them.
    assert!(readings as u64 <= begun.elapsed().as_secs() + 1, "{readings} in {:?}", begun.elapsed());
    assert!(readings > 0);
    end_as_a_person_does(&mut watching);
    let warnings = std::io::read_to_string(watching.stderr.take().unwrap()).unwrap();
    assert_eq!(warnings.matches("breaker \\\"orders\\\" in the store is damaged").count(), 1, "{warnings}");
    let mut watching = cbctl(&redis).arg("watch").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("breaker \"orders\" in the store is damaged")).unwrap();
    end_as_a_person_does(&mut watching);
}

#[test]
fn watch_gives_a_program_no_rows_that_are_not_current() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    tokio::runtime::Runtime::new().unwrap().block_on(fleet.shutdown());
    let (reader, writer) = std::io::pipe().unwrap();
    let mut watching = cbctl(&redis);
    watching.args(["watch", "--json"]).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut process = watching.spawn().unwrap();
    drop(watching);
    let lines = BufReader::new(reader).lines();
    let mut answers = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(answers.next().unwrap()[0]["name"], "orders");
    redis.stop();
    let old = answers.by_ref().take(20).find(|answer| answer[0]["name"] != "orders").unwrap();
    assert!(old["warning"].as_str().unwrap().starts_with("NOT CURRENT: "), "{old}");
    redis.restart();
    let new = answers.find(|answer| answer["warning"].is_null()).unwrap();
    assert_eq!(new, json!([]), "the new server is empty");
    end_as_a_person_does(&mut process);
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
