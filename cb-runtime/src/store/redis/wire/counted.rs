//! Entries of an exchange that only have counts, as arguments of the script.

use std::collections::BTreeMap;

use super::report::{bounded, buckets_text, counts_text};
use crate::snapshot::State;
use crate::store::redis::keys::encode;
use crate::store::{Entry, MAX_SETTINGS, Record};
use crate::text::cut;

impl Entry {
    /// Whether the entry has nothing but counts of a state that the instance knows to be closed.
    pub(in crate::store::redis) fn only_counts(&self) -> bool {
        let plain = !(self.failing || self.leaves || self.notice);
        let asks_nothing =
            self.proposal.is_none() && self.leases.is_nothing() && self.role.is_none() && self.last.is_none();
        plain && asks_nothing && self.known().is_some_and(|known| known.state == State::Closed)
    }
}

/// The arguments of these entries, as `counted.lua` takes them: in groups of one window, one summary of
/// settings and one length of streaks. Returns the entries' places, in the order of the arguments.
pub(in crate::store::redis) fn counted_arguments(
    entries: &[(usize, &Entry)],
    put: &mut impl FnMut(String),
) -> Vec<usize> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for (place, entry) in entries {
        let shape =
            entry.window.map(|ask| (bounded(ask.length_us), bounded(ask.width_us), bounded(ask.since)));
        let group = (shape, cut(&entry.settings, MAX_SETTINGS), entry.streak_pairs());
        groups.entry(group).or_default().push((*place, *entry));
    }
    let or_none = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    for ((shape, settings, streak_pairs), group) in &groups {
        put(or_none(shape.map(|(length, ..)| length)));
        put(or_none(shape.map(|(_, width, _)| width)));
        put(shape.map_or(0, |(.., since)| since).to_string());
        put((*settings).to_owned());
        put(streak_pairs.to_string());
        put(group.len().to_string());
        for (_, entry) in group {
            let delta = &entry.delta;
            let known = entry.known().filter(|known| known.epoch > 0);
            put(encode(&entry.name));
            put(known.map_or(0, |known| known.epoch).to_string());
            put(if delta.counts.is_nothing() { String::new() } else { counts_text(&delta.counts) });
            put(or_none(delta.streak.success.map(bounded)));
            put(failures_text(&delta.streak.failures));
            put(entry.window.map_or(String::new(), |_| buckets_text(&delta.counts, &delta.buckets)));
            put(known.map_or(String::new(), record_text));
        }
    }
    groups.into_values().flatten().map(|(place, _)| place).collect()
}

fn failures_text(failures: &[(u64, u64)]) -> String {
    let counted = failures.iter().filter(|(_, count)| *count > 0);
    counted
        .fold(String::new(), |text, (age, count)| text + &format!("{}*{};", bounded(*age), bounded(*count)))
}

/// A record is written without fail: its keys are names, and its values texts and numbers.
fn record_text(record: &Record) -> String {
    serde_json::to_string(record).unwrap_or_default()
}
