//! What an instance tells the fleet of one of its breakers.

use super::Core;
use crate::clock::unix_us_of;
use crate::snapshot::Outcomes;
use crate::strategy::Calls;

/// A breaker at one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) outcomes: Outcomes,
    /// What the instance judges by, if it judges by a window.
    pub(crate) window: Option<Calls>,
    /// Trips that a metrics-only breaker would have made.
    pub(crate) would_have_opened: u64,
    /// When the latest of them would have been, in µs since 1970; 0 = never.
    pub(crate) would_have_opened_us: u64,
    /// The instance has opened only locally, because the others do not see its failures.
    pub(crate) is_isolated: bool,
}

impl Figures {
    /// Together with another instance's. Both know nearly the same window: the one with more calls in it
    /// knows more.
    pub(crate) fn plus(self, other: Figures) -> Figures {
        let window = [self.window, other.window].into_iter().flatten().max_by_key(|window| window.total());
        Figures {
            outcomes: self.outcomes.plus(other.outcomes),
            window,
            would_have_opened: self.would_have_opened.saturating_add(other.would_have_opened),
            would_have_opened_us: self.would_have_opened_us.max(other.would_have_opened_us),
            is_isolated: self.is_isolated || other.is_isolated,
        }
    }
}

impl Core {
    pub(crate) fn figures(&self) -> Figures {
        let outcomes = self.counters.outcomes();
        self.transact(|inner, now| {
            let machine = &inner.machine;
            let (would_have_opened, latest) = inner.would_have_opened;
            Figures {
                outcomes,
                window: machine.settings().window.map(|_| machine.trip_input(now).window.into()),
                would_have_opened,
                would_have_opened_us: latest.map_or(0, |at| unix_us_of(self.context.wall(at))),
                is_isolated: machine.is_isolated(),
            }
        })
    }
}
