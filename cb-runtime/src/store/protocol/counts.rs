//! What was counted.

use serde::Serialize;

use super::{MAX_COUNT, json};

/// Counts of completed calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    /// Successes and failures that were slow.
    pub(crate) slow: u64,
}

impl Counts {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Counts::default()
    }

    /// Successes, failures and slow calls, each at most [`MAX_COUNT`].
    pub(crate) fn bounded(&self) -> [u64; 3] {
        [self.successes, self.failures, self.slow].map(|count| count.min(MAX_COUNT))
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

/// The outcome of a completed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutcomeKind {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

impl OutcomeKind {
    /// Its letter in a batch, and in a count window of the store.
    pub(super) fn letter(self) -> char {
        match (self.failed, self.slow) {
            (false, false) => 's',
            (true, false) => 'f',
            (false, true) => 'S',
            (true, true) => 'F',
        }
    }

    #[cfg(feature = "redis")]
    pub(in crate::store) fn of_letter(letter: u8) -> Self {
        OutcomeKind { failed: letter.eq_ignore_ascii_case(&b'f'), slow: letter.is_ascii_uppercase() }
    }
}

/// An instance's counts since its last batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Delta {
    /// Added to the epoch's totals.
    #[serde(skip_serializing_if = "Counts::is_nothing")]
    pub(crate) counts: Counts,
    #[serde(flatten)]
    pub(crate) streak: Streak,
    /// For the time window: (age, counts). Each is added to the bucket of its age, or dropped if it is older
    /// than the window.
    #[serde(serialize_with = "json::buckets", skip_serializing_if = "json::no_buckets")]
    pub(crate) buckets: Vec<(u64, Counts)>,
    /// For the count window: runs of one kind of outcome, in the order in which calls ended, oldest first.
    /// Outcomes beyond [`CountWindowRequest::calls`](super::CountWindowRequest::calls) may be left out.
    #[serde(serialize_with = "json::calls", skip_serializing_if = "json::no_calls")]
    pub(crate) calls: Vec<(OutcomeKind, u64)>,
}

impl Delta {
    /// The age of the latest failure.
    pub(in crate::store) fn failure_age_us(&self) -> Option<u64> {
        let latest = self.streak.failures.iter().filter(|(_, count)| *count > 0).map(|&(age, _)| age).min();
        latest.or((self.counts.failures > 0).then_some(0))
    }
}

/// Consecutive failures: the time of the latest success, and the failures after it.
///
/// Two streaks are merged so: the later success stays, failures before it are dropped, all others stay,
/// including one at the time of the success. The result does not depend on the order of merging, within
/// [`MAX_STREAK`](super::MAX_STREAK).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Streak {
    /// The age of the latest success.
    #[serde(
        rename = "success",
        serialize_with = "json::optional_whole",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) success_age_us: Option<u64>,
    /// (age, count), oldest first, none older than the success; at most [`MAX_STREAK`](super::MAX_STREAK)
    /// pairs.
    #[serde(serialize_with = "json::pairs", skip_serializing_if = "json::no_pairs")]
    pub(crate) failures: Vec<(u64, u64)>,
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
