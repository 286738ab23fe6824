//! An exchange: what an instance reports and requests.

use std::sync::Arc;

use serde::Serialize;

use super::{Counts, Delta, MAX_BUCKETS, MAX_EPOCH, MAX_LAST, MAX_STREAK, Record, json};

/// An instance's request for an exchange.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Batch {
    /// The sender; unique for every registry of every process.
    pub(crate) instance: Arc<str>,
    /// The node that the sender runs on. A list of failing instances has one item per node, so that an
    /// instance that restarts again and again counts once. Empty: the instance is its own node.
    #[serde(skip)]
    pub(crate) node: Arc<str>,
    /// Grows with every batch. If the store has seen this number or a higher one from this instance, the
    /// batch is a retry: its deltas are not merged again, everything else is done.
    #[serde(serialize_with = "json::whole")]
    pub(crate) seq: u64,
    /// The store's time at which the ages were measured, as estimated by the instance. It keeps the order of
    /// one instance's batches that travel for different times. The store uses it if it lies within the last
    /// second before the store's time (inclusive), and the store's time otherwise.
    #[serde(
        rename = "as_of",
        serialize_with = "json::optional_whole",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) as_of_us: Option<u64>,
    /// At most one for each breaker, and a few hundred, because Redis serves no other client during a batch.
    /// An entry that only has counts takes about 20 µs, another one up to 100 µs. A count window takes 10 µs
    /// more, and 10 µs per thousand calls kept.
    #[serde(skip)]
    pub(crate) entries: Vec<Entry>,
}

impl Batch {
    pub(in crate::store) fn node(&self) -> &Arc<str> {
        if self.node.is_empty() { &self.instance } else { &self.node }
    }
}

/// One breaker's part of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Entry {
    #[serde(skip)]
    pub(crate) name: Arc<str>,
    /// The latest record that the store has confirmed to this instance; `None` without one. If its epoch is
    /// higher than the store's, the store has lost data and takes this record; counts and leases start at
    /// zero. If it is not closed, an event without a `from` informs instances that have read the store
    /// meanwhile.
    ///
    /// It should be `None` for a closed breaker that this instance has not exchanged for half of
    /// [`IDLE`](super::IDLE), because the store may have expired it and restarted its epochs.
    #[serde(serialize_with = "json::known", skip_serializing_if = "json::is_unknown")]
    pub(crate) known: Option<Record>,
    /// Merged if `known` has the store's epoch, or if `known` is `None` and the store's state is closed or
    /// metrics-only. Otherwise it is late and dropped.
    #[serde(flatten)]
    pub(crate) delta: Delta,
    /// At most this many (age, count) pairs of the streak are kept once the delta is merged, and at most
    /// [`MAX_STREAK`]; 0 = that many. An instance that trips at five failures needs five: more would only
    /// make each exchange dearer.
    #[serde(skip)]
    pub(crate) streak_pairs: usize,
    /// The instance's time window, if it has one. If the delta is merged, its buckets are added to this
    /// window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<WindowRequest>,
    /// Whether this instance needs the number of failing instances. Only then are its own failures listed and
    /// those of others answered, because the list has a cost.
    #[serde(skip_serializing_if = "json::is_false")]
    pub(crate) failing: bool,
    /// The instance shuts down: its node is taken off the lists of failing ones.
    #[serde(skip_serializing_if = "json::is_false")]
    pub(crate) leaves: bool,
    /// The instance's count window, if it has one. If the delta is merged, its `calls` are appended to this
    /// window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<CountWindowRequest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proposal: Option<Proposal>,
    #[serde(skip_serializing_if = "LeaseRequest::is_nothing")]
    pub(crate) leases: LeaseRequest,
    /// The fleet's counts are near a limit: all instances are to report theirs without delay. See
    /// [`NOTICE`](super::NOTICE).
    #[serde(skip_serializing_if = "json::is_false")]
    pub(crate) notice: bool,
    /// A request for the leader lease of this breaker's health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<LeaderRequest>,
    /// A summary of the instance's settings; empty if it does not report them. The store keeps the latest
    /// summary and the previous different one beside the breaker, so that instances which differ and keep
    /// reporting find each other.
    #[serde(serialize_with = "json::settings", skip_serializing_if = "str::is_empty")]
    pub(crate) settings: Arc<str>,
}

impl Entry {
    /// The known record, if its epoch is plausible.
    pub(in crate::store) fn known(&self) -> Option<&Record> {
        self.known.as_ref().filter(|known| known.epoch <= MAX_EPOCH)
    }

    /// The number of pairs of the streak that are kept; see [`Entry::streak_pairs`].
    pub(in crate::store) fn streak_pairs(&self) -> usize {
        if self.streak_pairs == 0 { MAX_STREAK } else { self.streak_pairs.min(MAX_STREAK) }
    }

    /// Validates the requested windows.
    pub(in crate::store) fn check(&self) -> Result<(), String> {
        if let Some(window) = &self.window {
            window.buckets()?;
        }
        match self.last {
            Some(CountWindowRequest { calls, .. }) if !(1..=MAX_LAST).contains(&calls) => Err(format!(
                "a count window of {calls} calls is invalid; it must be between 1 and {MAX_LAST}"
            )),
            _ => Ok(()),
        }
    }

    /// Whether the delta has counts. Buckets and calls count only if the entry has a window for them.
    pub(in crate::store) fn has_something_to_merge(&self) -> bool {
        let Delta { counts, streak, buckets, calls } = &self.delta;
        !counts.is_nothing()
            || streak.success.is_some()
            || streak.failures.iter().any(|&(_, count)| count > 0)
            || (self.window.is_some() && buckets.iter().any(|(_, counts)| !counts.is_nothing()))
            || (self.last.is_some() && calls.len() > 0)
    }
}

/// A request for a time window. The window consists of the current bucket and as many before it as make up
/// its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WindowRequest {
    #[serde(rename = "length", serialize_with = "json::whole")]
    pub(crate) length_us: u64,
    /// The width of a bucket. `length_us / width_us`, rounded up, must be between 1 and [`MAX_BUCKETS`],
    /// otherwise the entry is an error. Bucket `i` covers the store's time `[i·width, (i+1)·width)`.
    #[serde(rename = "width", serialize_with = "json::whole")]
    pub(crate) width_us: u64,
    /// Only buckets from this number on are answered; 0 = the whole window.
    #[serde(serialize_with = "json::whole")]
    pub(crate) since: u64,
}

impl WindowRequest {
    /// The number of buckets, or an error if it is invalid.
    pub(in crate::store) fn buckets(&self) -> Result<u64, String> {
        let buckets = if self.width_us == 0 { 0 } else { self.length_us.div_ceil(self.width_us) };
        if (1..=MAX_BUCKETS).contains(&buckets) {
            return Ok(buckets);
        }
        let WindowRequest { length_us, width_us, .. } = self;
        Err(format!(
            "a window of {length_us} µs in buckets of {width_us} µs would have {buckets} of them; \
             there must be 1 to {MAX_BUCKETS}"
        ))
    }
}

/// A request for the fleet's count window, in the order of the exchanges that reported the calls. There is
/// one window per length and epoch, kept for [`IDLE`](super::IDLE) after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CountWindowRequest {
    /// The window's length: 1 to [`MAX_LAST`], otherwise the entry is an error.
    pub(crate) calls: u32,
    /// Only calls after this place are answered; 0 = all. See
    /// [`CountWindowView::place`](super::CountWindowView::place). Places belong to an epoch and an
    /// incarnation: if either changes, all calls must be requested.
    #[serde(serialize_with = "json::whole")]
    pub(crate) since: u64,
}

/// A request for the leader lease of a breaker's health checks. The lease is independent of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LeaderRequest {
    /// `true`: requests or renews the lease for `term_us` from now, if no other instance has it. A renewal
    /// keeps the token; a new or expired lease gets a new one. `false`: gives the lease up, if the instance
    /// has it and the batch is not a retry.
    pub(crate) want: bool,
    /// At most [`MAX_ROLE_TERM_US`](super::MAX_ROLE_TERM_US).
    #[serde(rename = "term", serialize_with = "json::span")]
    pub(crate) term_us: u64,
}

/// The id of a probe's lease; unique within its instance. A transition ends all leases.
pub(crate) type LeaseId = u64;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct LeaseRequest {
    /// Leases to return. Ids that are not held are ignored.
    #[serde(serialize_with = "json::ids")]
    pub(crate) release: Vec<LeaseId>,
    /// Leases to renew: the deadline becomes `term_us` from now. An expired lease is not revived.
    #[serde(serialize_with = "json::ids")]
    pub(crate) renew: Vec<LeaseId>,
    /// Requested leases, in this order. They are granted while the state is half-open (after the proposal)
    /// and fewer than `limit` leases are held, fleet-wide. A lease that this instance already holds (a retry)
    /// is granted again with a new deadline.
    #[serde(serialize_with = "json::ids")]
    pub(crate) want: Vec<LeaseId>,
    pub(crate) limit: u32,
    #[serde(rename = "term", serialize_with = "json::span")]
    pub(crate) term_us: u64,
}

impl LeaseRequest {
    pub(in crate::store) fn is_nothing(&self) -> bool {
        self.release.is_empty() && self.renew.is_empty() && self.want.is_empty()
    }
}

/// A transition that an instance has decided on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Proposal {
    /// The new state. The store sets its epoch, originator and age.
    #[serde(flatten)]
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
    #[serde(serialize_with = "json::optional_whole", skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<u64>,
    /// The counts that led to it, for the event.
    pub(crate) evidence: Counts,
}
