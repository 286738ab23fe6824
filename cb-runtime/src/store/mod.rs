//! Where the shared truth lives, and the contract that every place for it fulfils.
//!
//! A store **merges** counts, **compares** epochs and **hands out** leases. It decides nothing: what
//! counts mean is decided in [`policy`](crate::breaker), once, for all stores. `memory` is the store
//! of the embedded default, `redis` the one that a fleet shares; `contract` is the suite that both pass.
//!
//! # Time
//! The store's clock is the only one that is compared. Instances send *ages* ("this happened 1,200 µs
//! ago") and receive *remaining* spans. All spans here are whole microseconds (`_us`), all epochs and
//! counts are plain integers below 2^53, so that a Lua number holds them: a longer span than
//! [`MAX_SPAN_US`] counts as that, a sum that would be larger than [`MAX_COUNT`] stays there.
//!
//! # What a store lets go
//! A closed breaker that no batch has named for [`IDLE`] (an hour, less at most five minutes) is
//! forgotten, and its epochs start anew; so is an instance's sequence number. An open or half-open state,
//! and an override with an expiry, lapses likewise [`IDLE`] after it was due or was used last: by a lease, a
//! leader, or a merged outcome. A manual override without an expiry is kept until it is changed.

pub(crate) mod memory;
mod overview;
mod protocol;
#[cfg(feature = "redis")]
pub(crate) mod redis;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::Error;
pub(crate) use overview::{Detail, Overview, Roll, Topic};
pub(crate) use protocol::*;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The contract. Every method may be called while others are under way; dropping its future
/// abandons the answer, not the operation.
pub(crate) trait Store: Send + Sync + 'static {
    /// One exchange: for each entry, in this order: write back what the store has lost, merge the delta,
    /// release and renew leases, take or renew the role, try the proposal, give the role up, hand out leases,
    /// keep the settings, answer with the view. So a proposal is covered by a role that is renewed, or given
    /// up, in the same entry. The whole batch happens at one moment of the store's time, and no other batch
    /// in between. Two entries may name the same breaker; the second finds what the first has left.
    fn exchange(&self, batch: Batch) -> BoxFuture<'_, Result<Answer, Error>>;

    /// Counts of closed breakers that are far from every limit: added, and answered only where the instance
    /// has to exchange. It costs a store a tenth of an exchange. An entry is dropped unless the store's state
    /// is closed in that epoch.
    fn report(&self, report: Report) -> BoxFuture<'_, Result<Acknowledged, Error>>;

    /// Everything a newcomer must know before its first call: the breakers that are held in another
    /// state than closed, and where the event stream stands.
    fn load(&self) -> BoxFuture<'_, Result<Load, Error>>;

    /// The events after `from`, oldest first, waiting up to `patience` for the first. An empty list
    /// means none came; there may be more than are answered at once.
    ///
    /// If `from` is of another incarnation, or the events after it are gone, later ones are answered all the
    /// same: the caller tells by their incarnation, and by their numbers having a gap. An event that cannot
    /// be read is an error, once; the next call from the same position goes on behind it. One call at a time:
    /// a second one waits for the first.
    fn watch(&self, from: Position, patience: Duration) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>>;

    /// [`watch`](Store::watch), and the notices after `notice`, the id of the latest that this instance has
    /// received; none that was given before, if that is empty. Notices may be lost: they only make instances
    /// report earlier.
    fn follow(
        &self,
        from: Position,
        notice: String,
        patience: Duration,
    ) -> BoxFuture<'_, Result<News, Error>> {
        Box::pin(async move {
            let events = self.watch(from, patience).await?;
            Ok(News { events, notices: Vec::new(), notice })
        })
    }

    /// What the stream still has: at most `limit` events. Those that cannot be read are left out.
    fn history(&self, at: EventsAt, limit: usize) -> BoxFuture<'_, Result<Vec<StreamEvent>, Error>>;

    /// Every breaker that the store knows, with its counts, by name.
    #[cfg(test)]
    fn fleet(&self) -> BoxFuture<'_, Result<Vec<FleetRow>, Error>>;
}

/// A store of cached results, which instances share. The embedded store is none: its one process has the
/// results already.
pub(crate) trait ResultStore: Send + Sync + 'static {
    /// A cached result and the rest of its TTL, read together. The store puts its own prefix before `key`.
    fn cache_get(&self, key: String) -> BoxFuture<'_, Result<Option<Cached>, Error>>;

    /// Stores a result for `ttl` (in whole milliseconds, at least one), or shorter if memory is short.
    /// Replaces the previous one.
    fn cache_put(&self, key: String, value: Vec<u8>, ttl: Duration) -> BoxFuture<'_, Result<(), Error>>;
}
