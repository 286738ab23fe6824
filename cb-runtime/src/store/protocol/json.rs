//! The form of a batch's fields in JSON: numbers within their limits, and nothing that a script ignores.
//! Parsing a batch is a good part of its cost to the server.

#![allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signatures that serde calls")]

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{CountWindow, Counts, LeaseId, MAX_COUNT, MAX_EPOCH, MAX_SETTINGS, MAX_SPAN_US, Record, cut};
use crate::text::cut as cut_to;

/// The number, or the largest one that Lua represents exactly.
pub(super) fn whole<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(bounded(*number))
}

pub(super) fn optional_whole<At, S>(number: &Option<At>, to: S) -> Result<S::Ok, S::Error>
where
    At: Copy + Into<u64>,
    S: Serializer,
{
    number.map(bounded).serialize(to)
}

fn bounded<N: Into<u64>>(number: N) -> u64 {
    number.into().min(MAX_COUNT)
}

pub(super) fn span<S: Serializer>(us: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64((*us).min(MAX_SPAN_US))
}

pub(super) fn optional_span<S: Serializer>(us: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    us.map(|us| us.min(MAX_SPAN_US)).serialize(to)
}

pub(super) fn reason<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(cut(text))
}

pub(super) fn settings<S: Serializer>(summary: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(cut_to(summary, MAX_SETTINGS))
}

/// A script compares ids as texts: they have more digits than a Lua number.
pub(super) fn ids<S: Serializer>(ids: &[LeaseId], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ids.iter().map(ToString::to_string))
}

/// (age, count) pairs.
pub(super) fn pairs<At, S>(pairs: &[(At, u64)], to: S) -> Result<S::Ok, S::Error>
where
    At: Copy + Into<u64>,
    S: Serializer,
{
    let counted = pairs.iter().filter(|(_, count)| *count > 0);
    to.collect_seq(counted.map(|(age, count)| (bounded(*age), bounded(*count))))
}

pub(super) fn no_pairs<At>(pairs: &[(At, u64)]) -> bool {
    pairs.iter().all(|(_, count)| *count == 0)
}

/// Buckets, each as `[age, successes, failures, slow]`.
pub(super) fn buckets<At, S>(buckets: &[(At, Counts)], to: S) -> Result<S::Ok, S::Error>
where
    At: Copy + Into<u64>,
    S: Serializer,
{
    let counted = buckets.iter().filter(|(_, counts)| !counts.is_nothing());
    to.collect_seq(counted.map(|(age, counts)| {
        let [successes, failures, slow] = counts.bounded();
        (bounded(*age), successes, failures, slow)
    }))
}

pub(super) fn no_buckets<At>(buckets: &[(At, Counts)]) -> bool {
    buckets.iter().all(|(_, counts)| counts.is_nothing())
}

pub(super) fn calls<S: Serializer>(calls: &CountWindow, to: S) -> Result<S::Ok, S::Error> {
    let counted = calls.runs().filter(|(_, count)| *count > 0);
    to.collect_seq(counted.map(|(kind, count)| (kind.letter(), bounded(count))))
}

pub(super) fn no_calls(calls: &CountWindow) -> bool {
    calls.len() == 0
}

/// A record of epoch 0 was never left, and no store can have lost it: only its epoch is sent.
pub(super) fn known<S: Serializer>(known: &Option<Record>, to: S) -> Result<S::Ok, S::Error> {
    match known {
        Some(Record { epoch: 0, .. }) => {
            let mut only = to.serialize_struct("Record", 1)?;
            only.serialize_field("epoch", &0)?;
            only.end()
        }
        known => known.serialize(to),
    }
}

/// There is no known record, or its epoch is not plausible.
pub(super) fn is_unknown(known: &Option<Record>) -> bool {
    known.as_ref().is_none_or(|known| known.epoch > MAX_EPOCH)
}

pub(super) fn is_false(truth: &bool) -> bool {
    !truth
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.bounded().serialize(to)
    }
}
