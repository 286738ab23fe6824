//! Environment variables that this crate does not read.

use std::fmt::Debug;
use std::process::Command;

use cb_runtime::Registry;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const CHILD: &str = "ENVIRONMENT_TEST_CHILD";

/// Prints the message of every log event.
struct Printer;

impl Subscriber for Printer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Message);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Message;

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            println!("{value:?}");
        }
    }
}

/// The variables of a process cannot be changed safely while it has threads, so the test starts itself again.
#[test]
fn unknown_variables_are_reported_once() {
    if std::env::var_os(CHILD).is_some() {
        tracing::subscriber::set_global_default(Printer).unwrap();
        assert!(Registry::global().breakers().is_empty());
        #[cfg(feature = "config")]
        for _ in 0..2 {
            cb_runtime::RegistryConfig::from_env().unwrap();
        }
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unknown_variables_are_reported_once", "--nocapture"])
        .env(CHILD, "1")
        .env("CB_REDIS", "redis://127.0.0.1")
        .env("CB_TIMEOUT", "5s")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for report in [
        "the environment variable CB_REDIS is not read; did you mean CB_REDIS_URL?",
        "the environment variable CB_TIMEOUT is not read; cb-runtime reads CB_REDIS_URL, ",
    ] {
        assert_eq!(text.matches(report).count(), 1, "{text}");
    }
}
