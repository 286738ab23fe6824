//! The store's answers.

use std::sync::Arc;
use std::time::Duration;

use super::{Counts, LeaseId, MAX_ROLE_TERM_US, OutcomeKind, Position, Record};

/// The store's answer to a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The store's time.
    pub(crate) now_us: u64,
    pub(crate) position: Position,
    /// One per entry, in order. An error means that the breaker's keys cannot be used, and names the key and
    /// a remedy. The entry then has no effect; others are not affected.
    pub(crate) views: Vec<Result<View, String>>,
    /// Problems with shared keys, which the store has repaired as far as possible. They are for display; the
    /// exchange is not affected.
    pub(crate) warnings: Vec<String>,
}

/// A breaker in the store after an exchange.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) record: Record,
    /// The epoch's totals.
    pub(crate) counts: Counts,
    /// Failures after the latest success.
    pub(crate) streak: u64,
    /// The age of the epoch's latest success.
    pub(crate) success_age_us: Option<u64>,
    /// The age of the latest failure of every other failing instance in this epoch, latest first, at most
    /// [`MAX_FAILING`](super::MAX_FAILING). Empty unless [`Entry::failing`](super::Entry::failing) is set.
    pub(crate) failing: Vec<u64>,
    pub(crate) window: Option<WindowView>,
    pub(crate) last: Option<CountWindowView>,
    /// Whether this exchange accepted the proposal.
    pub(crate) won: bool,
    /// The granted leases.
    pub(crate) granted: Vec<LeaseId>,
    /// If fewer leases were granted than requested while half-open: the time until the first held lease
    /// expires.
    pub(crate) lease_wait_us: Option<u64>,
    /// The leader lease, if it was requested.
    pub(crate) role: Option<LeaderView>,
    /// Another settings summary, if one was reported until now or at most [`SAID_FOR`](super::SAID_FOR) ago.
    pub(crate) other_settings: Option<String>,
    /// The age of the latest notice of this breaker, if the entry requested one or knows no record: a new
    /// instance has not read it in the stream.
    pub(crate) notice_age_us: Option<u64>,
}

/// The answer to a [`CountWindowRequest`](super::CountWindowRequest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountWindowView {
    /// The number of outcomes appended in this epoch: the place of the latest.
    pub(crate) place: u64,
    /// The outcomes after `since`, oldest first, at most `calls`. If `since` is after `place` or before the
    /// window, all kept outcomes. The first one's place is `place` less their sum, plus one.
    pub(crate) outcomes: Vec<(OutcomeKind, u64)>,
    /// The place of the latest failure of every other failing instance, latest first, at most
    /// [`MAX_FAILING`](super::MAX_FAILING). Empty unless [`Entry::failing`](super::Entry::failing) is set.
    pub(crate) failing: Vec<u64>,
}

/// The leader lease at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaderView {
    /// Whether the requesting instance has it.
    pub(crate) mine: bool,
    /// The fencing token of the current or last leader. A new lease has a larger token than any before, even
    /// after the store has lost its data, as long as its clock goes on.
    pub(crate) token: u64,
    /// The time until it expires; 0 = there is no leader.
    pub(crate) remaining_us: u64,
}

impl LeaderView {
    /// Whether a lease that ends at `until_us` holds. One that ends more than the longest term from now does
    /// not: the clock was set back.
    pub(crate) fn holds(until_us: u64, now_us: u64) -> bool {
        until_us.checked_sub(now_us).is_some_and(|left| (1..=MAX_ROLE_TERM_US).contains(&left))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowView {
    /// Non-empty buckets from `since` on, ascending, none older than the window.
    pub(crate) buckets: Vec<(u64, Counts)>,
}

/// The states that a new instance loads.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Load {
    pub(crate) now_us: u64,
    pub(crate) position: Position,
    /// Every breaker whose state is not closed, by name; an error (with the key in its text) where it cannot
    /// be read. Read after `position`: an event after it may tell of what is here already.
    pub(crate) held: Vec<(Arc<str>, Result<Record, String>)>,
    /// How long `held` was read for, after `now_us` and `position` had been answered.
    pub(crate) read_for: Duration,
    /// As in [`Answer`].
    pub(crate) warnings: Vec<String>,
}

/// One line of the fleet's overview.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FleetRow {
    pub(crate) name: Arc<str>,
    pub(crate) view: Result<(Record, Counts, u64), String>,
}

/// A cached result in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cached {
    pub(crate) value: Vec<u8>,
    /// The rest of its TTL by the store's clock, from which its age follows without comparing clocks. `None`:
    /// it has no TTL, so it was not stored through this contract.
    pub(crate) remaining: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_lease_holds_until_it_ends_and_never_beyond_the_longest_term() {
        let now = 1_700_000_000_000_000;
        let ends = [0, now, now + 1, now + MAX_ROLE_TERM_US, now + MAX_ROLE_TERM_US + 1, u64::MAX];
        let hold = ends.map(|until| LeaderView::holds(until, now));
        assert_eq!(hold, [false, false, true, true, false, false]);
        assert!(!LeaderView::holds(0, u64::MAX) && !LeaderView::holds(u64::MAX, u64::MAX));
    }
}
