//! What is read of a breaker: its snapshot, its figures for the fleet, and its metrics.

use super::{Core, Inner};
use crate::clock::unix_us_of;
#[cfg(feature = "metrics")]
use crate::metrics::Histogram;
#[cfg(feature = "metrics")]
use crate::snapshot::State;
use crate::snapshot::{Outcomes, Setting, Snapshot, WindowSnapshot};
use crate::strategy::Calls;
#[cfg(feature = "metrics")]
use crate::sync::lock;

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
    pub(crate) fn snapshot(&self) -> Snapshot {
        // Before the breaker's lock: a reload takes them in this order, too.
        let layers = self.context.layers();
        self.snapshot_with(|inner| layers.shown(&self.name, &inner.given, inner.machine.settings()))
    }

    /// Without the settings, whose texts take most of the time that a snapshot takes: for simulations.
    #[cfg(test)]
    pub(crate) fn snapshot_without_settings(&self) -> Snapshot {
        self.snapshot_with(|_| Vec::new())
    }

    fn snapshot_with(&self, settings: impl FnOnce(&Inner) -> Vec<Setting>) -> Snapshot {
        self.transact(|inner, now| {
            let machine = &inner.machine;
            let (known, counts, input) = (machine.record(), machine.counts(), machine.trip_input(now));
            let record = &known.record;
            Snapshot {
                name: self.name.to_string(),
                state: record.state,
                epoch: machine.epoch(),
                local: machine.is_local(),
                since: (machine.epoch() > 0 || machine.is_local()).then(|| self.context.wall(known.since())),
                opened_at: self.context.wall_if_set(&self.opened_at),
                last_failure_at: self.context.wall_if_set(&self.last_failure),
                reason: record.reason.clone(),
                actor: record.actor.clone(),
                retry_after: known.until().map(|until| self.remaining(until, record.state, now.at)),
                failures: counts.failures,
                successes: counts.successes,
                consecutive_failures: input.streak,
                window: machine.settings().window.map(|_| WindowSnapshot::from(Calls::from(input.window))),
                outcomes: self.counters.outcomes(),
                settings: settings(inner),
            }
        })
    }

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

#[cfg(feature = "metrics")]
impl Core {
    /// The state that calls meet.
    pub(crate) fn state(&self) -> State {
        self.gate.word().state()
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        self.counters.outcomes()
    }

    /// The epoch of the last state that the store has confirmed, and the window if it judges by one.
    pub(crate) fn epoch_and_window(&self) -> (u64, Option<Calls>) {
        self.transact(|inner, now| {
            let machine = &inner.machine;
            let window = machine.settings().window.map(|_| machine.trip_input(now).window.into());
            (machine.epoch(), window)
        })
    }

    /// How long calls took since the last time this was asked.
    pub(crate) fn take_durations(&self) -> Histogram {
        self.durations.as_ref().map(|durations| std::mem::take(&mut *lock(durations))).unwrap_or_default()
    }
}
