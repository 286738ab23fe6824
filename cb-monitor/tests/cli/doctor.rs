//! `cbctl doctor`: what is wrong with a Redis, and what to do about it.

use std::process::Command;

use cb_testkit::{Authority, RedisCluster, RedisServer};
use serde_json::Value;

use crate::common::{NAMESPACE, registry};
use crate::{json_of, one_breaker, run, text};

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
fn doctor_says_that_nothing_is_written_to_disk_only_where_it_knows() {
    let persistence = |url: &str| {
        let program = env!("CARGO_BIN_EXE_cbctl");
        let output = Command::new(program).args(["--redis", url, "doctor", "--json"]).output().unwrap();
        let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found =
            findings.as_array().unwrap().iter().find(|found| found["check"] == "persistence").cloned();
        found.map(|found| found["message"].as_str().unwrap().to_owned())
    };
    let redis = RedisServer::start();
    let said = persistence(&redis.url()).unwrap();
    assert!(said.starts_with("nothing is written to disk"), "{said}");
    redis.cli(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-config"]);
    let url = redis.url().replace("redis://", "redis://reader:secret@");
    assert_eq!(persistence(&url), None, "the configuration is unknown");
    redis.cli(&["CONFIG", "SET", "save", "3600 1"]);
    assert_eq!(persistence(&redis.url()), None, "snapshots are taken");
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
