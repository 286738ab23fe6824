//! Measures the calls of one guard, by one thread or by two at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::guards::{Circuit, Guard, call_with, runtime, trip};

/// Two threads ran at the same time if they did for this share of the longer one's duration.
const TOGETHER: f64 = 0.8;

/// A guard, as a trait object.
pub(crate) trait Measured {
    fn name(&self) -> &'static str;
    fn how(&self) -> &'static str;
    fn is_ours(&self) -> bool;
    /// Whether its time depends on what the processor's caches hold.
    fn depends_on_caches(&self) -> bool;
    /// Nanoseconds per call, measured by the threads; `None` if they did not run at the same time.
    fn measure(&self, threads: usize, calls: u64, warm_up: WarmUp) -> Option<f64>;
    /// Whether the circuit is in the state that is measured.
    fn assert_circuit(&self);
    /// Checks that it is a working guard: a closed one still opens.
    fn assert_guarding(&self);
}

impl<G: Guard> Measured for G {
    fn name(&self) -> &'static str {
        G::NAME
    }

    fn how(&self) -> &'static str {
        G::HOW
    }

    fn is_ours(&self) -> bool {
        G::OURS
    }

    fn depends_on_caches(&self) -> bool {
        G::DEPENDS_ON_CACHES
    }

    #[inline(never)]
    fn measure(&self, threads: usize, calls: u64, warm_up: WarmUp) -> Option<f64> {
        let spans = run_together(self, threads, calls, warm_up);
        if overlap(&spans) < TOGETHER {
            return None;
        }
        let spent: Duration = spans.iter().map(|(begin, end)| *end - *begin).sum();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let calls = (calls * threads as u64) as f64;
        Some(spent.as_secs_f64() * 1e9 / calls)
    }

    fn assert_circuit(&self) {
        assert_eq!(self.circuit(), G::MEASURED, "{}", G::NAME);
        self.check();
    }

    fn assert_guarding(&self) {
        if G::MEASURED == Circuit::Closed {
            trip(self);
        }
    }
}

/// The calls that each thread makes before those that are measured.
#[derive(Clone, Copy)]
pub(crate) enum WarmUp {
    /// A hundred calls. The caches of the processor hold what the rows before have used.
    Short,
    /// Calls for [`LONG`]: a loop that makes no other calls than these.
    Long,
}

const LONG: Duration = Duration::from_millis(20);

/// When a thread began and ended.
type Span = (Instant, Instant);

/// Concurrent calls of N threads.
fn run_together<G: Guard>(guard: &G, threads: usize, calls: u64, warm_up: WarmUp) -> Vec<Span> {
    let ready = AtomicUsize::new(0);
    let one = || {
        let (runtime, mut caller) = (runtime(), guard.caller());
        let begin = Instant::now();
        runtime.block_on(call_with(guard, &mut caller, 100));
        while matches!(warm_up, WarmUp::Long) && begin.elapsed() < LONG {
            runtime.block_on(call_with(guard, &mut caller, 100));
        }
        ready.fetch_add(1, Ordering::AcqRel);
        // Not a barrier: a thread that sleeps at a barrier starts later than the other, by a wake-up.
        while ready.load(Ordering::Acquire) < threads {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        runtime.block_on(call_with(guard, &mut caller, calls));
        (begin, Instant::now())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let mut spans = vec![one()];
        spans.extend(others.into_iter().map(|other| other.join().expect("it does not panic")));
        spans
    })
}

/// The share of the longest duration in which all threads were running. On a busy machine, they may run one
/// after the other instead.
fn overlap(spans: &[Span]) -> f64 {
    let (Some(begin), Some(end)) =
        (spans.iter().map(|(begin, _)| *begin).max(), spans.iter().map(|(_, end)| *end).min())
    else {
        return 0.0;
    };
    let longest = spans.iter().map(|(begin, end)| *end - *begin).max().unwrap_or_default();
    end.saturating_duration_since(begin).as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE)
}
