//! `cbctl` as a process, with a real Redis.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use cb_runtime::{BreakerConfig, Registry, State};
use cb_testkit::{Authority, PATIENCE, RedisCluster, RedisServer, wait_until};
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

/// Ctrl-C.
#[track_caller]
fn end_as_a_person_does(process: &mut std::process::Child) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(0), "Ctrl-C is how it ends");
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

#[test]
fn serve_takes_its_tokens_from_files_and_ends_with_ctrl_c() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    let folder = tempfile::tempdir().unwrap();
    let token_file = |name: &str, token: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{token}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let act = token_file("act", "a token that may act");
    let read = token_file("read", "a token that may read");
    let mut serving = cbctl(&redis)
        .args(["serve", "--listen", "127.0.0.1:0", "--prefix", "/ops", "--token-file", &act])
        .args(["--read-token-file", &read])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (address, role) = line.trim().split_once("  ").unwrap();
    assert_eq!(role, "(the token may act)");
    let (address, role_of_nobody) = (address.to_owned(), async |token: Option<&str>| {
        let request = reqwest::Client::new().get(format!("{address}stats"));
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        common::answer(request).await.status
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert_eq!(role_of_nobody(None).await, 401);
        assert_eq!(role_of_nobody(Some("a token that may read")).await, 200);
        let order = |token: &str| {
            let request = reqwest::Client::new().post(format!("{address}breakers/orders/open"));
            common::answer(request.bearer_auth(token).json(&json!({ "reason": "a test" })))
        };
        assert_eq!(order("a token that may read").await.status, 403);
        assert_eq!(order("a token that may act").await.status, 200);
    });
    end_as_a_person_does(&mut serving);
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
fn doctor_tells_a_frozen_server_from_one_that_is_gone() {
    let redis = RedisServer::start();
    redis.freeze();
    let frozen = run(&redis, &["doctor"]);
    redis.thaw();
    assert_eq!(frozen.status.code(), Some(1));
    assert!(text(&frozen.stdout).contains("frozen or busy"), "{frozen:?}");
    redis.stop();
    let gone = run(&redis, &["doctor"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stdout).contains("is Redis running"), "{gone:?}");
}

#[test]
fn doctor_reaches_a_server_by_tls_a_cluster_and_what_sentinel_names() {
    let authority = Authority::new();
    let certificate = authority.sign("server", &["127.0.0.1", "localhost"]);
    let secure = RedisServer::start_tls(&authority, &certificate, &["--tls-auth-clients", "no"]);
    let doctor = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cbctl"))
            .args(["--namespace", NAMESPACE, "doctor", "--json"])
            .args(arguments)
            .output()
            .unwrap();
        let findings: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let verdict = |check: &str| {
            let findings = findings.as_array().unwrap().iter();
            let of_it: Vec<_> = findings.filter(|found| found["check"] == check).collect();
            assert!(!of_it.is_empty(), "{check}: {output:?}");
            of_it.iter().all(|found| found["verdict"] == "fine")
        };
        let all =
            ["connection", "version", "role", "eviction", "permissions"].iter().all(|check| verdict(check));
        (all, text(&output.stdout))
    };
    let url = format!("{}?cacert={}", secure.tls_url(), authority.file().display());
    let (fine, said) = doctor(&["--redis", &url]);
    assert!(fine, "{said}");
    let untrusted = run_doctor(&secure.tls_url());
    assert!(untrusted.contains("check ?cacert="), "{untrusted}");

    let cluster = RedisCluster::start(3);
    let (fine, said) = doctor(&["--cluster", "--redis", &cluster.urls()[0]]);
    assert!(fine, "{said}");
    let findings: Value = serde_json::from_str(&said).unwrap();
    let roles = findings.as_array().unwrap().iter().filter(|found| found["check"] == "role").count();
    assert_eq!(roles, 3, "each master is looked at: {said}");

    let master = RedisServer::start();
    let sentinel = RedisServer::start_sentinel("mymaster", &master);
    let (fine, said) = doctor(&["--sentinel", "mymaster", "--redis", &sentinel.url()]);
    assert!(fine, "{said}");
}

fn run_doctor(url: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cbctl")).args(["--redis", url, "doctor"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stdout)
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
