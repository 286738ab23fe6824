//! What happens in a registry, as numbers, until they are published.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::histogram::Histogram;
use crate::snapshot::{Outcomes, State};
use crate::sync::lock;

/// What has become of calls, in the order of [`OUTCOMES`], and how many of them were slow.
pub(crate) type Calls = [u64; OUTCOMES.len() + 1];

/// The outcomes that exclude each other.
pub(crate) const OUTCOMES: [&str; 7] =
    ["success", "failure", "ignored", "cancelled", "late", "rejected", "ramp_rejected"];

/// What is known only of breakers that are not registered here is summed up under this name.
pub(crate) const OTHERS: &str = "(others)";

/// Beyond so many breakers in one round, further ones are among the [`OTHERS`]. More than a registry has, unless it
/// was told to have more; this is for a recorder that hangs while others' breakers come and go.
const NAMES: usize = 16_384;

pub(crate) fn calls(outcomes: Outcomes) -> Calls {
    let Outcomes { success, failure, slow, ignored, cancelled, late, rejected, ramp_rejected } = outcomes;
    [success, failure, ignored, cancelled, late, rejected, ramp_rejected, slow]
}

/// Something that happens to a breaker now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    Transition { from: State, to: State, by: By },
    CacheHit { shared: bool },
    HealthCheck { passed: bool },
    WouldHaveOpened,
}

/// Who has brought a transition about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum By {
    /// This instance, for the fleet.
    This,
    /// Another one.
    Another,
    /// This one, for itself alone.
    Alone,
}

/// How often, and the spans that belong to it, if some do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Noted {
    pub(crate) count: u64,
    pub(crate) spans: Histogram,
}

/// What has happened to a breaker, or to several.
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

    pub(crate) fn absorb(&mut self, others: Facts) {
        for (fact, other) in others.0 {
            let noted = self.0.entry(fact).or_default();
            noted.count += other.count;
            noted.spans.absorb(&other.spans);
        }
    }
}

/// What several breakers have together.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    pub(crate) calls: Calls,
    pub(crate) facts: Facts,
}

/// All that has been noted in one round.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) by_name: HashMap<Arc<str>, Facts>,
    /// What is left of breakers that have been let go, by what their names had in common.
    pub(crate) gone: HashMap<&'static str, Sum>,
    /// How long other instances' changes took to arrive.
    pub(crate) arrivals: Histogram,
}

/// Where a registry notes what happens.
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

    /// Another instance's change of state has arrived, so long after the store had it.
    pub(crate) fn arrived(&self, after: Duration) {
        lock(&self.0).arrivals.add(after);
    }

    /// A breaker is let go: what is left of it counts as `sum`'s.
    pub(crate) fn leave(&self, breaker: &str, sum: &'static str, calls: Calls) {
        let mut notes = lock(&self.0);
        let facts = notes.by_name.remove(breaker).unwrap_or_default();
        let sum = notes.gone.entry(sum).or_default();
        add(&mut sum.calls, calls);
        sum.facts.absorb(facts);
    }

    /// All there is; from now on it notes anew.
    pub(crate) fn take(&self) -> Notes {
        std::mem::take(&mut *lock(&self.0))
    }
}

pub(crate) fn add(sum: &mut Calls, calls: Calls) {
    for (sum, calls) in sum.iter_mut().zip(calls) {
        *sum += calls;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_names_is_bounded_and_nothing_of_it_lost() {
        let meter = Meter::default();
        for number in 0..2 * NAMES {
            meter.note(&format!("b{number}").into(), Fact::WouldHaveOpened, None);
        }
        meter.note(&"b0".into(), Fact::WouldHaveOpened, None);
        let notes = meter.take();
        assert_eq!(notes.by_name.len(), NAMES);
        assert_eq!(notes.by_name["b0"].0[&Fact::WouldHaveOpened].count, 2);
        assert_eq!(notes.gone[OTHERS].facts.0[&Fact::WouldHaveOpened].count, NAMES as u64);
        assert!(meter.take().by_name.is_empty(), "what was taken is not there any more");
    }

    #[test]
    fn what_a_breaker_leaves_behind_goes_to_the_sum() {
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
