//! Commands that show and steer, their errors, and their manual.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use cb_runtime::{BreakerConfig, State};
use cb_testkit::{PATIENCE, RedisServer, wait_until};
use serde_json::{Value, json};

use crate::common::{NAMESPACE, registry};
use crate::{cbctl, damage, json_of, one_breaker, run, text, tripped_breaker};

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
fn a_breaker_is_steered_before_its_first_call() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    let breaker = fleet.get_or_create("orders", BreakerConfig::default());
    wait_until(PATIENCE, "its instance has told of it", || {
        text(&run(&redis, &["list"]).stdout).contains("orders")
    });
    let opened = run(&redis, &["open", "orders", "--reason", "not released yet", "--yes"]);
    assert_eq!((opened.status.code(), &*text(&opened.stdout)), (Some(0), "orders is forced-open\n"));
    wait_until(PATIENCE, "the fleet hears of it", || breaker.state() == State::ForcedOpen);
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
    assert_eq!(
        code(&["open", "orders", "--reason", "r", "--for", "900years", "--yes"], "at most 10 years"),
        2
    );
    assert_eq!(code(&["list", "--state", "ajar"], "there are closed, open"), 2);
    assert_eq!(code(&["open", "orders", "--reason", "r"], "add --yes"), 5);
    let state = json_of(&run(&redis, &["show", "orders", "--json"]))["state"].clone();
    assert_eq!(state, "closed", "nothing was changed by any of these");
    redis.stop();
    assert_eq!(code(&["list"], "`cbctl doctor` shows why"), 4);
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
fn errors_are_json_for_those_who_asked_for_json() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "orders");
    let failed = run(&redis, &["show", "order", "--json"]);
    let said: Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert_eq!((failed.status.code(), &said["exit_code"]), (Some(3), &json!(3)));
    assert!(said["error"].as_str().unwrap().contains("did you mean"), "{said}");
    assert!(failed.stdout.is_empty());
}

#[test]
fn invalid_arguments_are_json_for_those_who_asked_for_json() {
    let redis = RedisServer::start();
    for (arguments, said) in [
        (&["--json", "list", "--state", "ajar"][..], "there are closed, open"),
        (&["open", "orders", "--json"], "--reason"),
        (&["--json", "frobnicate"], "unrecognized subcommand"),
    ] {
        let output = run(&redis, arguments);
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((output.status.code(), &error["exit_code"]), (Some(2), &json!(2)));
        assert!(error["error"].as_str().unwrap().contains(said), "{error}");
    }
}

#[test]
fn a_shell_completes_commands_and_the_manual_pages_name_every_option() {
    let print = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cbctl")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    // As bash does when a person types "cbctl re" and the tabulator.
    let program = env!("CARGO_BIN_EXE_cbctl");
    let typed = format!(
        "source <({program} completions bash); COMP_WORDS=(cbctl re); COMP_CWORD=1; _cbctl cbctl re cbctl; \
         printf '%s ' \"${{COMPREPLY[@]}}\""
    );
    let completed = Command::new("bash").args(["-c", &typed]).output().unwrap();
    assert_eq!(text(&completed.stdout), "release reset ", "{completed:?}");
    assert!(print(&["completions", "zsh"]).contains("#compdef cbctl"));
    assert!(print(&["completions", "fish"]).contains("metrics-only"));
    let manual = print(&["man"]);
    assert!(manual.contains(".TH cbctl") && manual.contains("Exit codes"), "{manual}");
    for command in ["list", "watch", "show", "open", "disable", "metrics-only", "release", "reset", "events"]
    {
        assert!(
            manual.contains(&format!("cbctl\\-{}(1)", command.replace('-', "\\-"))),
            "{command}: {manual}"
        );
        assert!(print(&["man", command]).contains("namespace"), "{command}");
    }
    let opening = print(&["man", "open"]);
    assert!(opening.contains("\\-\\-reason") && opening.contains("\\-\\-for"), "{opening}");
    let unknown = Command::new(program).args(["man", "explode"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(print(&["--help"]).contains("Exit codes:"));
}

#[test]
fn a_reader_that_closes_stdout_ends_the_command_quietly() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "orders");
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["watch"],
        &["show", "orders"],
        &["open", "orders", "--reason", "a test", "--yes"],
        &["events"],
        &["doctor"],
        &["completions", "bash"],
        &["man"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = cbctl(&redis).args(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""), "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let failed = cbctl(&redis).args(["show", "order"]).stderr(writer).output().unwrap();
    assert_eq!(failed.status.code(), Some(3), "an error without a reader");
}

#[test]
fn a_damaged_breaker_is_named() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "users");
    damage(&redis, "orders");
    let sentence = "breaker \"orders\" in the store is damaged: ";
    let listed = run(&redis, &["list"]);
    let problem = text(&listed.stderr);
    assert!(
        problem.contains(sentence) && problem.contains("banana") && problem.contains("left out"),
        "{problem}"
    );
    assert_eq!((listed.status.code(), text(&listed.stdout).contains("users")), (Some(0), true));
    let listed = run(&redis, &["list", "--json"]);
    let warning: Value = serde_json::from_slice(&listed.stderr).unwrap();
    assert!(warning["warning"].as_str().unwrap().starts_with(sentence), "{warning}");
    assert_eq!(json_of(&listed).as_array().unwrap().len(), 1);
    let shown = run(&redis, &["show", "orders"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(text(&shown.stderr).contains(sentence), "{}", text(&shown.stderr));
    let found = json_of(&run(&redis, &["doctor", "--json"]));
    let found = found.as_array().unwrap().iter().find(|found| found["check"] == "damage").unwrap();
    assert_eq!(found["verdict"], "notice");
    assert!(found["message"].as_str().unwrap().starts_with(sentence), "{found}");
}

#[test]
fn a_release_without_an_override_says_that_the_circuit_is_still_open() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    tripped_breaker(&fleet, "orders");
    let released = run(&redis, &["release", "orders", "--reason", "a test", "--yes"]);
    let said = "orders is open: it had no manual override to release; `cbctl reset` would close it\n";
    assert_eq!((released.status.code(), &*text(&released.stdout)), (Some(0), said));
    let answer = json_of(&run(&redis, &["release", "orders", "--reason", "a test", "--yes", "--json"]));
    assert_eq!(answer, json!({"breaker": "orders", "action": "release", "state": "open"}));
    let reset = run(&redis, &["reset", "orders", "--reason", "a test", "--yes"]);
    assert_eq!(text(&reset.stdout), "orders is closed\n");
    let released = run(&redis, &["release", "orders", "--reason", "a test", "--yes"]);
    assert_eq!(text(&released.stdout), "orders is closed: it had no manual override to release\n");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let redis = RedisServer::start();
    let cbctl = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cbctl"));
        command.args(arguments).stdin(Stdio::null());
        command.env("CB_REDIS_URL", "").env("CB_NAMESPACE", "").env("CB_ACTOR", "").env("USER", "maria");
        command.output().unwrap()
    };
    let found = cbctl(&["--redis", &redis.url(), "doctor"]);
    assert!(text(&found.stdout).contains("namespace \"default\""), "{found:?}");
    // The address and the namespace are looked at before the reason, and Redis is asked after it.
    let refused = text(&cbctl(&["--namespace", NAMESPACE, "open", "orders", "--reason", "", "--yes"]).stderr);
    assert!(refused.contains("\"reason\" is missing"), "{refused}");
    for arguments in [["--redis", ""], ["--namespace", ""]] {
        let refused = cbctl(&[&arguments[..], &["open", "orders", "--reason", "", "--yes"]].concat());
        assert!(!text(&refused.stderr).contains("\"reason\""), "{arguments:?}: {refused:?}");
        assert_eq!(refused.status.code(), Some(2));
    }
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    let order =
        ["--redis", &redis.url(), "--namespace", NAMESPACE, "open", "orders", "--reason", "r", "--yes"];
    assert_eq!(cbctl(&order).status.code(), Some(0));
    assert_eq!(json_of(&run(&redis, &["show", "orders", "--json"]))["actor"], "maria");
}
