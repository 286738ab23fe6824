//! What holds after every step, whatever happens.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::instance::{Instance, Seen, context};
use super::world::{Loss, World};
use super::{BUDGET, KEYED, PROBE_LIMIT, Rules, has_quorum};
use crate::breaker::context::RegistryContext;
use crate::breaker::counters::Outcome;
use crate::clock::{Clock, Moment, micros};
use crate::event::{Event, Transition};
use crate::snapshot::{Snapshot, State};

/// A caller that waits for a probe is answered within this time, in which its instance runs.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// An event or an answer takes at most this long. An instance takes a state for younger than it is, by up to
/// this time.
const LONGEST_WAY: Duration = Duration::from_millis(500);

/// A breaker's state, for messages.
pub(super) fn shown(s: &Snapshot) -> String {
    format!("{} {} epoch {} local {} ({})", s.name, s.state, s.epoch, s.local, s.reason)
}

/// The moment of a wall-clock time, which rests on what this instance knows of the store's clock by now.
fn moment(context: &RegistryContext, at: SystemTime, now: Moment) -> Moment {
    let age = context.wall(now).duration_since(at).unwrap_or_default();
    Moment(now.0.saturating_sub(micros(age)))
}

/// A call of this epoch has ended: a late outcome changes nothing, and one of an earlier epoch is late.
/// `epoch`: `None` if the store had not confirmed the state in which the call began.
pub(super) fn assert_outcome(epoch: Option<u64>, outcome: Outcome, before: &Snapshot, after: &Snapshot) {
    let is_late = after.outcomes.late > before.outcomes.late;
    if is_late {
        let judged = |s: &Snapshot| (s.state, s.epoch, s.failures, s.successes, s.consecutive_failures);
        assert_eq!(judged(before), judged(after), "a late outcome changes nothing");
    }
    // Before the first contact with the store, the epoch is not known.
    let is_earlier = |epoch: &u64| *epoch > 0 && before.epoch != *epoch && !before.local && !after.local;
    if let Some(epoch) = epoch.filter(is_earlier) {
        let says_nothing = outcome == Outcome::Cancelled;
        assert!(is_late || says_nothing, "an outcome of epoch {epoch} is late: {}", shown(before));
    }
}

impl World {
    pub(super) fn assert_invariants(&mut self) {
        let now = self.clock.now();
        for instance in &mut self.instances {
            instance.assert_invariants(&self.deleted, self.is_trimmed, self.loss, now);
        }
        self.assert_budgets(now);
        self.assert_overrides();
        for caller in &self.waiting {
            assert!(caller.waited < LONGEST_WAIT, "a caller waits for ever: {}", self.states());
        }
    }

    /// Among instances that have been connected all the while, the probes of one epoch that are under way
    /// never exceed the budget. The leases of probes that were asked for before the store lost its data are
    /// lost with it.
    fn assert_budgets(&self, now: Moment) {
        let mut probes: HashMap<(Arc<str>, u64), u32> = HashMap::new();
        for call in self.calls.iter().filter(|call| call.is_probe) {
            let snapshot = call.core.snapshot_without_settings();
            let connected_since = self.instances[call.instance].before.connected_since;
            let is_counted = connected_since.is_some_and(|since| since < call.begun)
                && !snapshot.local
                && self.disturbed_at < call.asked
                && now.since(call.begun) < PROBE_LIMIT
                && (snapshot.state, snapshot.epoch) == (State::HalfOpen, call.epoch);
            if is_counted {
                *probes.entry((call.core.name().clone(), call.epoch)).or_default() += 1;
            }
        }
        for ((name, epoch), count) in probes {
            assert!(count <= BUDGET, "{count} probes of {name} in epoch {epoch}");
        }
    }
}

impl Instance {
    fn assert_invariants(&mut self, deleted: &BTreeSet<&str>, is_trimmed: bool, loss: Loss, now: Moment) {
        let failures = self.context.connection.failures.load(Ordering::Relaxed);
        // It may have been restored since the previous step.
        let was_lost = std::mem::replace(&mut self.before.failures, failures) != failures;
        let is_away = was_lost || !self.context.store_up() || self.is_paused();
        while let Some(event) = self.events.try_recv() {
            if let Event::Transition(transition) = event {
                self.assert_announced_once(&transition, deleted, loss);
            }
        }
        if is_away {
            self.before.connected_since = None;
        } else {
            self.before.connected_since.get_or_insert(now);
        }
        for core in self.registered() {
            let after = core.snapshot_without_settings();
            let was_alone = self.before.seen.get(core.name()).is_some_and(|before| !before.is_shared);
            let is_shared = !(is_away || after.local && was_alone);
            let Snapshot { state, epoch, since, .. } = after;
            let since = since.map(|since| moment(&self.context, since, now));
            let is_local = after.local;
            let seen = Seen { core: Arc::downgrade(&core), state, epoch, since, is_shared, is_local };
            let before = self.before.seen.insert(core.name().clone(), seen);
            let Some(before) = before.filter(|before| before.core.as_ptr() == Arc::as_ptr(&core)) else {
                continue;
            };
            // An instance that has missed events believes a store that does not know the state. It may have
            // tripped since. If the stream is trimmed, instances that know less may have gone on meanwhile.
            let has_ended = (epoch <= 1 || is_trimmed) && deleted.contains(&**core.name());
            assert!(
                epoch >= before.epoch || has_ended,
                "the epoch went back from {}: {}",
                before.epoch,
                shown(&after)
            );
            let by_default = after.reason.ends_with("(limit 5)");
            assert!(!by_default, "an instance without its settings has judged it: {}", shown(&after));
            let is_undone = (before.state, state) == (State::Open, State::Closed) && epoch == before.epoch;
            // While answers are late, an instance also closes by its own checks what it has opened, and under
            // other settings what it would not have opened.
            let may_close_alone =
                has_quorum(core.name(), self.rules) || self.rules == Rules::Checked || self.had_other_rules;
            let opened_alone = before.is_local && may_close_alone;
            let is_alone = !is_shared || !before.is_shared || after.local || opened_alone;
            // A store that has lost the trip gives its number a second time. Its state stands.
            let is_given_twice = before.since.is_some_and(|since| since <= loss.at.after(LONGEST_WAY));
            assert!(
                !is_undone || is_alone || is_given_twice,
                "a trip was undone within its epoch: {}",
                shown(&after)
            );
        }
    }

    /// A subscriber hears of every epoch once, in order.
    fn assert_announced_once(&mut self, transition: &Transition, deleted: &BTreeSet<&str>, loss: Loss) {
        let name: Arc<str> = transition.breaker.clone();
        let is_forgotten = KEYED.contains(&&*name) || !self.pins || deleted.contains(&*name);
        let id = transition.cursor.as_ref().map_or("", |cursor| &*cursor.id);
        let serial = id.split('-').next().and_then(|serial| serial.parse().ok()).unwrap_or(u64::MAX);
        let announced = &mut self.before.announced;
        let Some((last, written)) = announced.insert(name, (transition.epoch, serial)) else { return };
        // A store that has lost data may give a number twice, also one of an event that arrives later. What
        // was announced of a breaker is forgotten when the breaker is evicted, and when the store holds it no
        // longer.
        let may_repeat = is_forgotten && written <= loss.serial;
        let Transition { breaker, epoch, .. } = transition;
        assert!(last < *epoch || may_repeat, "epoch {epoch} of {breaker} was announced after {last}");
    }
}

/// In seed 445884, the store's clock is set back between an opening and the loss of the store's data. By
/// wall-clock times, the opening seems to be later than the loss.
#[test]
fn beginning_of_a_state_stays_where_it_was_when_the_stores_clock_is_set_back() {
    let context = context("a", Clock::manual().0);
    let [began, lost, now] = [7_000_000, 8_000_000, 9_000_000].map(Moment);
    context.set_skew(1_700_000_600_000_000);
    let told = context.wall(began);
    let since = moment(&context, told, now);
    context.set_skew(1_700_000_000_000_000);
    assert!(told > context.wall(lost));
    assert_eq!(since, began);
}
