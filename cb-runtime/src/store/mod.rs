//! Stores, which hold the fleet's shared state, and the contract that all of them fulfil.
//!
//! A store merges counts, compares epochs and grants leases. It makes no decisions: these are made by the
//! state machine of a breaker, once for all stores. `memory` is the embedded default, `redis` is shared by a
//! fleet. Both pass the tests in `tests/contract`.
//!
//! # Time
//! Only times of the store's clock are compared. Instances send ages ("1,200 µs ago") and receive remaining
//! durations. Durations are whole microseconds (`_us`) of at most [`MAX_SPAN_US`]. Counts and epochs are
//! integers below 2^53, which a Lua number represents exactly; sums stop at [`MAX_COUNT`].
//!
//! # Expiry
//! A closed breaker expires [`IDLE`] (an hour, less at most five minutes) after the latest batch that named
//! it, and its epochs start again at zero. An instance's sequence number expires likewise. An open or
//! half-open state, or an override with an expiry, lapses [`IDLE`] after it was due or was last used: by a
//! lease, a leader, or a merged outcome. A manual override without an expiry does not lapse.

pub(crate) mod memory;
mod overview;
mod protocol;
#[cfg(feature = "redis")]
pub(crate) mod redis;

#[cfg(test)]
pub(crate) mod tests;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::Error;
pub(crate) use overview::{Detail, Overview, Posts, Roll, Topic};
pub(crate) use protocol::*;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The contract of stores. Methods may be called concurrently. Dropping a future abandons the answer, not the
/// operation.
pub(crate) trait Store: Send + Sync + 'static {
    /// Performs an exchange. For each entry, the store does the following in this order: it writes back a
    /// lost record, merges the delta, releases and renews leases, grants or renews the leader lease, tries
    /// the proposal, takes a returned leader lease back, grants leases, keeps the settings, and answers with
    /// the view. A proposal is therefore valid under a leader lease that the same entry renews or returns. A
    /// batch is atomic and has one time. Its entries are of different breakers, and handled in any order.
    fn exchange(&self, batch: Batch) -> BoxFuture<'_, Result<Answer, Error>>;

    /// Adds counts of quiet breakers. The answer names only the breakers that the instance has to exchange,
    /// so a report costs the store a tenth of an exchange. An entry is dropped unless the store's state is
    /// closed, in the entry's epoch.
    fn report(&self, report: Report) -> BoxFuture<'_, Result<Acknowledged, Error>>;

    /// Loads the breakers that are not closed, and the position of the event stream.
    fn load(&self) -> BoxFuture<'_, Result<Load, Error>>;

    /// Returns the events after `from`, oldest first, and the notices after the id `notice`, or from now on
    /// if that is empty, after waiting up to `patience` for the first. The lists are empty if there was none,
    /// and may end before the latest event.
    ///
    /// If `from` is of another incarnation, or the events after it have been trimmed, later events are
    /// returned: their incarnation, or a gap in their numbers, shows it. An unreadable event is an error
    /// once; the next call from the same position continues after it. Notices may be lost: they only make
    /// instances report earlier. A second concurrent call waits for the first.
    fn watch(&self, from: Position, notice: String, patience: Duration)
    -> BoxFuture<'_, Result<News, Error>>;

    /// Returns at most `limit` events of the stream, without unreadable ones.
    fn history(&self, at: EventsAt, limit: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>>;
}

/// A store of cached results, which instances share. The memory store is none, because its only process has
/// the results in its own cache.
pub(crate) trait ResultStore: Send + Sync + 'static {
    /// Reads a cached result and the rest of its TTL in one request. The store adds its own prefix to `key`.
    fn cache_get(&self, key: String) -> BoxFuture<'_, Result<Option<Cached>, Error>>;

    /// Stores a result for `ttl` (in whole milliseconds, at least one) in place of the previous one. If
    /// memory is short, the store may drop it earlier.
    fn cache_put(&self, key: String, value: Vec<u8>, ttl: Duration) -> BoxFuture<'_, Result<(), Error>>;
}
