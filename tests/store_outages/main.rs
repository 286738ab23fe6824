//! Redis stops, freezes, is slow, loses its data, or is unreachable for one instance.

#[path = "../common/mod.rs"]
mod common;
mod data_loss;
mod no_answer;
mod partition;
mod start;

use std::array;

use cb_runtime::State;
use serde_json::{Value, json};

use common::protocol::{Act, Calls, Ended};
use common::{Instance, within_t};

const NAME: &str = "orders";

/// A hundred calls that waited for the store would take longer than this. One that does not wait may still
/// be held up by a busy machine.
const WAITED_US: u64 = 10_000_000;

fn good() -> Act {
    Act::Succeed(Some("fresh".into()))
}

fn threshold(failures: u32) -> Value {
    json!({"failure_threshold": failures, "reset_timeout": "1h"})
}

fn instance(url: &str, config: &Value) -> Instance {
    let instance = Instance::on(url);
    instance.create(NAME, config.clone());
    instance
}

fn instances<const N: usize>(url: &str, config: &Value) -> [Instance; N] {
    array::from_fn(|_| instance(url, config))
}

#[track_caller]
fn all(instances: &[&Instance], state: State) {
    within_t(&format!("all are {state}"), || instances.iter().all(|i| i.is(NAME, state)));
}

/// Asserts that all calls were made, succeeded and did not wait.
#[track_caller]
fn undisturbed(calls: &Calls) {
    assert!(calls.ended.iter().all(|ended| *ended == Ended::value("fresh")), "{calls:?}");
    assert!(calls.took_us < WAITED_US, "{} calls took {} µs", calls.ended.len(), calls.took_us);
}
