//! What holds for the state machine's modules as such.

use std::path::{Path, PathBuf};

/// The only modules of this crate that the machine may use: data types without behaviour of their own.
const ALLOWED: [&str; 8] = [
    "breaker::machine::",
    "clock::Moment",
    "clock::micros",
    "clock::{Moment, micros}",
    "config::",
    "snapshot::State",
    "store::",
    "strategy::",
];
/// What makes a decision depend on more than its arguments.
const FORBIDDEN: [&str; 16] = [
    "Arc",
    "Atomic",
    "Cell<",
    "Clock",
    "Instant",
    "Lazy",
    "Mutex",
    "OnceLock",
    "RwLock",
    "SystemTime",
    "async ",
    "fastrand",
    "spawn",
    "std::io",
    "thread",
    "tokio",
];

/// The lines of `source`, tests and comments excepted, that make the machine impure.
fn impurities(source: &str) -> Vec<&str> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or(source);
    let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let is_foreign = |line: &str| {
        let mut paths = line.split("crate::").skip(1);
        paths.any(|path| !ALLOWED.iter().any(|allowed| path.starts_with(allowed)))
            || line.contains("super::super::")
    };
    lines.filter(|line| is_foreign(line) || FORBIDDEN.iter().any(|word| line.contains(word))).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
}

#[test]
fn machine_is_pure() {
    let mut files = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/breaker/machine")), &mut files);
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        let found = impurities(&source);
        assert!(found.is_empty(), "{}: {found:#?}", file.display());
    }
}

#[test]
fn impurities_are_found() {
    for line in [
        "use crate::clock::Clock;",
        "use crate::sync::lock;",
        "use crate::breaker::gate::Gate;",
        "use super::super::counters::ShardedCounter;",
        "use std::sync::atomic::AtomicU64;",
        "let random = fastrand::f64();",
        "let now = std::time::Instant::now();",
        "slot: Option<Arc<()>>,",
        "tokio::spawn(async move {});",
    ] {
        assert_eq!(impurities(line), [line]);
    }
    let pure = "// no clock: Instant\nuse crate::clock::{Moment, micros};\nuse super::super::policy;\n";
    assert_eq!(impurities(&pure.replace("super::super", "super")), [""; 0]);
}
