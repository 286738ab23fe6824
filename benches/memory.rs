//! Counts the allocations of a thousand calls, and the size of a call's future, and prints both for each
//! guard as one JSON object. `overhead` runs this as a separate program, because a counting allocator takes
//! time.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use cb_runtime::Registry;
use support::guards::{Guard, Visit, call_often, prepare, runtime, visit_all};

const CALLS: u64 = 1000;

#[derive(serde::Serialize)]
struct Memory {
    allocations_per_call: f64,
    future_bytes: usize,
    over_bare_bytes: usize,
}

#[derive(Default)]
struct ByName(BTreeMap<&'static str, Memory>);

impl Visit for ByName {
    fn visit(&mut self, guard: impl Guard) {
        prepare(&guard);
        let runtime = runtime();
        let count = |calls| {
            let counted = allocation_counter::measure(|| runtime.block_on(call_often(&guard, calls)));
            counted.count_total
        };
        // The first calls allocate once, for the thread, the key, and the cached result.
        count(2 * CALLS);
        let (some, more) = (count(10), count(10 + CALLS));
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let allocations_per_call = (more - some) as f64 / CALLS as f64;
        let future_bytes = future_bytes(&guard);
        let over_bare_bytes = future_bytes - bare_bytes(&guard);
        self.0.insert(name(&guard), Memory { allocations_per_call, future_bytes, over_bare_bytes });
    }
}

fn name<G: Guard>(_: &G) -> &'static str {
    G::NAME
}

fn future_bytes<G: Guard>(guard: &G) -> usize {
    size_of_val(&guard.call(&mut guard.caller(), 7))
}

fn bare_bytes<G: Guard>(_: &G) -> usize {
    future_bytes(&G::Bare::default())
}

fn main() {
    Registry::builder().install().expect("the first in this process");
    let mut memory = ByName::default();
    visit_all(&mut memory);
    println!("{}", serde_json::json!(memory.0));
}
