//! The end of a history: every fault ends, and the fleet agrees.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{BREAKERS, World};
use super::{INSTANCES, PROBE_LIMIT, RULES, Rules, has_quorum};
use crate::breaker::counters::Outcome;
use crate::snapshot::{Snapshot, State};
use crate::store::tests::fleet;

/// Without another transition for this long, all instances know the last one. An instance whose reader is
/// connected to another server learns of it from an answer, and while all is well it asks every 6 s. It then
/// makes a new connection after 1.4 s: two shorter heartbeats, because an event is overdue after one second.
const CALM: Duration = Duration::from_secs(8);

impl World {
    /// Every fault ends. Then the fleet agrees, a failing dependency opens every circuit, and a healthy one
    /// leads back to closed.
    pub(super) async fn heal(&mut self) {
        self.is_healing = true;
        self.checks.mend();
        for instance in &mut self.instances {
            instance.wire.mend();
            instance.resume();
            instance.configure(self.rules);
        }
        self.settle(CALM).await;
        self.assert_agreed(&self.deleted).await;
        self.release_all().await;
        self.settle(CALM).await;
        self.assert_agreed(&self.deleted).await;
        if self.rules == Rules::Checked {
            // A circuit that was half-open before it got a check waits for calls.
            let may_wait = |state| self.is_configured_anew && state == State::HalfOpen;
            let is_checked = |name: &str| self.instances.iter().any(|instance| instance.has_registered(name));
            let is_closed =
                |s: Snapshot| s.state == State::Closed || may_wait(s.state) || !is_checked(&s.name);
            let are_closed = self.snapshots().all(is_closed);
            assert!(are_closed, "every check passes, and yet: {}", self.states());
        }
        let is_rejecting = |snapshot: Snapshot| snapshot.state != State::Closed && !snapshot.local;
        self.call_until(Outcome::Failure, is_rejecting).await;
        let is_closed = |snapshot: Snapshot| snapshot.state == State::Closed && !snapshot.local;
        self.call_until(Outcome::Success, is_closed).await;
        self.settle(CALM).await;
        self.assert_agreed(&BTreeSet::new()).await;
    }

    /// Every instance calls every breaker with this outcome, until each breaker's state is the expected one.
    async fn call_until(&mut self, outcome: Outcome, is_expected: fn(Snapshot) -> bool) {
        self.checks.pass = Some(outcome == Outcome::Success);
        for round in 0.. {
            assert!(round < 60, "{outcome:?} all the time, and yet: {}", self.states());
            for number in 0..INSTANCES {
                for breaker in 0..BREAKERS {
                    self.call(number, breaker);
                }
            }
            self.run_tasks().await;
            while let Some(index) = self.calls.iter().position(|call| !call.hangs) {
                self.end_call(index, outcome);
            }
            self.advance(Duration::from_millis(500)).await;
            self.trace(|| format!("{outcome:?}"));
            self.assert_invariants();
            if self.snapshots().all(is_expected) {
                break;
            }
        }
    }

    /// Time passes: this long, and until the last transition is some time ago. A probe that hangs counts as
    /// failed long after every fault has ended, and the transition that follows takes its time: an event that
    /// does not arrive is looked for after a second.
    async fn settle(&mut self, span: Duration) {
        let step = Duration::from_millis(200);
        let (mut passed, mut calm, mut before) = (Duration::ZERO, Duration::ZERO, self.known());
        while passed < span || calm < CALM && passed < span + PROBE_LIMIT {
            self.advance(step).await;
            self.trace(|| "heals".to_owned());
            self.assert_invariants();
            let known = self.known();
            calm = if known == before { calm + step } else { Duration::ZERO };
            before = known;
            passed += step;
        }
    }

    /// Each breaker's state, as its instance knows it.
    fn known(&self) -> Vec<(State, u64, bool)> {
        self.snapshots().map(|snapshot| (snapshot.state, snapshot.epoch, snapshot.local)).collect()
    }

    /// `learn_later`: breakers of which an instance may know an older state until it is called.
    async fn assert_agreed(&self, learn_later: &BTreeSet<&str>) {
        let rows = fleet(&*self.store).await;
        for snapshot in self.snapshots() {
            let stored = rows.iter().find(|row| *row.name == *snapshot.name);
            let truth = stored.map_or((State::Closed, 0), |row| {
                let (record, ..) = row.view.as_ref().expect("the memory store reads its own");
                (record.state, record.epoch)
            });
            let known = (snapshot.state, snapshot.epoch);
            // With a quorum, it does so if only its own calls fail. If it had one before, it goes on alone
            // until it is called.
            let rules = if self.is_configured_anew { &RULES[..] } else { std::slice::from_ref(&self.rules) };
            let may_be_alone = rules.iter().any(|rules| has_quorum(&snapshot.name, *rules));
            assert!(!snapshot.local || may_be_alone, "an instance goes on alone: {}", self.states());
            // What is closed is not asked after until it is called.
            let closed = known.0 == State::Closed && (truth.0 == State::Closed || known.1 > truth.1);
            // The store was restored, and no connection broke. An instance that was started after the key had
            // been deleted, or that has read only older events, learns of the state with its next call.
            let is_older = known == (State::Closed, 0) || truth.0 == State::Closed && known.1 < truth.1;
            let is_excused = is_older && learn_later.contains(&*snapshot.name) && !self.is_trimmed;
            assert!(
                known == truth || closed || is_excused || snapshot.local,
                "{}: the store has {truth:?}: {}",
                snapshot.name,
                self.states()
            );
        }
    }
}
