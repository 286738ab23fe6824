//! How often to exchange and report: less often, the longer the store takes to answer, and while all is well.

use std::time::Duration;

use crate::breaker::machine::Cadence;
use crate::clock::Moment;

/// The shortest and the longest interval of exchanges.
const EXCHANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Of reports.
const REPORT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// An instance without anything to report sends an empty report this often, to find out whether the store has
/// lost data: lost states are written back within a second.
const HEARTBEAT: Duration = Duration::from_millis(700);
/// The shortest interval of reports while all is well.
pub(super) const CALM: Duration = Duration::from_secs(4);
/// The heartbeat while all is well: longer, because a report is a heartbeat, too.
const CALM_HEARTBEAT: Duration = Duration::from_secs(6);
/// All is well after this time with nothing but successes.
const CALM_AFTER: Duration = Duration::from_secs(10);
/// An instance that exchanges all the time sends a report at least this often: only the answer to a report
/// names breakers that the store has lost.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);

/// When the next exchange and the next reports are due. Intervals begin with the latest answer, so a slow
/// store has less to do. They vary by a quarter, so that instances that start together do not stay in step.
pub(super) struct Pace {
    /// Mean of the answer times, of which the latest has a weight of a quarter.
    answer_time: Duration,
    exchange_at: Moment,
    report_at: Moment,
    /// When a heartbeat is due, unless another request is answered before.
    heartbeat_at: Moment,
    /// When one is due although exchanges are answered; see [`LONGEST_SILENCE`].
    heartbeat_by: Moment,
    /// When there was more to tell than successes.
    disturbed_at: Moment,
    /// All is well: the number of the latest event when that was found.
    calm_since_event: Option<u64>,
    varies: bool,
}

impl Pace {
    pub(super) fn new(now: Moment) -> Self {
        Pace {
            answer_time: Duration::ZERO,
            exchange_at: now,
            report_at: now,
            heartbeat_at: now,
            heartbeat_by: now,
            disturbed_at: now,
            calm_since_event: None,
            varies: true,
        }
    }

    /// Without variation, for simulations.
    #[cfg(test)]
    pub(super) fn steady(now: Moment) -> Self {
        Pace { varies: false, ..Pace::new(now) }
    }

    /// Takes the time of an answer into account: the request was sent at `asked_at`.
    pub(super) fn answered(&mut self, asked_at: Moment, now: Moment) {
        self.answer_time = (self.answer_time * 3 + now.since(asked_at)) / 4;
        self.heartbeat_at = now.after(self.varied(self.heartbeat()));
    }

    /// There is more to tell than successes.
    pub(super) fn disturbed(&mut self, now: Moment) {
        self.disturbed_at = now;
        if self.calm_since_event.take().is_some() {
            self.heartbeat_at = self.heartbeat_at.min(now.after(self.varied(HEARTBEAT)));
        }
    }

    /// An event was written since all was found well.
    pub(super) fn has_other_event(&self, number: u64) -> bool {
        self.calm_since_event.is_some_and(|known| known != number)
    }

    /// Decides whether all is well, as of the event of this number.
    pub(super) fn settle(&mut self, event: u64, now: Moment, are_closed: impl FnOnce() -> bool) {
        let is_calm = now.since(self.disturbed_at) >= CALM_AFTER && are_closed();
        self.calm_since_event = is_calm.then_some(event);
    }

    pub(super) fn exchanged(&mut self, now: Moment) {
        self.exchange_at = now.after(self.varied(self.exchange_interval()));
    }

    /// All quiet breakers have been reported.
    pub(super) fn reported(&mut self, now: Moment) {
        self.report_at = now.after(self.varied(self.report_interval()));
    }

    /// When all quiet breakers are reported next.
    pub(super) fn report_at(&self) -> Moment {
        self.report_at
    }

    /// The slowest cadence that is due: a report includes all breakers of that and of faster ones.
    pub(super) fn due(&self, now: Moment) -> Cadence {
        if now >= self.report_at { Cadence::Usual } else { Cadence::Noticed }
    }

    pub(super) fn exchange_at(&self) -> Moment {
        self.exchange_at
    }

    /// A report was answered; it may have been empty.
    pub(super) fn report_answered(&mut self, now: Moment) {
        self.heartbeat_by = now.after(self.varied(self.heartbeat().max(LONGEST_SILENCE)));
    }

    pub(super) fn heartbeat_at(&self) -> Moment {
        self.heartbeat_at.min(self.heartbeat_by)
    }

    fn heartbeat(&self) -> Duration {
        if self.calm_since_event.is_some() { CALM_HEARTBEAT } else { HEARTBEAT }
    }

    fn exchange_interval(&self) -> Duration {
        (self.answer_time * 10).clamp(EXCHANGE.0, EXCHANGE.1)
    }

    fn report_interval(&self) -> Duration {
        let shortest = if self.calm_since_event.is_some() { CALM } else { REPORT.0 };
        (self.answer_time * 100).clamp(shortest, REPORT.1)
    }

    fn varied(&self, interval: Duration) -> Duration {
        if self.varies { vary(interval) } else { interval }
    }
}

/// The interval, more or less by up to a quarter.
pub(super) fn vary(interval: Duration) -> Duration {
    interval.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn intervals(pace: &Pace) -> (Duration, Duration) {
        (pace.exchange_interval(), pace.report_interval())
    }

    #[test]
    fn intervals_follow_the_answer_times_within_bounds() {
        let begin = Moment(1_000_000);
        let mut pace = Pace::steady(begin);
        pace.answered(begin, begin.after(MS));
        assert_eq!(intervals(&pace), (EXCHANGE.0, REPORT.0));
        for _ in 0..40 {
            pace.answered(begin, begin.after(MS * 40));
        }
        let (exchange, report) = intervals(&pace);
        assert!(exchange > MS * 390 && exchange <= MS * 400, "{exchange:?}");
        assert!(report > MS * 3900 && report <= MS * 4000, "{report:?}");
        for _ in 0..40 {
            pace.answered(begin, begin.after(MS * 300));
        }
        assert_eq!(intervals(&pace), (EXCHANGE.1, REPORT.1));
        // After a few quick answers, the intervals are short again.
        for _ in 0..16 {
            pace.answered(begin, begin.after(MS));
        }
        assert_eq!(pace.exchange_interval(), EXCHANGE.0);
    }

    #[test]
    fn questions_are_rare_while_all_is_well_and_frequent_again_at_once() {
        let begin = Moment(1_000_000);
        let mut pace = Pace::steady(begin);
        let late = begin.after(CALM_AFTER);
        pace.settle(7, late, || false);
        pace.answered(late, late);
        assert_eq!((pace.report_interval(), pace.heartbeat_at), (REPORT.0, late.after(HEARTBEAT)));
        pace.settle(7, late, || true);
        pace.answered(late, late);
        assert_eq!((pace.report_interval(), pace.heartbeat_at), (CALM, late.after(CALM_HEARTBEAT)));
        assert!(!pace.has_other_event(7) && pace.has_other_event(8));
        pace.disturbed(late);
        assert_eq!((pace.report_interval(), pace.heartbeat_at), (REPORT.0, late.after(HEARTBEAT)));
        pace.settle(8, late.after(CALM_AFTER / 2), || true);
        assert_eq!(pace.report_interval(), REPORT.0);
    }

    #[test]
    fn instances_that_start_together_do_not_stay_in_step() {
        let begin = Moment(1_000_000);
        let mut times: Vec<_> = (0..1000)
            .map(|_| {
                let mut pace = Pace::new(begin);
                pace.reported(begin);
                pace.report_at().since(begin)
            })
            .collect();
        times.sort_unstable();
        assert!(times[0] >= MS * 750 && times[999] < MS * 1250);
        assert!(times[250] < MS * 950 && times[750] > MS * 1050, "spread over the whole");
    }

    #[test]
    fn instance_that_exchanges_all_the_time_also_sends_reports() {
        let begin = Moment(1_000_000);
        let mut pace = Pace::steady(begin);
        pace.report_answered(begin);
        for exchange in 1..=25 {
            let now = begin.after(EXCHANGE.0 * exchange);
            pace.answered(now, now);
        }
        assert_eq!(pace.heartbeat_at(), begin.after(LONGEST_SILENCE));
    }
}
