//! Counts a registry's events until they are published.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::histogram::Histogram;
use crate::snapshot::{Outcomes, State};
use crate::sync::lock;

/// Counts of calls in the order of [`OUTCOMES`], followed by that of slow calls.
pub(crate) type OutcomeCounts = [u64; OUTCOMES.len() + 1];

/// The mutually exclusive outcomes.
pub(crate) const OUTCOMES: [&str; 7] =
    ["success", "failure", "ignored", "cancelled", "late", "rejected", "ramp_rejected"];

/// The name under which breakers that are not registered here are aggregated.
pub(crate) const OTHERS: &str = "(others)";

/// The number of breakers with counts of their own in one round; further ones are aggregated as [`OTHERS`].
/// It exceeds a registry's default limit and bounds memory if a recorder hangs while other instances'
/// breakers come and go.
const NAMES: usize = 16_384;

pub(crate) fn calls(outcomes: Outcomes) -> OutcomeCounts {
    let Outcomes { success, failure, slow, ignored, cancelled, late, rejected, ramp_rejected, .. } = outcomes;
    [success, failure, ignored, cancelled, late, rejected, ramp_rejected, slow]
}

/// A countable event of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    Transition {
        from: State,
        to: State,
        by: By,
    },
    CacheHit {
        shared: bool,
    },
    HealthCheck {
        passed: bool,
    },
    WouldHaveOpened,
    /// A call that was measured.
    Call,
}

/// The originator of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum By {
    /// This instance, for the fleet.
    This,
    /// Another one.
    Another,
    /// This one, locally.
    Alone,
}

/// An event's count and its durations, if it has any.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Noted {
    pub(crate) count: u64,
    pub(crate) spans: Histogram,
}

/// The events of one or several breakers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts(pub(crate) HashMap<Fact, Noted>);

impl Facts {
    fn note(&mut self, fact: Fact, span: Option<Duration>) {
        let noted = self.0.entry(fact).or_default();
        noted.count += 1;
        if let Some(span) = span {
            noted.spans.add(span);
        }
    }

    /// Adds the durations of calls that were made.
    pub(crate) fn took(&mut self, durations: &Histogram) {
        if !durations.is_empty() {
            self.0.entry(Fact::Call).or_default().spans.absorb(durations);
        }
    }

    pub(crate) fn absorb(&mut self, others: Facts) {
        for (fact, other) in others.0 {
            let noted = self.0.entry(fact).or_default();
            noted.count += other.count;
            noted.spans.absorb(&other.spans);
        }
    }
}

/// The sums of several breakers.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    pub(crate) calls: OutcomeCounts,
    pub(crate) facts: Facts,
}

/// All events of one round.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) by_name: HashMap<Arc<str>, Facts>,
    /// The counts of evicted breakers, by the pattern of their names.
    pub(crate) gone: HashMap<&'static str, Sum>,
    /// The propagation times of other instances' transitions.
    pub(crate) arrivals: Histogram,
}

/// A registry's event counters.
#[derive(Default)]
pub(crate) struct Meter(Mutex<Notes>);

impl Meter {
    pub(crate) fn note(&self, breaker: &Arc<str>, fact: Fact, span: Option<Duration>) {
        let mut notes = lock(&self.0);
        let Notes { by_name, gone, .. } = &mut *notes;
        let is_full = by_name.len() >= NAMES;
        let facts = match by_name.entry(breaker.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => &mut gone.entry(OTHERS).or_default().facts,
            Entry::Vacant(new) => new.insert(Facts::default()),
        };
        facts.note(fact, span);
    }

    /// Adds calls of a breaker that is about to be evicted.
    pub(crate) fn took(&self, breaker: &Arc<str>, durations: Histogram) {
        if !durations.is_empty() {
            lock(&self.0).by_name.entry(breaker.clone()).or_default().took(&durations);
        }
    }

    /// Notes that another instance's transition arrived `after` the store accepted it.
    pub(crate) fn arrived(&self, after: Duration) {
        lock(&self.0).arrivals.add(after);
    }

    /// Adds the counts of an evicted breaker to `sum`.
    pub(crate) fn leave(&self, breaker: &str, sum: &'static str, calls: OutcomeCounts) {
        let mut notes = lock(&self.0);
        let facts = notes.by_name.remove(breaker).unwrap_or_default();
        let sum = notes.gone.entry(sum).or_default();
        add(&mut sum.calls, calls);
        sum.facts.absorb(facts);
    }

    /// Takes all counts and resets them.
    pub(crate) fn take(&self) -> Notes {
        std::mem::take(&mut *lock(&self.0))
    }
}

pub(crate) fn add(sum: &mut OutcomeCounts, calls: OutcomeCounts) {
    for (sum, calls) in sum.iter_mut().zip(calls) {
        *sum += calls;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_limit_are_aggregated() {
        let meter = Meter::default();
        for number in 0..2 * NAMES {
            meter.note(&format!("b{number}").into(), Fact::WouldHaveOpened, None);
        }
        meter.note(&"b0".into(), Fact::WouldHaveOpened, None);
        let notes = meter.take();
        assert_eq!(notes.by_name.len(), NAMES);
        assert_eq!(notes.by_name["b0"].0[&Fact::WouldHaveOpened].count, 2);
        assert_eq!(notes.gone[OTHERS].facts.0[&Fact::WouldHaveOpened].count, NAMES as u64);
        assert!(meter.take().by_name.is_empty(), "the counts are reset");
    }

    #[test]
    fn evicted_breakers_are_aggregated() {
        let meter = Meter::default();
        let hit = Fact::CacheHit { shared: false };
        for (name, calls) in [("t-1", 3), ("t-2", 4)] {
            meter.note(&name.into(), hit, Some(Duration::from_secs(2)));
            meter.leave(name, "t-{id}", [calls; 8]);
        }
        let notes = meter.take();
        let sum = &notes.gone["t-{id}"];
        assert_eq!(sum.calls, [7; 8]);
        assert_eq!(sum.facts.0[&hit].count, 2);
        assert_eq!(sum.facts.0[&hit].spans.iter().map(|(_, count)| count).sum::<usize>(), 2);
        assert!(notes.by_name.is_empty());
    }
}
