//! Environment variables that are invalid, or that this crate does not read.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::process::Command;

use cb_runtime::{Registry, StoreStatus};
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

/// Runs the test of this name again with these variables, in a process of its own: the variables of a process
/// cannot be changed safely while it has threads. Returns what it has written.
fn in_child(test: &str, variables: &[(&str, &OsStr)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let written = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{written}");
    written
}

#[test]
fn invalid_address_leaves_other_variables_in_force() {
    if std::env::var_os(CHILD).is_some() {
        let registry = Registry::global();
        assert_eq!(registry.namespace(), "prod");
        assert!(matches!(registry.store_status(), StoreStatus::InMemory));
        #[cfg(feature = "config")]
        {
            let breaker = registry.get_or_create("orders", cb_runtime::BreakerConfig::default());
            let settings = breaker.snapshot().settings;
            let threshold = settings.iter().find(|setting| setting.name == "failure_threshold").unwrap();
            assert_eq!(threshold.value, "7");
        }
        return;
    }
    let text = in_child(
        "invalid_address_leaves_other_variables_in_force",
        &[
            ("CB_REDIS_URL", OsStr::new("http://127.0.0.1")),
            ("CB_NAMESPACE", OsStr::new("prod")),
            ("CB_DEFAULTS__FAILURE_THRESHOLD", OsStr::new("7")),
        ],
    );
    let report = "cb-runtime: circuit breakers are not shared: CB_REDIS_URL: redis: the store's address cannot be used: ";
    assert!(text.contains(report), "{text}");
    assert_eq!(text.matches("CB_REDIS_URL").count(), 1, "{text}");
}

/// Under another namespace, it would read and change another fleet's states.
#[test]
#[cfg(unix)]
fn instance_whose_namespace_is_not_utf8_joins_no_fleet() {
    use std::os::unix::ffi::OsStrExt;

    if std::env::var_os(CHILD).is_some() {
        assert!(matches!(Registry::global().store_status(), StoreStatus::InMemory));
        return;
    }
    let text = in_child(
        "instance_whose_namespace_is_not_utf8_joins_no_fleet",
        &[
            ("CB_REDIS_URL", OsStr::new("redis://127.0.0.1:1")),
            ("CB_NAMESPACE", OsStr::from_bytes(b"prod\xff")),
        ],
    );
    assert!(text.contains("CB_NAMESPACE: is not UTF-8"), "{text}");
}

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
    let text = in_child(
        "unknown_variables_are_reported_once",
        &[("CB_REDIS", OsStr::new("redis://127.0.0.1")), ("CB_TIMEOUT", OsStr::new("5s"))],
    );
    for report in [
        "the environment variable CB_REDIS is not read; did you mean CB_REDIS_URL?",
        "the environment variable CB_TIMEOUT is not read; cb-runtime reads CB_REDIS_URL, ",
    ] {
        assert_eq!(text.matches(report).count(), 1, "{text}");
    }
}
