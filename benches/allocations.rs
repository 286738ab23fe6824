//! Counts the allocations of a thousand guarded calls, and prints them by guard as one JSON object. A
//! program of its own for `overhead`, because a counting allocator takes time.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use cb_runtime::Registry;
use support::guards::{Guard, Visit, call_often, runtime, trip, visit_all};

const CALLS: u64 = 1000;

/// By the guard's name, per call.
#[derive(Default)]
struct Allocations(BTreeMap<&'static str, f64>);

impl Visit for Allocations {
    fn visit(&mut self, guard: impl Guard) {
        if guard_opens_first(&guard) {
            trip(&guard);
        }
        let runtime = runtime();
        let count = |calls| {
            let counted = allocation_counter::measure(|| runtime.block_on(call_often(&guard, calls)));
            counted.count_total
        };
        // What happens once (a thread's first call, a result that is cached) is no call's.
        count(10);
        let (some, more) = (count(10), count(10 + CALLS));
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let per_call = (more - some) as f64 / CALLS as f64;
        self.0.insert(guard_name(&guard), per_call);
    }
}

fn guard_opens_first<G: Guard>(_: &G) -> bool {
    G::OPEN
}

fn guard_name<G: Guard>(_: &G) -> &'static str {
    G::NAME
}

fn main() {
    Registry::builder().install().expect("the first in this process");
    let mut allocations = Allocations::default();
    visit_all(&mut allocations);
    println!("{}", serde_json::json!(allocations.0));
}
