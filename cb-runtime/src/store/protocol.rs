//! The messages between instances and a store: batches, reports, answers, events.

use std::sync::Arc;
use std::time::Duration;

use crate::snapshot::State;
pub(super) use crate::text::cut as cut_to;

/// A cached result in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cached {
    pub(crate) value: Vec<u8>,
    /// The rest of its TTL by the store's clock, from which its age follows without comparing clocks. `None`:
    /// it has no TTL, so it was not stored through this contract.
    pub(crate) remaining: Option<Duration>,
}

/// An instance's request for an exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// The sender; unique for every registry of every process.
    pub(crate) instance: Arc<str>,
    /// The node that the sender runs on. A list of failing instances has one item per node, so that an
    /// instance that restarts again and again counts once. Empty: the instance is its own node.
    pub(crate) node: Arc<str>,
    /// Grows with every batch. If the store has seen this number or a higher one from this instance, the
    /// batch is a retry: its deltas are not merged again, everything else is done.
    pub(crate) seq: u64,
    /// The store's time at which the ages were measured, as estimated by the instance. It keeps the order of
    /// one instance's batches that travel for different times. The store uses it if it lies within the last
    /// second before the store's time (inclusive), and the store's time otherwise.
    pub(crate) as_of_us: Option<u64>,
    /// At most a few hundred, because Redis serves no other client during a batch. An entry without a window
    /// takes about 25 µs, one with a whole window up to 100 µs. A count window takes 10 µs more, and 10 µs
    /// per thousand calls kept.
    pub(crate) entries: Vec<Entry>,
}

/// One breaker's part of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    /// The latest record that the store has confirmed to this instance; `None` without one. If its epoch is
    /// higher than the store's, the store has lost data and takes this record; counts and leases start at
    /// zero. If it is not closed, an event without a `from` informs instances that have read the store
    /// meanwhile.
    ///
    /// It should be `None` for a closed breaker that this instance has not exchanged for half of [`IDLE`],
    /// because the store may have expired it and restarted its epochs.
    pub(crate) known: Option<Record>,
    /// Merged if `known` has the store's epoch, or if `known` is `None` and the store's state is closed or
    /// metrics-only. Otherwise it is late and dropped.
    pub(crate) delta: Delta,
    /// At most this many (age, count) pairs of the streak are kept once the delta is merged, and at most
    /// [`MAX_STREAK`]; 0 = that many. An instance that trips at five failures needs five: more would only
    /// make each exchange dearer.
    pub(crate) streak_pairs: usize,
    /// The instance's time window, if it has one. If the delta is merged, its buckets are added to this
    /// window.
    pub(crate) window: Option<WindowAsk>,
    /// Whether this instance needs the number of failing instances. Only then are its own failures listed and
    /// those of others answered, because the list has a cost.
    pub(crate) failing: bool,
    /// The instance shuts down: its node is taken off the lists of failing ones.
    pub(crate) leaves: bool,
    /// The instance's count window, if it has one. If the delta is merged, its `calls` are appended to this
    /// window.
    pub(crate) last: Option<LastAsk>,
    pub(crate) proposal: Option<Proposal>,
    pub(crate) leases: LeaseAsk,
    /// The fleet's counts are near a limit: all instances are to report theirs without delay. See [`NOTICE`].
    pub(crate) notice: bool,
    /// A request for the leader lease of this breaker's health checks.
    pub(crate) role: Option<RoleAsk>,
    /// A summary of the instance's settings; empty if it does not report them. The store keeps the latest
    /// summary and the previous different one beside the breaker, so that instances which differ and keep
    /// reporting find each other.
    pub(crate) settings: Arc<str>,
}

/// An instance's counts of quiet breakers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) instance: Arc<str>,
    /// Reports and batches share one sequence. A number that the store has seen is a retry, as in [`Batch`].
    pub(crate) seq: u64,
    /// As in [`Batch`].
    pub(crate) as_of_us: Option<u64>,
    /// At most some hundred; an entry takes Redis 3 to 5 µs. An empty report only checks whether the store is
    /// the same.
    pub(crate) entries: Vec<Reported>,
}

/// One breaker's part of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reported {
    pub(crate) name: Arc<str>,
    /// The epoch of the closed state in which this was counted.
    pub(crate) epoch: u64,
    pub(crate) counts: Counts,
    /// The age of the latest success, which ends the fleet's streak as in a batch.
    pub(crate) success_age_us: Option<u64>,
    /// The age of the latest failure, for display. Failures that count toward a streak are sent in a batch.
    pub(crate) failure_age_us: Option<u64>,
    /// Whether the instance needs to know that the store holds a streak.
    pub(crate) by_streak: bool,
    /// The instance's window; `since` is not used here.
    pub(crate) window: Option<WindowAsk>,
    /// As in [`Delta`].
    pub(crate) buckets: Vec<(u64, Counts)>,
}

/// The store's answer to a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Acknowledged {
    pub(crate) now_us: u64,
    pub(crate) position: Position,
    /// The entries to exchange: the store has another state or epoch and has dropped the counts, or it holds
    /// a streak that this instance's successes may end.
    pub(crate) exchange: Vec<usize>,
    /// Breakers that should be held in some state other than closed, and whose keys are gone or cannot be
    /// read: an instance that knows them had better exchange them. The store looks at some of them with every
    /// report.
    pub(crate) suspects: Vec<Arc<str>>,
    /// As in [`Answer`].
    pub(crate) warnings: Vec<String>,
}

/// A breaker's shared state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Grows by one with each transition; 0 = never left closed. At most [`MAX_EPOCH`].
    pub(crate) epoch: u64,
    pub(crate) state: State,
    /// The reason of the transition; at most [`MAX_REASON`] bytes.
    pub(crate) reason: String,
    /// The instance that made the transition.
    pub(crate) originator: String,
    /// The actor of a manual override; at most [`MAX_REASON`] bytes.
    pub(crate) actor: String,
    /// Open: the time until a probe is due (0 = now), at most `reset_timeout_us` unless that is 0.
    /// Forced-open, disabled, metrics-only: the time until the expiry (0 = expired), `None` without one.
    /// `None` in all other states. A store adjusts other values; open with `None` becomes 0.
    pub(crate) remaining_us: Option<u64>,
    /// The age of the state; 0 if it was never left.
    pub(crate) since_us: u64,
    /// `remaining_us` at the time of the opening.
    pub(crate) reset_timeout_us: u64,
    /// The number of consecutive openings, for the backoff. A closed state after a recovery keeps it during
    /// the ramp-up.
    pub(crate) attempt: u32,
}

/// The longest reason, in bytes. A longer one is cut between two characters.
pub(crate) const MAX_REASON: usize = 200;
/// The limit of sums: the largest integer that a Lua number represents exactly.
pub(crate) const MAX_COUNT: u64 = (1 << 53) - 1;
/// The largest valid epoch. More transitions are not plausible.
pub(crate) const MAX_EPOCH: u64 = 1_000_000_000_000_000;
/// The longest duration: a century. Longer ones are limited to it.
pub(crate) const MAX_SPAN_US: u64 = 36_525 * 86_400 * 1_000_000;
/// The number of entries that an instance puts into a batch, which Redis executes without serving other
/// clients. Stores accept more.
pub(crate) const MAX_ENTRIES: usize = 128;
/// The default number of events that the stream keeps at least; see [`Retention`].
pub(crate) const MAX_EVENTS: usize = 1000;
/// A previous settings summary is answered for this time after another one was reported: long enough for all
/// instances that differ to report, short enough that instances of a new deploy do not see the previous
/// deploy's.
pub(crate) const SAID_FOR: Duration = Duration::from_secs(180);
/// See "What a store lets go".
pub(crate) const IDLE: Duration = Duration::from_secs(3600);
/// The largest number of (age, count) pairs of a streak. Beyond it, the two oldest are merged with the age
/// of the later one. A success may then end too few failures, but never one that came after it. Whether
/// there are as many failures in a row as there are pairs is exact all the same.
pub(crate) const MAX_STREAK: usize = 64;
/// The largest number of buckets of a time window.
pub(crate) const MAX_BUCKETS: u64 = 64;
/// The longest count window. Each call is a byte, and an answer may contain all of them.
pub(crate) const MAX_LAST: u32 = 10_000;
/// The number of failing instances that are distinguished: those with the latest failures.
pub(crate) const MAX_FAILING: usize = 32;
/// The longest term of a leader lease; longer terms are limited to it. It also bounds the effect of a clock
/// that was set back on a breaker whose leader is gone.
pub(crate) const MAX_ROLE_TERM_US: u64 = 300 * 1_000_000;
/// After a notice, all instances report what they have counted of that breaker at every pace for this long.
pub(crate) const NOTICE: Duration = Duration::from_secs(10);
/// A notice reaches every instance, which costs Redis 28 ms for a thousand of them: a store gives no more
/// than this in a second, and one for each breaker in half of [`NOTICE`].
pub(crate) const MAX_NOTICES: u64 = 5;
/// The longest settings summary, in bytes. A longer one is cut between two characters.
pub(crate) const MAX_SETTINGS: usize = 600;

/// Counts of completed calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    /// Successes and failures that were slow.
    pub(crate) slow: u64,
}

/// An instance's counts since its last batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    /// Added to the epoch's totals.
    pub(crate) counts: Counts,
    pub(crate) streak: Streak,
    /// For the time window: (age, counts). Each is added to the bucket of its age, or dropped if it is older
    /// than the window.
    pub(crate) buckets: Vec<(u64, Counts)>,
    /// For the count window: runs of one kind of outcome, in the order in which calls ended, oldest first.
    /// Outcomes beyond [`LastAsk::calls`] may be left out.
    pub(crate) calls: Vec<(OutcomeKind, u64)>,
}

/// The outcome of a completed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutcomeKind {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// A request for the fleet's count window, in the order of the exchanges that reported the calls. There is
/// one window per length and epoch, kept for [`IDLE`] after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastAsk {
    /// The window's length: 1 to [`MAX_LAST`], otherwise the entry is an error.
    pub(crate) calls: u32,
    /// Only calls after this place are answered; 0 = all. See [`LastView::place`]. Places belong to an epoch
    /// and an incarnation: if either changes, all calls must be requested.
    pub(crate) since: u64,
}

/// A request for the leader lease of a breaker's health checks. The lease is independent of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleAsk {
    /// `true`: requests or renews the lease for `term_us` from now, if no other instance has it. A renewal
    /// keeps the token; a new or expired lease gets a new one. `false`: gives the lease up, if the instance
    /// has it.
    pub(crate) want: bool,
    /// At most [`MAX_ROLE_TERM_US`].
    pub(crate) term_us: u64,
}

/// Consecutive failures: the time of the latest success, and the failures after it.
///
/// Two streaks are merged so: the later success stays, failures before it are dropped, all others stay,
/// including one at the time of the success. The result does not depend on the order of merging, within
/// [`MAX_STREAK`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Streak {
    /// The age of the latest success.
    pub(crate) success_age_us: Option<u64>,
    /// (age, count), oldest first, none older than the success; at most [`MAX_STREAK`] pairs.
    pub(crate) failures: Vec<(u64, u64)>,
}

/// A request for a time window. The window consists of the current bucket and as many before it as make up
/// its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowAsk {
    pub(crate) length_us: u64,
    /// The width of a bucket. `length_us / width_us`, rounded up, must be between 1 and [`MAX_BUCKETS`],
    /// otherwise the entry is an error. Bucket `i` covers the store's time `[i·width, (i+1)·width)`.
    pub(crate) width_us: u64,
    /// Only buckets from this number on are answered; 0 = the whole window.
    pub(crate) since: u64,
}

/// A transition that an instance has decided on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proposal {
    /// The new state. The store sets its epoch, originator and age.
    pub(crate) to: Record,
    /// `false`: wins only if `known` is `Some` and has the store's epoch (after writing back). For open →
    /// half-open and for leaving forced-open, disabled or metrics-only, the store's remaining time must have
    /// elapsed, too.
    ///
    /// `true` (a manual override): always wins, unless it would change nothing: the store is in that state
    /// for the same reason, neither has a remaining time and, if that state is closed, nothing has been
    /// counted in it.
    pub(crate) force: bool,
    /// The decision of a health check: wins only if, besides all else, the proposer is the leader under this
    /// token now.
    pub(crate) token: Option<u64>,
    /// The counts that led to it, for the event.
    pub(crate) evidence: Counts,
}

impl Record {
    /// A state that was never left: closed, epoch 0.
    pub(crate) fn closed() -> Self {
        Record {
            epoch: 0,
            state: State::Closed,
            reason: String::new(),
            originator: String::new(),
            actor: String::new(),
            remaining_us: None,
            since_us: 0,
            reset_timeout_us: 0,
            attempt: 0,
        }
    }

    /// The record as it reads this many microseconds later.
    pub(crate) fn aged(self, elapsed_us: u64) -> Self {
        Record {
            remaining_us: self.remaining_us.map(|left| left.saturating_sub(elapsed_us)),
            since_us: self.since_us.saturating_add(elapsed_us),
            ..self
        }
    }
}

impl Batch {
    pub(super) fn node(&self) -> &Arc<str> {
        if self.node.is_empty() { &self.instance } else { &self.node }
    }
}

impl Entry {
    /// The known record, if its epoch is plausible.
    pub(super) fn known(&self) -> Option<&Record> {
        self.known.as_ref().filter(|known| known.epoch <= MAX_EPOCH)
    }

    pub(super) fn streak_pairs(&self) -> usize {
        if self.streak_pairs == 0 { MAX_STREAK } else { self.streak_pairs.min(MAX_STREAK) }
    }

    /// Validates the requested windows.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(window) = &self.window {
            window.buckets()?;
        }
        match self.last {
            Some(LastAsk { calls, .. }) if !(1..=MAX_LAST).contains(&calls) => Err(format!(
                "a count window of {calls} calls is invalid; it must be between 1 and {MAX_LAST}"
            )),
            _ => Ok(()),
        }
    }

    /// Whether the delta has counts. Buckets and calls count only if the entry has a window for them.
    pub(super) fn has_something_to_merge(&self) -> bool {
        let Delta { counts, streak, buckets, calls } = &self.delta;
        !counts.is_nothing()
            || streak.success_age_us.is_some()
            || streak.failures.iter().any(|&(_, count)| count > 0)
            || (self.window.is_some() && buckets.iter().any(|(_, counts)| !counts.is_nothing()))
            || (self.last.is_some() && calls.iter().any(|&(_, count)| count > 0))
    }
}

impl Counts {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Counts::default()
    }

    pub(crate) fn add(&mut self, other: &Counts) {
        for (sum, more) in [
            (&mut self.successes, other.successes),
            (&mut self.failures, other.failures),
            (&mut self.slow, other.slow),
        ] {
            *sum = sum.saturating_add(more).min(MAX_COUNT);
        }
    }
}

impl Streak {
    /// Merges the oldest pairs until there are at most this many.
    pub(crate) fn bound(&mut self, pairs: usize) {
        let beyond = self.failures.len().saturating_sub(pairs);
        let older: u64 = self.failures.drain(..beyond).map(|(_, count)| count).sum();
        if let Some((_, oldest)) = self.failures.first_mut() {
            *oldest = oldest.saturating_add(older).min(MAX_COUNT);
        }
    }
}

impl Delta {
    /// The age of the latest failure.
    pub(super) fn failure_age_us(&self) -> Option<u64> {
        let latest = self.streak.failures.iter().filter(|(_, count)| *count > 0).map(|&(age, _)| age).min();
        latest.or((self.counts.failures > 0).then_some(0))
    }
}

impl WindowAsk {
    /// The number of buckets, or an error if it is invalid.
    pub(super) fn buckets(&self) -> Result<u64, String> {
        let buckets = if self.width_us == 0 { 0 } else { self.length_us.div_ceil(self.width_us) };
        if (1..=MAX_BUCKETS).contains(&buckets) {
            return Ok(buckets);
        }
        let WindowAsk { length_us, width_us, .. } = self;
        Err(format!(
            "a window of {length_us} µs in buckets of {width_us} µs would have {buckets} of them; \
             there must be 1 to {MAX_BUCKETS}"
        ))
    }
}

impl State {
    /// Adjusts a state's remaining time; see [`Record::remaining_us`].
    pub(super) fn remaining(self, given: Option<u64>, reset_timeout_us: u64) -> Option<u64> {
        match self {
            State::Closed | State::HalfOpen => None,
            State::Open if reset_timeout_us > 0 => Some(given.unwrap_or(0).min(reset_timeout_us)),
            State::Open => Some(given.unwrap_or(0).min(MAX_SPAN_US)),
            _ => given.map(|span| span.min(MAX_SPAN_US)),
        }
    }
}

/// Cuts a reason or an actor to [`MAX_REASON`] bytes.
pub(crate) fn cut(reason: &str) -> &str {
    cut_to(reason, MAX_REASON)
}

/// The id of a probe's lease; unique within its instance. A transition ends all leases.
pub(crate) type LeaseId = u64;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LeaseAsk {
    /// Leases to return. Ids that are not held are ignored.
    pub(crate) release: Vec<LeaseId>,
    /// Leases to renew: the deadline becomes `term_us` from now. An expired lease is not revived.
    pub(crate) renew: Vec<LeaseId>,
    /// Requested leases, in this order. They are granted while the state is half-open (after the proposal)
    /// and fewer than `limit` leases are held, fleet-wide. A lease that this instance already holds (a retry)
    /// is granted again with a new deadline.
    pub(crate) want: Vec<LeaseId>,
    pub(crate) limit: u32,
    pub(crate) term_us: u64,
}

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
    /// [`MAX_FAILING`]. Empty unless [`Entry::failing`] is set.
    pub(crate) failing: Vec<u64>,
    pub(crate) window: Option<WindowView>,
    pub(crate) last: Option<LastView>,
    /// Whether this exchange accepted the proposal.
    pub(crate) won: bool,
    /// The granted leases.
    pub(crate) granted: Vec<LeaseId>,
    /// If fewer leases were granted than requested while half-open: the time until the first held lease
    /// expires.
    pub(crate) lease_wait_us: Option<u64>,
    /// The leader lease, if it was requested.
    pub(crate) role: Option<RoleView>,
    /// Another settings summary, if one was reported until now or at most [`SAID_FOR`] ago.
    pub(crate) other_settings: Option<String>,
}

/// The answer to a [`LastAsk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastView {
    /// The number of outcomes appended in this epoch: the place of the latest.
    pub(crate) place: u64,
    /// The outcomes after `since`, oldest first, at most `calls`. If `since` is after `place` or before the
    /// window, all kept outcomes. The first one's place is `place` less their sum, plus one.
    pub(crate) outcomes: Vec<(OutcomeKind, u64)>,
    /// The place of the latest failure of every other failing instance, latest first, at most
    /// [`MAX_FAILING`]. Empty unless [`Entry::failing`] is set.
    pub(crate) failing: Vec<u64>,
}

/// The leader lease at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleView {
    /// Whether the requesting instance has it.
    pub(crate) mine: bool,
    /// The fencing token of the current or last leader. A new lease has a larger token than any before, even
    /// after the store has lost its data, as long as its clock goes on.
    pub(crate) token: u64,
    /// The time until it expires; 0 = there is no leader.
    pub(crate) remaining_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowView {
    /// Non-empty buckets from `since` on, ascending, none older than the window.
    pub(crate) buckets: Vec<(u64, Counts)>,
}

/// A position in the event stream. The default is before the first event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Identifies the stream. It changes when the store loses its data.
    pub(crate) incarnation: String,
    /// The store's own id of the last event ("0-0" for none).
    pub(crate) id: String,
    /// The last event's number: events are numbered 1, 2, 3, … without gaps.
    pub(crate) number: u64,
}

/// A part of the event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventsAt {
    /// The latest, newest first.
    Newest,
    /// Those before the event with this id, newest first.
    Before(String),
    /// Those after the event with this id, oldest first.
    After(String),
}

/// The retention of the event stream: at least `events` events, for `age` after the latest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) events: usize,
    pub(crate) age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { events: MAX_EVENTS, age: IDLE }
    }
}

/// A transition in the event stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamEvent {
    /// The stream's position after this event.
    pub(crate) position: Position,
    pub(crate) name: Arc<str>,
    /// The previous state. `None` if the event is no transition: a state was written back that the store had
    /// lost.
    pub(crate) from: Option<State>,
    /// The new state, with `remaining_us` and `since_us` at the time of the transition.
    pub(crate) record: Record,
    pub(crate) evidence: Counts,
    /// The store's time of the transition.
    pub(crate) at_us: u64,
}

/// What an instance has received while it followed the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct News {
    pub(crate) events: Vec<StreamEvent>,
    /// Breakers of which all instances are to report without delay.
    pub(crate) notices: Vec<Arc<str>>,
    /// The id of the latest notice.
    pub(crate) notice: String,
}

/// The states that a new instance loads.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Load {
    pub(crate) now_us: u64,
    pub(crate) position: Position,
    /// Every breaker whose state is not closed, by name; an error (with the key in its text) where it cannot
    /// be read. Read after `position`: an event after it may tell of what is here already.
    pub(crate) held: Vec<(Arc<str>, Result<Record, String>)>,
    /// As in [`Answer`].
    pub(crate) warnings: Vec<String>,
}

/// One line of the fleet's overview.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FleetRow {
    pub(crate) name: Arc<str>,
    pub(crate) view: Result<(Record, Counts, u64), String>,
}
