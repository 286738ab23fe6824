//! Notices: before a decision rests on the fleet's counts, all instances report theirs.
//!
//! A rate near its limit may be above it only because other instances have not reported their latest
//! successes. The first instance to see this asks the store for a notice, which all instances receive. They
//! then report the breaker with every review, and a decision waits until they have.

use std::time::Duration;

use super::policy::{self, TripInput};
use super::{Now, StateMachine};
use crate::clock::Moment;
use crate::snapshot::State;
use crate::store::{Counts, NOTICE, NOTICE_PAUSE};

/// Fleet counts that may lack outcomes older than this are refreshed before a decision rests on them.
const FRESH: Duration = Duration::from_millis(200);
/// Older fleet counts are refreshed before failures in a row, or a rate of the last calls, trip on them:
/// other instances may have succeeded since. An instance that has failed lately requests them more often.
const OLD: Duration = Duration::from_secs(2);
/// By this time and an answer time after a notice, all instances have reported what they had counted before
/// it: they review the breaker every [`PACE`](super::PACE).
const SETTLING: Duration = Duration::from_millis(130);
/// A decision waits no longer than this and two answer times for a notice that the store does not give.
const NO_NOTICE: Duration = Duration::from_millis(500);
/// An instance that the store has not answered yet decides alone only this soon after the registration. The
/// first call asks the store, so a burst of failures may be faster than the first answer; later, the other
/// instances of a fleet that starts at once have outcomes, too.
const UNANSWERED: Duration = Duration::from_millis(50);

/// The latest notice of a breaker, as this instance knows it.
#[derive(Debug, Default)]
pub(super) struct Notice {
    given_at: Option<Moment>,
    /// When the store was last asked for one.
    asked_at: Option<Moment>,
    /// Since when a decision waits for the other instances' reports.
    awaited_since: Option<Moment>,
}

impl Notice {
    /// All instances report the breaker with every review.
    pub(super) fn is_on(&self, now: Moment) -> bool {
        self.given_at.is_some_and(|at| now.since(at) < NOTICE)
    }

    /// It is too early for another one.
    fn is_recent(&self, now: Moment) -> bool {
        self.given_at.is_some_and(|at| now.since(at) < NOTICE / 2)
    }

    /// The store gives it within this time, to all breakers that need one: asking again would not hasten it.
    fn is_requested(&self, now: Moment) -> bool {
        self.asked_at.is_some_and(|at| now.since(at) < NOTICE_PAUSE)
    }

    /// Whether the fleet's counts of `received_at` may lack reports that the notice has asked for.
    fn awaits_reports(&mut self, received_at: Option<Moment>, now: Now) -> bool {
        let Now { at: now, answer_time, .. } = now;
        let since = *self.awaited_since.get_or_insert(now);
        let received_after = |at: Moment| received_at.is_some_and(|received| received >= at);
        // They have what the others had counted until this long before.
        let is_fresh = received_at.is_some_and(|at| now.since(at) + SETTLING <= FRESH);
        match self.given_at {
            Some(at) if self.is_on(now) => !(received_after(at.after(SETTLING + answer_time)) && is_fresh),
            _ => now.since(since) < NO_NOTICE + 2 * answer_time || !received_after(since),
        }
    }

    /// No decision waits any more.
    pub(super) fn end_wait(&mut self) {
        self.awaited_since = None;
    }
}

impl StateMachine {
    /// Handles a notice, which the store has given at this time.
    pub(crate) fn take_notice(&mut self, given_at: Moment) {
        self.notice.given_at = self.notice.given_at.max(Some(given_at));
    }

    /// Whether the next entry requests a notice.
    pub(super) fn requests_notice(&mut self, now: Now) -> bool {
        let wants = self.wants_notice(now);
        if wants {
            self.notice.asked_at = Some(now.at);
        }
        wants
    }

    /// Whether to ask for a notice at once.
    pub(super) fn needs_notice(&self, now: Now) -> bool {
        !self.notice.is_requested(now.at) && self.wants_notice(now)
    }

    /// Whether to request a notice: the fleet's counts are near a limit, and other instances may not know
    /// that.
    fn wants_notice(&self, now: Now) -> bool {
        let input = || self.trip_input(now);
        now.store_up
            && !self.only_observes
            && !self.notice.is_recent(now.at)
            && self.state() == State::Closed
            && self.local.is_none()
            && self.confirmed.is_some()
            && (policy::nears_limit(&self.settings, input().window)
                || policy::streak_nears_limit(&self.settings, input().streak))
    }

    /// Whether a decision on a rate has to wait for the other instances' reports.
    pub(super) fn awaits_reports(&mut self, now: Now) -> bool {
        now.is_shared
            && (now.store_up || self.answered)
            && self.stats.has_time_window()
            && !self.decides_alone(now)
            && self.notice.awaits_reports(self.received_at, now)
    }

    /// Whether a decision that waits for no reports has to wait for the next answer, because it would rest on
    /// old counts of the fleet. The failure that it follows is exchanged in any case. A node that has left
    /// since must not meet a quorum.
    pub(super) fn rests_on_old_counts(&self, input: &TripInput, quorum: u32, now: Now) -> bool {
        let limit = if quorum > 1 { FRESH } else { OLD };
        let is_old = self.received_at.is_some_and(|at| now.at.since(at) > limit);
        // Rates over time wait for the other instances' reports instead.
        let is_rate = self.stats.has_time_window() && !policy::trips_by_streak(&self.settings, input, quorum);
        let since = || self.stats.input_since_answer(self.sent());
        is_old
            && now.store_up
            && now.is_shared
            && !is_rate
            && policy::trip(&self.settings, &since(), quorum).is_none()
    }

    /// This instance's own counts are enough for a decision, and the store knows of no others. At a fleet's
    /// start, the others' first outcomes are reported at once, so an old answer is not enough, and neither is
    /// one that took long: what it shows is older, and the others' reports take as long.
    fn decides_alone(&self, now: Now) -> bool {
        let Some(own) = self.own_trip_input(now) else { return false };
        let total = |counts: Counts| counts.successes + counts.failures;
        let knows_no_others = match self.received_at {
            Some(at) => {
                now.at.since(at) + 2 * now.answer_time <= FRESH
                    && total(self.trip_input(now).window) <= total(own.window)
            }
            None => now.at.since(self.configured_at) <= UNANSWERED,
        };
        knows_no_others && policy::trip(&self.settings, &own, 1).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::DatedRecord;
    use super::super::stats::{Successes, Unjudged};
    use super::super::{CallResult, Wake};
    use super::*;
    use crate::config::BreakerConfig;
    use crate::store::Record;

    const MS: Duration = Duration::from_millis(1);

    fn now(millis: u32, answer_time: Duration) -> Now {
        let at = Moment(1_000_000).after(MS * millis);
        Now { at, skew: 0, store_up: true, is_shared: true, answer_time, random: 0.0 }
    }

    /// The first moments, in milliseconds after a decision began to wait, at which it waits no longer: with
    /// a notice at once, and without one. Counts are received all the time.
    fn waits(answer_time: Duration) -> [u32; 2] {
        [Some(now(0, answer_time).at), None].map(|given_at| {
            let mut notice = Notice { given_at, ..Notice::default() };
            let is_over = |millis: &u32| {
                let now = now(*millis, answer_time);
                !notice.awaits_reports(Some(now.at), now)
            };
            (0..10_000).find(is_over).expect("every wait ends")
        })
    }

    #[test]
    fn waits_for_reports_follow_the_answer_times() {
        assert_eq!(waits(Duration::ZERO), [130, 500]);
        assert_eq!(waits(MS * 450), [580, 1400]);
    }

    /// Ten failures in a burst, `millis` after the registration.
    fn burst(millis: u32, answered_at: Option<u32>, answer_time: Duration) -> StateMachine {
        let config = BreakerConfig::default().failure_rate_threshold(0.5).minimum_calls(10);
        let settings = config.window(Duration::from_secs(60)).resolve().unwrap();
        let mut machine = StateMachine::new(settings, "a".into(), None, now(0, MS).at);
        machine.received_at = answered_at.map(|millis| now(millis, MS).at);
        for _ in 0..10 {
            machine.absorb(Successes::default(), Unjudged::default(), now(millis, answer_time));
            machine.record_call(CallResult::Failure { slow: false }, now(millis, answer_time));
        }
        machine
    }

    /// Whether they open the breaker at once.
    fn burst_opens(millis: u32, answered_at: Option<u32>, answer_time: Duration) -> bool {
        burst(millis, answered_at, answer_time).state() == State::Open
    }

    #[test]
    fn notice_that_the_store_delays_is_not_requested_with_every_answer() {
        let mut machine = burst(500, Some(290), MS);
        machine.confirmed = Some(DatedRecord::new(Record::closed(), now(0, MS).at));
        let mut wake_at = |millis: u32, sends: bool| {
            machine.judge(now(millis, MS));
            let wake = machine.take_wake();
            if sends {
                assert!(machine.encode(false, now(millis, MS)).notice);
            }
            wake
        };
        assert!(matches!(wake_at(500, true), Some(Wake::AtOnce)));
        assert!(matches!(wake_at(501, false), Some(Wake::Paced)));
        assert!(matches!(wake_at(602, false), Some(Wake::AtOnce)), "the store has not given it in time");
    }

    #[test]
    fn instance_decides_alone_without_an_answer_only_right_after_its_registration() {
        assert!(burst_opens(10, None, MS));
        assert!(!burst_opens(225, None, MS), "forty calls a second: others have ten by now, too");
    }

    #[test]
    fn instance_decides_alone_after_an_answer_only_if_that_is_fresh_and_was_fast() {
        assert!(burst_opens(500, Some(400), MS));
        assert!(!burst_opens(500, Some(290), MS), "it is old");
        assert!(!burst_opens(500, Some(470), 306 * MS), "the others' first reports may be on their way");
    }

    #[test]
    fn counts_from_before_the_reports_are_not_enough() {
        let mut notice = Notice { given_at: Some(now(0, MS).at), ..Notice::default() };
        assert!(notice.awaits_reports(Some(now(100, MS).at), now(140, MS)));
        assert!(!notice.awaits_reports(Some(now(135, MS).at), now(140, MS)));
        assert!(notice.awaits_reports(Some(now(135, MS).at), now(400, MS)), "they are older than FRESH");
    }
}
