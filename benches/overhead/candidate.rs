//! The measurements of all guards, by round.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::guards::{Guard, Visit, prepare};
use crate::threads::{Measured, WarmUp};

/// The approximate duration of one measurement.
const SPAN: Duration = Duration::from_micros(250);
pub(crate) const THREADS: [usize; 2] = [1, 2];

/// One guard's measurements.
pub(crate) struct Candidate {
    pub(crate) guard: Box<dyn Measured>,
    /// The name of its bare function.
    bare: &'static str,
    /// By number of threads: the number of calls that take about a [`SPAN`], and the nanoseconds by round.
    calls: [u64; 2],
    pub(crate) ns: [Vec<f64>; 2],
    /// The nanoseconds over the bare function's, by round.
    pub(crate) over: [Vec<f64>; 2],
    /// As `over`, in a loop of its own. Empty unless the time depends on the processor's caches.
    pub(crate) alone: [Vec<f64>; 2],
}

impl Candidate {
    fn new<G: Guard + 'static>(guard: G) -> Self {
        let calls = THREADS.map(|threads| {
            let measured = (0..5).filter_map(|_| guard.measure(threads, 1000, WarmUp::Short));
            let per_call = measured.min_by(f64::total_cmp).unwrap_or(1000.0).max(0.5);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "millions")]
            let calls = (SPAN.as_secs_f64() * 1e9 / per_call) as u64;
            calls.max(100)
        });
        Candidate {
            guard: Box::new(guard),
            bare: G::Bare::NAME,
            calls,
            ns: Default::default(),
            over: Default::default(),
            alone: Default::default(),
        }
    }
}

/// The bare functions, by name, and the guards that are compared with them.
#[derive(Default)]
pub(crate) struct Candidates {
    pub(crate) bare: BTreeMap<&'static str, Candidate>,
    pub(crate) guarded: Vec<Candidate>,
}

impl Visit for Candidates {
    fn visit(&mut self, guard: impl Guard + 'static) {
        prepare(&guard);
        self.add_bare(&guard);
        self.guarded.push(Candidate::new(guard));
    }
}

impl Candidates {
    fn add_bare<G: Guard>(&mut self, _: &G) {
        self.bare.entry(G::Bare::NAME).or_insert_with(|| Candidate::new(G::Bare::default()));
    }

    /// Measures everything once, with one number of threads.
    pub(crate) fn round(&mut self, index: usize) {
        let threads = THREADS[index];
        let mut before = BTreeMap::new();
        for (name, bare) in &mut self.bare {
            if let Some(ns) = bare.guard.measure(threads, bare.calls[index], WarmUp::Short) {
                before.insert(*name, ns);
                bare.ns[index].push(ns);
            }
        }
        // The order rotates each round, because a candidate may profit from its predecessor.
        self.guarded.rotate_left(1);
        for candidate in &mut self.guarded {
            let Some(before) = before.get(candidate.bare) else { continue };
            let ns = candidate.guard.measure(threads, candidate.calls[index], WarmUp::Short);
            candidate.ns[index].extend(ns);
            candidate.over[index].extend(ns.map(|ns| ns - before));
        }
    }

    /// Measures once, with one number of threads, each guard whose time depends on the processor's caches, in
    /// a loop of its own.
    pub(crate) fn round_alone(&mut self, index: usize) {
        let threads = THREADS[index];
        for candidate in self.guarded.iter_mut().filter(|one| one.guard.depends_on_caches()) {
            let bare = &self.bare[candidate.bare];
            let before = bare.guard.measure(threads, bare.calls[index], WarmUp::Short);
            // The calls were counted among all other rows, where they take several times as long. In a few
            // microseconds, two threads seldom run at one speed.
            let calls = 8 * candidate.calls[index];
            let ns = candidate.guard.measure(threads, calls, WarmUp::Long);
            candidate.alone[index].extend(ns.zip(before).map(|(ns, before)| ns - before));
        }
    }
}
