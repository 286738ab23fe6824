//! What each path may cost.

use crate::rows::Row;
use crate::support::screen::Limit;

/// The budget of a path: nanoseconds over the bare function at one thread, the ratio of two threads to one,
/// and the future's bytes over the bare one's. The times of a path that depends on the processor's caches are
/// those in a loop of its own.
struct Budget {
    path: &'static str,
    ns: f64,
    two_to_one: f64,
    bytes: usize,
}

const fn budget(path: &'static str, ns: f64, two_to_one: f64, bytes: usize) -> Budget {
    Budget { path, ns, two_to_one, bytes }
}

/// The budget of a future's bytes over the bare one: plain; and with a fallback or a cache, which hold a
/// copy of the arguments.
const PLAIN: usize = 80;
const WITH_ARGUMENTS: usize = 120 + size_of::<u64>();

const BUDGETS: [Budget; 20] = [
    budget("closed", 8.0, 1.15, PLAIN),
    budget("closed, u8 error", 12.0, 1.15, PLAIN),
    budget("closed, Box<dyn Error>", 12.0, 1.15, PLAIN),
    budget("closed, String", 12.0, 1.15, PLAIN),
    budget("closed, 48-byte error", 12.0, 1.15, PLAIN),
    budget("closed, 96-byte value", 12.0, 1.15, PLAIN),
    budget("last 100 calls", 8.0, 1.15, PLAIN),
    budget("slow calls", 20.0, 1.15, PLAIN),
    budget("closed, with a fallback", 12.0, 1.15, WITH_ARGUMENTS),
    budget("open, fallback", 20.0, 1.2, WITH_ARGUMENTS),
    budget("open, error", 30.0, 1.2, PLAIN),
    budget("half-open, fallback", 30.0, 1.2, WITH_ARGUMENTS),
    budget("half-open, error", 30.0, 1.2, PLAIN),
    budget("ramping up, fallback", 20.0, 1.2, WITH_ARGUMENTS),
    budget("ramping up, error", 30.0, 1.2, PLAIN),
    // Three of ten calls fail, so 30 ns a call are 100 ns a failure.
    budget("30 % failures", 30.0, 2.0, PLAIN),
    budget("cache_ttl, fresh", 60.0, 1.1, WITH_ARGUMENTS),
    budget("cache_ttl, new key", 450.0, 1.5, WITH_ARGUMENTS),
    budget("keyed, one key", 50.0, 1.2, WITH_ARGUMENTS),
    budget("keyed, 1,000 keys", 80.0, 1.2, WITH_ARGUMENTS),
];

/// The only path that may allocate: it caches a new result.
const ALLOCATES: &str = "cache_ttl, new key";

pub(crate) fn limits(rows: &[Row]) -> Vec<Limit> {
    let at_most =
        |what: String, value, measured, unit| Limit { what, value, measured, unit, at_least: false };
    let mut limits = Vec::new();
    for Budget { path, ns, two_to_one, bytes } in BUDGETS {
        let name = format!("circuit_breaker, {path}");
        let row = rows.iter().find(|row| row.name == name).expect("it has been measured");
        let (one, ratio) = match row.alone {
            Some(alone) => (alone.over_bare_ns_one_thread, alone.two_to_one),
            None => (row.over_bare_ns_one_thread, row.two_to_one),
        };
        limits.push(at_most(format!("{path}, one thread"), ns, one, " ns"));
        let measured = ratio.expect("a row of this crate has its rounds");
        limits.push(at_most(format!("{path}, two threads to one"), two_to_one, measured, "×"));
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        limits.push(at_most(
            format!("{path}, future's bytes over the bare one's"),
            bytes as f64,
            row.memory.over_bare_bytes as f64,
            "",
        ));
        if path != ALLOCATES {
            limits.push(at_most(
                format!("{path}, allocations per call"),
                0.0,
                row.memory.allocations_per_call,
                "",
            ));
        }
    }
    limits
}
