//! What travels between an instance and the scripts: a batch as JSON, a report as arguments, answers as
//! arrays.

mod counted;
mod event;
mod fields;
mod opening;
mod reply;
mod report;

use serde::Serialize;

use super::keys::{Keys, encode};
use crate::store::{Batch, Entry, MAX_COUNT, MAX_SPAN_US, Retention};
pub(super) use counted::counted_arguments;
pub(super) use event::event;
pub(super) use fields::{Fields, Published};
pub(super) use reply::{DecodeError, ReplyReader};
pub(super) use report::report_arguments;

/// The argument of the script `exchange`.
#[derive(Serialize)]
pub(super) struct BatchMessage<'a> {
    #[serde(flatten)]
    batch: &'a Batch,
    /// The node's name in lists of failing nodes.
    pub(super) node: String,
    /// The id of the incarnation that begins with this batch, if one does.
    fresh: String,
    /// The prefix of breakers' keys.
    prefix: String,
    /// The prefix of windows' keys; the window's shape and bucket follow.
    windows: String,
    /// The prefix of leases' keys.
    leases: String,
    /// The key of the notices.
    notices: String,
    /// The number of events to keep, and for how many seconds; `None`: as others have set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<(u64, u64)>,
    pub(super) entries: Vec<EntryMessage<'a>>,
}

#[derive(Serialize)]
pub(super) struct EntryMessage<'a> {
    pub(super) name: String,
    #[serde(flatten)]
    entry: &'a Entry,
    /// Whether there is something to merge.
    #[serde(skip_serializing_if = "is_false")]
    something: bool,
    /// The number of (age, count) pairs of the streak to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<usize>,
}

impl<'a> BatchMessage<'a> {
    pub(super) fn new(batch: &'a Batch, fresh: String, keys: &Keys, retention: Option<Retention>) -> Self {
        BatchMessage {
            batch,
            node: encode(batch.node()),
            fresh,
            prefix: keys.breaker_prefix(),
            windows: keys.window_prefix(),
            leases: keys.lease_prefix(),
            notices: keys.notices(),
            retention: retention.map(|kept| {
                let events = (kept.events as u64).min(MAX_COUNT);
                (events, kept.age.as_secs().min(MAX_SPAN_US / 1_000_000))
            }),
            entries: Vec::with_capacity(batch.entries.len()),
        }
    }
}

impl<'a> EntryMessage<'a> {
    pub(super) fn new(entry: &'a Entry) -> Self {
        let has_failures = entry.delta.streak.failures.iter().any(|(_, count)| *count > 0);
        EntryMessage {
            name: encode(&entry.name),
            entry,
            something: entry.has_something_to_merge(),
            keep: has_failures.then(|| entry.streak_pairs()),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(truth: &bool) -> bool {
    !truth
}
