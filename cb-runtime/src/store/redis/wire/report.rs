//! The arguments of the script `report`.

use std::collections::BTreeMap;

use crate::store::redis::keys::encode;
use crate::store::{Counts, MAX_COUNT, Reported};

/// The length and width of a window, and whether a breaker judges by its streak.
type ReportGroup = (Option<(u64, u64)>, bool);

/// The arguments of a report's entries, as `report/counts.lua` takes them: in groups of one window and one
/// kind of rule. Returns the entries' places in the report, in the order of the arguments.
pub(in crate::store::redis) fn report_arguments(
    entries: &[Reported],
    put: &mut impl FnMut(String),
) -> Vec<usize> {
    let mut groups = BTreeMap::<ReportGroup, Vec<usize>>::new();
    for (place, entry) in entries.iter().enumerate() {
        let shape = entry.window.map(|ask| (bounded(ask.length_us), bounded(ask.width_us)));
        groups.entry((shape, entry.by_streak)).or_default().push(place);
    }
    let or_none = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    for ((shape, by_streak), places) in &groups {
        put(or_none(shape.map(|(length, _)| length)));
        put(or_none(shape.map(|(_, width)| width)));
        put(u8::from(*by_streak).to_string());
        put(places.len().to_string());
        for entry in places.iter().map(|place| &entries[*place]) {
            put(encode(&entry.name));
            put(bounded(entry.epoch).to_string());
            put(counts_text(&entry.counts));
            put(or_none(entry.success_age_us.map(bounded)));
            put(or_none(entry.failure_age_us.map(bounded)));
            put(entry.window.map_or(String::new(), |_| buckets_text(&entry.counts, &entry.buckets)));
        }
    }
    groups.into_values().flatten().collect()
}

/// The buckets that `counts` fell into: none, the age of the only one, or each age with its counts.
pub(super) fn buckets_text(counts: &Counts, buckets: &[(u64, Counts)]) -> String {
    match buckets {
        [(age, only)] if only == counts && !counts.is_nothing() => bounded(*age).to_string(),
        all => {
            let all = all.iter().filter(|(_, counts)| !counts.is_nothing());
            all.fold(String::new(), |text, (age, counts)| {
                text + &format!("{}:{};", bounded(*age), counts_text(counts))
            })
        }
    }
}

/// Counts as they stand in Redis.
pub(super) fn counts_text(counts: &Counts) -> String {
    match counts.bounded() {
        [successes, 0, 0] => successes.to_string(),
        [successes, failures, slow] => format!("{successes},{failures},{slow}"),
    }
}

pub(super) fn bounded(number: u64) -> u64 {
    number.min(MAX_COUNT)
}
