//! The limits that every store and instance keeps.

use std::time::Duration;

/// An unused breaker expires after this time; see "Expiry" in `store`.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);
/// An unused store remembers for this time which events it has had. An instance that was away can then tell
/// expired states from lost ones.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
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
/// The default number of events that the stream keeps at least; see [`Retention`](super::Retention).
pub(crate) const MAX_EVENTS: usize = 1000;
/// A previous settings summary is answered for this time after another one was reported: long enough for all
/// instances that differ to report, short enough that instances of a new deploy do not see the previous
/// deploy's.
pub(crate) const SAID_FOR: Duration = Duration::from_secs(180);
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
pub(crate) const MAX_ROLE_TERM_US: u64 = 10 * 1_000_000;
/// After a notice, all instances report what they have counted of that breaker at every pace for this long.
pub(crate) const NOTICE: Duration = Duration::from_secs(10);
/// A notice reaches every instance, which costs Redis 28 ms for a thousand of them: there is at most one in
/// this time, for all breakers that need one, and for each breaker one in half of [`NOTICE`].
pub(crate) const NOTICE_PAUSE: Duration = Duration::from_millis(100);
/// The longest settings summary, in bytes. A longer one is cut between two characters.
pub(crate) const MAX_SETTINGS: usize = 600;

/// Cuts a reason or an actor to [`MAX_REASON`] bytes.
pub(crate) fn cut(reason: &str) -> &str {
    crate::text::cut(reason, MAX_REASON)
}
