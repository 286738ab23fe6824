//! What instances and a store say to each other: batches of entries, answers, events.

use std::sync::Arc;
use std::time::Duration;

use crate::snapshot::State;
pub(super) use crate::text::cut as cut_to;

/// A cached result as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cached {
    pub(crate) value: Vec<u8>,
    /// Until it expires by the store's clock: what is left of the `ttl` it was put with, so its age
    /// follows without comparing clocks. `None` = it never expires, so it was not put by this contract.
    pub(crate) remaining: Option<Duration>,
}

/// What one instance has to say at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// Who says it; unique for every registry of every process.
    pub(crate) instance: Arc<str>,
    /// Grows with every batch. A batch with a number that the store has seen from this
    /// instance (the same or a higher one) is a retry: its deltas are not merged again, all else is done.
    pub(crate) seq: u64,
    /// The store's time at which the ages were taken, as this instance estimates it. Keeps the order of
    /// one instance's own reports when two batches travel for different times. The store uses it
    /// if it lies within the last second up to its own now (both ends included), and its own now otherwise.
    pub(crate) as_of_us: Option<u64>,
    /// A few hundred at most: a batch is one piece of work, during which a Redis serves nobody else. An entry
    /// without a window takes it about 25 µs, one that asks for a whole window up to 100 µs. Last calls cost about 10 µs
    /// more, and 10 µs for every thousand of them that are kept.
    pub(crate) entries: Vec<Entry>,
}

/// One breaker's part of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    /// The last state of this breaker that the store has confirmed to this instance; `None` if they
    /// have never spoken of it. If its epoch is higher than the store's, the store has lost data and
    /// takes this record over; counts and leases start at nothing. If it is not closed, the stream tells those who
    /// have looked in between: an event without a `from`.
    ///
    /// For a closed breaker that this instance has not named for half of [`IDLE`] it had better be
    /// `None`: the store may have let it go since, and started its epochs anew.
    pub(crate) known: Option<Record>,
    /// Merged if `known` has the store's epoch, or if `known` is `None` and the store's state is
    /// closed or metrics-only. Otherwise it is late, and dropped.
    pub(crate) delta: Delta,
    /// The time window that this instance judges by, if it judges by one. Where the delta
    /// is merged, its buckets go into this window.
    pub(crate) window: Option<WindowAsk>,
    /// Whether this instance judges by how many instances fail. Only then is it noted where it reports failures itself, and
    /// told of the others: to keep such a list costs something.
    pub(crate) failing: bool,
    /// The last calls that this instance judges by, if it judges by them. Where the delta is merged, its
    /// `calls` are appended to these.
    pub(crate) last: Option<LastAsk>,
    pub(crate) proposal: Option<Proposal>,
    pub(crate) leases: LeaseAsk,
    /// About the role of the one instance that makes this breaker's health checks.
    pub(crate) role: Option<RoleAsk>,
    /// What this instance judges by, as one line for people; empty = it does not say. Kept beside the breaker (if that
    /// is kept at all): what was said last, and what was said before it, if that was something else. So all of several
    /// that differ hear of each other, whoever was first, as long as they go on saying it.
    pub(crate) settings: Arc<str>,
}

/// What one instance has counted on closed breakers that are far from every limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) instance: Arc<str>,
    /// Reports and batches are numbered together, and a number that the store has seen is a retry, as in [`Batch`].
    pub(crate) seq: u64,
    /// As in [`Batch`].
    pub(crate) as_of_us: Option<u64>,
    /// Some hundred at most; an entry takes Redis 3 to 5 µs. None: the report only asks whether the store is the same.
    pub(crate) entries: Vec<Reported>,
}

/// One breaker's part of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reported {
    pub(crate) name: Arc<str>,
    /// Of the closed state that this was counted in.
    pub(crate) epoch: u64,
    pub(crate) counts: Counts,
    /// Age of the latest success: it ends the fleet's streak, as one that is told in a batch does.
    pub(crate) success_age_us: Option<u64>,
    /// Age of the latest failure, for people. Failures of a breaker that counts failures in a row travel in a batch.
    pub(crate) failure_age_us: Option<u64>,
    /// The instance judges by failures in a row: it is told if the store holds a streak.
    pub(crate) by_streak: bool,
    /// The window that the instance judges by; `since` means nothing here.
    pub(crate) window: Option<WindowAsk>,
    /// As in [`Delta`].
    pub(crate) buckets: Vec<(u64, Counts)>,
}

/// The store's answer to a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Acknowledged {
    pub(crate) now_us: u64,
    pub(crate) position: Position,
    /// Which entries should be exchanged instead: the store has another state or epoch, and has dropped what was
    /// reported; or it holds a streak of failures, which this instance's successes may end.
    pub(crate) exchange: Vec<usize>,
    /// As in [`Answer`].
    pub(crate) warnings: Vec<String>,
}

/// A breaker's shared state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Grows by one at every change of state; 0 = closed since ever. At most [`MAX_EPOCH`].
    pub(crate) epoch: u64,
    pub(crate) state: State,
    /// Why it came to this state; at most [`MAX_REASON`] bytes.
    pub(crate) reason: String,
    /// The instance that brought it there.
    pub(crate) originator: String,
    /// Who ordered it, if a person did; at most [`MAX_REASON`] bytes.
    pub(crate) actor: String,
    /// Open: until a probe may be made (0 = due), never more than `reset_timeout_us` unless that is 0.
    /// Forced-open, disabled, metrics-only: until the expiry (0 = expired), `None` = none. `None` in
    /// all other states. Given otherwise, a store makes it so: open and `None` is 0.
    pub(crate) remaining_us: Option<u64>,
    /// How long ago the state came to be; 0 for closed since ever.
    pub(crate) since_us: u64,
    /// What `remaining_us` was when it opened.
    pub(crate) reset_timeout_us: u64,
    /// How often it has opened in a row; for the backoff. A closed state that a recovery led to keeps it, for the time of
    /// its ramp-up.
    pub(crate) attempt: u32,
}

/// A longer reason is cut by the store, between two characters.
pub(crate) const MAX_REASON: usize = 200;
/// What a sum of counts stops at: the largest integer that a Lua number holds beyond doubt.
pub(crate) const MAX_COUNT: u64 = (1 << 53) - 1;
/// An epoch beyond this is not believed: nobody has changed a state that often.
pub(crate) const MAX_EPOCH: u64 = 1_000_000_000_000_000;
/// A century; what a longer span counts as.
pub(crate) const MAX_SPAN_US: u64 = 36_525 * 86_400 * 1_000_000;
/// A batch is one piece of work, during which a Redis serves nobody else: about 25 µs for each entry
/// without a window, up to 100 µs with all of one. A store does take more.
pub(crate) const MAX_ENTRIES: usize = 128;
/// The event stream keeps at least so many, unless the [`Retention`] is another.
pub(crate) const MAX_EVENTS: usize = 1000;
/// What was said of settings is told for so long after something else was said: time enough for all who differ to speak in
/// turn, and so short that those who come after a deploy hear nothing of the one before.
pub(crate) const SAID_FOR: Duration = Duration::from_secs(180);
/// See "What a store lets go".
pub(crate) const IDLE: Duration = Duration::from_secs(3600);
/// A run is kept as at most so many (age, count) pairs; beyond it the two oldest become one, with
/// the age of the younger: a success may then leave too many failures standing, but never erases
/// one that came after it.
pub(crate) const MAX_STREAK: usize = 64;
/// A time window has at most so many buckets.
pub(crate) const MAX_BUCKETS: u64 = 64;
/// The last calls are kept up to so many of them: each is a byte, and all of them may have to travel.
pub(crate) const MAX_LAST: u32 = 10_000;
/// Of the instances that have reported failures, so many are told apart: those whose failures are the latest.
pub(crate) const MAX_FAILING: usize = 32;
/// A role is had for no longer than this without being renewed; a longer term counts as that. It bounds what a
/// clock that was set back can do to a breaker whose leader is gone, too.
pub(crate) const MAX_ROLE_TERM_US: u64 = 300 * 1_000_000;
/// What an instance says of its settings is cut there, between two characters.
pub(crate) const MAX_SETTINGS: usize = 600;

/// Calls with a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    /// How many of both took too long.
    pub(crate) slow: u64,
}

/// What happened at one instance since its last batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    /// Added to the epoch's totals.
    pub(crate) counts: Counts,
    pub(crate) streak: Streak,
    /// For the time window: (age, counts); each goes into the bucket that its age falls into, and is dropped if
    /// that is older than the window.
    pub(crate) buckets: Vec<(u64, Counts)>,
    /// For the last calls: outcomes in the order in which they ended here, oldest first, with how many of a kind followed
    /// each other. If they are more than [`LastAsk::calls`], the oldest are of no use and may be left out.
    pub(crate) calls: Vec<(OutcomeKind, u64)>,
}

/// What became of a call with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutcomeKind {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// The last calls of the whole fleet, in the order of the exchanges that told of them, and how much of them the
/// instance wants to see. Kept apart for every number of `calls`, for the epoch, and for [`IDLE`] after somebody has
/// asked for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastAsk {
    /// How many; 1 to [`MAX_LAST`], the entry is answered with an error otherwise.
    pub(crate) calls: u32,
    /// Only those after this place are answered; 0 = all of them. See [`LastView::place`]. Places are an epoch's and an
    /// incarnation's: when either is another, ask for all.
    pub(crate) since: u64,
}

/// About the role of the one instance that makes a breaker's health checks. It is not bound to an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleAsk {
    /// `true`: to have it for `term_us` from now, if nobody else has it (any more); who has it still keeps
    /// its token, who has let it lapse gets a new one. `false`: to give it up, if it has it.
    pub(crate) want: bool,
    /// At most [`MAX_ROLE_TERM_US`].
    pub(crate) term_us: u64,
}

/// Consecutive failures: when the latest success was, and the failures after it.
///
/// Merging two runs: the later success stands, failures before it go, all others stay, one of the very same
/// moment among them. The result does not depend on the order of merging (as long as [`MAX_STREAK`] is enough).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Streak {
    /// Age of the latest success.
    pub(crate) success_age_us: Option<u64>,
    /// (age, count), oldest first, none older than the success; at most [`MAX_STREAK`] pairs.
    pub(crate) failures: Vec<(u64, u64)>,
}

/// A time window, and how much of it the instance wants to see. At a given time it consists of the current
/// bucket and as many before it as make up its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowAsk {
    pub(crate) length_us: u64,
    /// A bucket's share; `length_us / width_us`, rounded up, is between 1 and [`MAX_BUCKETS`], and the
    /// entry is answered with an error otherwise. Bucket `i` covers the store's time
    /// `[i·width, (i+1)·width)`.
    pub(crate) width_us: u64,
    /// Only buckets from this number on are answered; 0 = the whole window.
    pub(crate) since: u64,
}

/// A change of state that an instance has decided on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proposal {
    /// The state to be. Its epoch, originator and age are the store's to set.
    pub(crate) to: Record,
    /// `false`: wins only if `known` is `Some` and has the store's epoch (after writing back). For open →
    /// half-open and for leaving forced-open, disabled or metrics-only, the store's remaining time must have elapsed, too.
    ///
    /// `true` (a manual override): always wins, unless it would change nothing: the store is in that state for the
    /// same reason, neither has a remaining time and, if that state is closed, nothing has been counted in it.
    pub(crate) force: bool,
    /// The decision of a health check: wins only if, besides all else, the proposer is the leader under this token now.
    pub(crate) token: Option<u64>,
    /// The counts that led to it, for the event.
    pub(crate) evidence: Counts,
}

impl Record {
    /// Closed since ever.
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

impl Entry {
    /// What is known, if it can be believed.
    pub(super) fn known(&self) -> Option<&Record> {
        self.known.as_ref().filter(|known| known.epoch <= MAX_EPOCH)
    }

    /// What is wrong with what it asks for.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(window) = &self.window {
            window.buckets()?;
        }
        match self.last {
            Some(LastAsk { calls, .. }) if !(1..=MAX_LAST).contains(&calls) => {
                Err(format!("the last {calls} calls cannot be kept; there must be 1 to {MAX_LAST}"))
            }
            _ => Ok(()),
        }
    }

    /// Buckets and calls count only where there is something that they could go into.
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

impl Delta {
    /// How old the latest failure is that it tells of.
    pub(super) fn failure_age_us(&self) -> Option<u64> {
        let latest = self.streak.failures.iter().filter(|(_, count)| *count > 0).map(|&(age, _)| age).min();
        latest.or((self.counts.failures > 0).then_some(0))
    }
}

impl WindowAsk {
    /// How many buckets the window has, or what is wrong with it.
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
    /// What a state's remaining time is made to be; see [`Record::remaining_us`].
    pub(super) fn remaining(self, given: Option<u64>, reset_timeout_us: u64) -> Option<u64> {
        match self {
            State::Closed | State::HalfOpen => None,
            State::Open if reset_timeout_us > 0 => Some(given.unwrap_or(0).min(reset_timeout_us)),
            State::Open => Some(given.unwrap_or(0).min(MAX_SPAN_US)),
            _ => given.map(|span| span.min(MAX_SPAN_US)),
        }
    }
}

/// A reason, or an actor, as it is kept: at most [`MAX_REASON`] bytes of it.
pub(crate) fn cut(reason: &str) -> &str {
    cut_to(reason, MAX_REASON)
}

/// Names one permit of a half-open state; unique within its instance. Epoch-bound: a change of
/// state ends all leases.
pub(crate) type LeaseId = u64;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LeaseAsk {
    /// Given back; ids that are not (or no longer) held are passed over.
    pub(crate) release: Vec<LeaseId>,
    /// Held on to: the deadline moves to `term_us` from now, later or earlier. An id that has lapsed
    /// is not revived.
    pub(crate) renew: Vec<LeaseId>,
    /// Leases wanted, under these ids, in this order. Granted while the state is half-open (after the proposal) and
    /// fewer than `limit` unlapsed leases are out, fleet-wide. An id that this instance holds already (a
    /// retry) is granted again, with a new deadline, and takes no second place.
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
    /// One per entry, in order; an error where this breaker's keys cannot be used (its text names the
    /// key, and says what to do about it). Nothing of that entry has been done; others are not affected.
    pub(crate) views: Vec<Result<View, String>>,
    /// What was wrong with the keys that all breakers share (their texts name them), and has been put
    /// right as far as that goes. For people; the exchange itself is not affected.
    pub(crate) warnings: Vec<String>,
}

/// One breaker as the store has it after an exchange.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) record: Record,
    /// Totals of the epoch.
    pub(crate) counts: Counts,
    /// Failures after the latest success.
    pub(crate) streak: u64,
    /// How long ago the latest success of the epoch was.
    pub(crate) success_age_us: Option<u64>,
    /// For every other instance that is noted for a failure in this epoch (in the totals or the run): how long ago the
    /// latest of them happened. Newest first, at most [`MAX_FAILING`]; none unless [`Entry::failing`] asks for it.
    pub(crate) failing: Vec<u64>,
    pub(crate) window: Option<WindowView>,
    pub(crate) last: Option<LastView>,
    /// The proposal was carried out by this very exchange.
    pub(crate) won: bool,
    /// The wanted leases that were given.
    pub(crate) granted: Vec<LeaseId>,
    /// If fewer were granted than wanted in a half-open state: until the first of the leases that are out lapses.
    pub(crate) lease_wait_us: Option<u64>,
    /// Who has the role that was asked about.
    pub(crate) role: Option<RoleView>,
    /// What was kept of another instance's settings until now, or not longer than [`SAID_FOR`] ago.
    pub(crate) other_settings: Option<String>,
}

/// What [`LastAsk`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastView {
    /// How many outcomes have been appended in this epoch: the place of the latest.
    pub(crate) place: u64,
    /// The outcomes after `since`, oldest first, at most `calls` of them: all that are kept if `since` is later than
    /// `place`, or too long ago. The first of them is at the place `place` less their sum, plus one.
    pub(crate) outcomes: Vec<(OutcomeKind, u64)>,
    /// For every other instance that is noted for failures here: the place of the latest of them. Newest
    /// first, at most [`MAX_FAILING`]; none unless [`Entry::failing`] asks for it.
    pub(crate) failing: Vec<u64>,
}

/// The role of making health checks, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleView {
    /// The asker has it.
    pub(crate) mine: bool,
    /// The fencing token of who has it, or had it last. Larger than any before whenever the role is taken anew, even if the
    /// store has lost its data (as long as its clock goes on).
    pub(crate) token: u64,
    /// Until it lapses; 0 = nobody has it.
    pub(crate) remaining_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowView {
    /// Buckets with something in them, ascending, `since` and later, none older than the window.
    pub(crate) buckets: Vec<(u64, Counts)>,
}

/// A place in the event stream; the default is before everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Identifies this stream; another one after the store has lost its data.
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

/// How much of the event stream is kept: at least so many events, for so long after the latest of them.
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

/// One change of state, as the stream tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamEvent {
    /// Where the stream stands after this event.
    pub(crate) position: Position,
    pub(crate) name: Arc<str>,
    /// The state before; `None` where nothing has changed, but a state was written back that the store had lost.
    pub(crate) from: Option<State>,
    /// The state from then on. `remaining_us` and `since_us` are those of the moment of change.
    pub(crate) record: Record,
    pub(crate) evidence: Counts,
    /// The store's time of the change.
    pub(crate) at_us: u64,
}

/// A newcomer's view of the namespace.
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
