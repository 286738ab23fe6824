//! `microservices --once`: exit code 0 if every promise held, and only then.

use std::process::{Command, Output};

/// Plays the script. `breaker`: settings that replace those of the attribute. A longer timeout of calls keeps
/// a busy machine from causing failures that the script has not caused; its slow calls take 2 s.
fn once(breaker: &str) -> Output {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_microservices"));
    demo.arg("--once").env("AUTH_BREAKER", breaker).output().expect("the demo can be started")
}

fn lines(output: &Output, mark: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::trim).filter(|line| line.starts_with(mark)).map(str::to_owned).collect()
}

/// Whether the line shows a broken promise about a time. On a busy machine that is no defect.
fn is_only_late(line: &str) -> bool {
    line.contains(" apart") || line.contains(", the slowest in ")
}

#[test]
fn every_promise_holds() {
    let output = once(r#"{"call_timeout": "1500ms"}"#);
    let text = String::from_utf8_lossy(&output.stdout);
    let (held, broken) = (lines(&output, "✓"), lines(&output, "✗"));
    assert_eq!(held.len() + broken.len(), 9, "{text}");
    assert!(broken.iter().all(|line| is_only_late(line)), "{text}");
    assert_eq!(output.status.code(), Some(i32::from(!broken.is_empty())), "{text}");
}

#[test]
fn broken_promise_fails_the_run() {
    // Results stay cached for an hour, so the fallback is not used.
    let output = once(r#"{"call_timeout": "1500ms", "cache_ttl": "1h"}"#);
    let text = String::from_utf8_lossy(&output.stdout);
    let broken = lines(&output, "✗").into_iter().filter(|line| !is_only_late(line)).collect::<Vec<_>>();
    assert_eq!(broken.len(), 1, "{text}");
    assert!(broken[0].contains("then the fallback"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}
