//! Which losses of the store are reported.
//!
//! Where connections are dropped all the time, the store is lost and restored several times a second. The
//! first loss is reported at once, and so is its end. Brief losses that follow are only counted.

use std::time::Duration;

use crate::clock::Moment;
use crate::error::Error;
use crate::event::Event;

/// Within this time after a report, brief losses are counted. Their number is reported at its end.
const PERIOD: Duration = Duration::from_secs(10);
/// A loss that lasts longer is reported in any case.
const BRIEF: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Outages {
    reported_at: Option<Moment>,
    under_way: Option<Loss>,
    /// The number of losses that ended unreported, and the error of the latest.
    unreported: Option<(u64, Error)>,
}

struct Loss {
    since: Moment,
    error: Error,
    is_reported: bool,
}

impl Outages {
    pub(super) fn is_lost(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn lost(&mut self, error: Error, now: Moment) -> Option<Event> {
        let is_reported = self.reported_at.is_none_or(|at| now.since(at) >= PERIOD);
        let event = is_reported.then(|| Event::StoreLost(error.clone()));
        if is_reported {
            self.reported_at = Some(now);
        }
        self.under_way = Some(Loss { since: now, error, is_reported });
        event
    }

    pub(super) fn restored(&mut self) -> Option<Event> {
        let Loss { error, is_reported, .. } = self.under_way.take()?;
        if !is_reported {
            let before = self.unreported.take().map_or(0, |(count, _)| count);
            self.unreported = Some((before + 1, error));
        }
        is_reported.then_some(Event::StoreRestored)
    }

    /// When something is to be reported.
    pub(super) fn due(&self) -> Option<Moment> {
        let loss = self.under_way.as_ref().filter(|loss| !loss.is_reported);
        let summary = self.reported_at.filter(|_| self.unreported.is_some());
        [loss.map(|loss| loss.since.after(BRIEF)), summary.map(|at| at.after(PERIOD))]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn take_due(&mut self, now: Moment) -> Option<Event> {
        if self.due().is_none_or(|at| at > now) {
            return None;
        }
        self.reported_at = Some(now);
        if let Some((count, error)) = self.unreported.take() {
            let again = if count == 1 { "once".to_owned() } else { format!("{count} times") };
            let problem =
                format!("lost {again} more, each time for less than {BRIEF:?}, the last time: {error}");
            return Some(Event::Error(Error::store("keeping the connection to the store", problem)));
        }
        let loss = self.under_way.as_mut()?;
        loss.is_reported = true;
        Some(Event::StoreLost(loss.error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(1_000_000);

    fn error() -> Error {
        Error::store("exchanging counts", "the connection is closed")
    }

    #[test]
    fn losses_in_quick_succession_are_reported_as_a_change_and_a_summary() {
        let mut outages = Outages::default();
        assert!(matches!(outages.lost(error(), START), Some(Event::StoreLost(_))));
        assert!(matches!(outages.restored(), Some(Event::StoreRestored)));
        for number in 1..50 {
            let at = START.after(PERIOD / 50 * number);
            assert!(outages.take_due(at).is_none());
            assert!(outages.lost(error(), at).is_none());
            assert!(outages.is_lost());
            assert!(outages.restored().is_none());
        }
        assert_eq!(outages.due(), Some(START.after(PERIOD)));
        let Some(Event::Error(summary)) = outages.take_due(START.after(PERIOD)) else { panic!("a summary") };
        assert!(summary.is_store() && summary.to_string().contains("lost 49 times more"), "{summary}");
        assert_eq!(outages.due(), None);
        // After a quiet period, a loss is a change again.
        assert!(outages.lost(error(), START.after(PERIOD * 2)).is_some());
    }

    #[test]
    fn loss_that_lasts_is_reported_though_it_follows_another() {
        let mut outages = Outages::default();
        assert!(outages.lost(error(), START).is_some());
        assert!(outages.restored().is_some());
        assert!(outages.lost(error(), START.after(BRIEF)).is_none());
        let due = outages.due().expect("the loss is under way");
        assert_eq!(due, START.after(BRIEF * 2));
        assert!(matches!(outages.take_due(due), Some(Event::StoreLost(_))));
        assert!(outages.take_due(due.after(PERIOD)).is_none());
        assert!(matches!(outages.restored(), Some(Event::StoreRestored)));
    }
}
