//! `cbctl serve`: the page alone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use cb_testkit::{PATIENCE, RedisServer, wait_until};
use serde_json::{Value, json};

use crate::common::{self, registry};
use crate::{cbctl, end_as_a_person_does, end_by_signal, one_breaker, run, text};

/// A page on a free port, and what the command says of it.
fn serving(redis: &RedisServer, arguments: &[&str]) -> (Child, Value) {
    let mut serving = cbctl(redis)
        .args(["serve", "--listen", "127.0.0.1:0", "--json"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (serving, serde_json::from_str(&line).unwrap())
}

#[test]
fn serve_is_on_loopback_read_only_and_knows_its_own_hosts() {
    let redis = RedisServer::start();
    one_breaker(&registry(&redis), "orders");
    let (mut serving, said) = serving(&redis, &[]);
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
    // The line feed is no part of it.
    let mut serve = cbctl(&redis);
    serve.args(["serve", "--listen", "0.0.0.0:0"]).env("CB_MONITOR_TOKEN", "fifteen letters\n");
    let refused = serve.output().unwrap();
    assert!(text(&refused.stderr).contains("at least 16 characters"), "{}", text(&refused.stderr));
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
fn serve_leaves_the_fleet_when_a_service_manager_ends_it() {
    let redis = RedisServer::start();
    let fleet = registry(&redis);
    one_breaker(&fleet, "orders");
    let (mut serving, _) = serving(&redis, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let instances = || runtime.block_on(fleet.instances()).unwrap().len();
    wait_until(PATIENCE, "the monitor is an instance of the fleet", || instances() == 2);
    end_by_signal(&mut serving, "-TERM");
    assert_eq!(instances(), 1);
}

#[test]
fn a_prefix_that_is_no_plain_path_is_an_invalid_argument() {
    let redis = RedisServer::start();
    for prefix in ["circuits", "/a//b", "/{name}", "/a b", "/ä"] {
        let refused = run(&redis, &["serve", "--listen", "127.0.0.1:0", "--prefix", prefix]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(text(&refused.stderr).contains("such as /circuits"), "{prefix}: {}", text(&refused.stderr));
    }
    for (prefix, path) in [("", "/"), ("/", "/"), ("/ops/circuits/", "/ops/circuits/")] {
        let (mut serving, said) = serving(&redis, &["--prefix", prefix]);
        let address = said["address"].as_str().unwrap().strip_prefix("http://").unwrap();
        assert_eq!(address.split_once('/').map(|(_, path)| format!("/{path}")).as_deref(), Some(path));
        end_as_a_person_does(&mut serving);
    }
}
