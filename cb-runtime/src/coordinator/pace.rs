//! How often to talk to the store: less often, the longer its answers take.

use std::time::Duration;

use crate::clock::Moment;

/// The bounds of the intervals.
const EXCHANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
const REPORT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// An instance that has nothing to tell asks this often whether the store still holds what it held: one that
/// has lost its data is given back what this instance knows within a second.
const HEARTBEAT: Duration = Duration::from_millis(700);
/// An instance asks at least this often, even while it exchanges: only the answer to a report names breakers
/// that the store has lost.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);

/// When the next exchange, report and question are due. Times are counted from answers, so a store that is
/// slow is asked less; they vary by a quarter, so that instances which began together do not go on together.
pub(super) struct Pace {
    /// Mean of the answer times, of which the latest has a weight of a quarter.
    answer_time: Duration,
    exchange_at: Moment,
    report_at: Moment,
    ask_at: Moment,
    ask_by: Moment,
    varies: bool,
}

impl Pace {
    pub(super) fn new(now: Moment) -> Self {
        Pace {
            answer_time: Duration::ZERO,
            exchange_at: now,
            report_at: now,
            ask_at: now,
            ask_by: now,
            varies: true,
        }
    }

    /// One without variation, for a fleet in which all else is decided by a seed.
    #[cfg(test)]
    pub(super) fn steady(now: Moment) -> Self {
        Pace { varies: false, ..Pace::new(now) }
    }

    /// The store has answered at `now` what was asked at `asked_at`.
    pub(super) fn answered(&mut self, asked_at: Moment, now: Moment) {
        self.answer_time = (self.answer_time * 3 + now.since(asked_at)) / 4;
        self.ask_at = now.after(self.varied(HEARTBEAT));
    }

    pub(super) fn exchanged(&mut self, now: Moment) {
        self.exchange_at = now.after(self.varied(self.exchange_interval()));
    }

    pub(super) fn reported(&mut self, now: Moment) {
        self.report_at = now.after(self.varied(self.report_interval()));
    }

    pub(super) fn exchange_at(&self) -> Moment {
        self.exchange_at
    }

    pub(super) fn report_at(&self) -> Moment {
        self.report_at
    }

    /// The store has answered a report, which may have been empty.
    pub(super) fn asked(&mut self, now: Moment) {
        self.ask_by = now.after(self.varied(LONGEST_SILENCE));
    }

    pub(super) fn ask_at(&self) -> Moment {
        self.ask_at.min(self.ask_by)
    }

    fn exchange_interval(&self) -> Duration {
        (self.answer_time * 10).clamp(EXCHANGE.0, EXCHANGE.1)
    }

    fn report_interval(&self) -> Duration {
        (self.answer_time * 100).clamp(REPORT.0, REPORT.1)
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
        // Eight quick answers, and it is over.
        for _ in 0..16 {
            pace.answered(begin, begin.after(MS));
        }
        assert_eq!(pace.exchange_interval(), EXCHANGE.0);
    }

    #[test]
    fn instances_that_begin_together_do_not_go_on_together() {
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
    fn instance_that_exchanges_all_the_time_asks_as_well() {
        let begin = Moment(1_000_000);
        let mut pace = Pace::steady(begin);
        pace.asked(begin);
        for exchange in 1..=25 {
            let now = begin.after(EXCHANGE.0 * exchange);
            pace.answered(now, now);
        }
        assert_eq!(pace.ask_at(), begin.after(LONGEST_SILENCE));
    }
}
