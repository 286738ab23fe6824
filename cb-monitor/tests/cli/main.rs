//! `cbctl` as a process, with a real Redis.

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod serve;
mod terminal;

use std::process::{Command, Output, Stdio};

use cb_runtime::{BreakerConfig, Registry};
use cb_testkit::RedisServer;
use serde_json::Value;

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
fn one_breaker(registry: &Registry, name: &str) {
    failed_breaker(registry, name, 1);
}

/// A fleet with one breaker whose circuit is open.
fn tripped_breaker(registry: &Registry, name: &str) {
    failed_breaker(registry, name, 3);
}

#[tokio::main(flavor = "current_thread")]
async fn failed_breaker(registry: &Registry, name: &str, failures: usize) {
    let breaker = registry.get_or_create(name, BreakerConfig::default().failure_threshold(3));
    common::fail(&breaker, failures).await;
    registry.fleet().await.unwrap();
}

/// A breaker whose key has a state that does not exist.
fn damage(redis: &RedisServer, name: &str) {
    one_breaker(&registry(redis), name);
    redis.cli(&["HSET", &format!("cb1:{{{NAMESPACE}}}:b:{name}"), "state", "banana"]);
}

/// Ctrl-C.
#[track_caller]
fn end_as_a_person_does(process: &mut std::process::Child) {
    end_by_signal(process, "-INT");
}

#[track_caller]
fn end_by_signal(process: &mut std::process::Child, signal: &str) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(0), "{signal} is how it ends");
}
