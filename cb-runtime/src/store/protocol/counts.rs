//! What was counted.

use serde::Serialize;

use super::{CountWindow, MAX_COUNT, json};

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

    /// The sum of both, each number at most [`MAX_COUNT`].
    pub(crate) fn plus(self, other: Counts) -> Counts {
        let sum = |one: u64, other: u64| one.saturating_add(other).min(MAX_COUNT);
        Counts {
            successes: sum(self.successes, other.successes),
            failures: sum(self.failures, other.failures),
            slow: sum(self.slow, other.slow),
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

/// An instance's counts since its last batch. An instance collects them with the moments of its own clock
/// (`Delta<Moment>`), and sends them with ages in µs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(bound = "At: Copy + Into<u64>")]
pub(crate) struct Delta<At = u64> {
    /// Added to the epoch's totals.
    #[serde(skip_serializing_if = "Counts::is_nothing")]
    pub(crate) counts: Counts,
    #[serde(flatten)]
    pub(crate) streak: Streak<At>,
    /// For the time window: (the middle of a bucket, its counts), oldest first. The middle lies in exactly
    /// one of the store's buckets; the edges may lie in two. Each is added to the store's bucket,
    /// or dropped if it is older than the window.
    #[serde(serialize_with = "json::buckets", skip_serializing_if = "json::no_buckets")]
    pub(crate) buckets: Vec<(At, Counts)>,
    /// For the count window: outcomes in the order in which calls ended. Those beyond
    /// [`CountWindowRequest::calls`](super::CountWindowRequest::calls) may be left out.
    #[serde(serialize_with = "json::calls", skip_serializing_if = "json::no_calls")]
    pub(crate) calls: CountWindow,
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
#[serde(bound = "At: Copy + Into<u64>")]
pub(crate) struct Streak<At = u64> {
    /// The latest success.
    #[serde(serialize_with = "json::optional_whole", skip_serializing_if = "Option::is_none")]
    pub(crate) success: Option<At>,
    /// (time, count), oldest first, none older than the success; at most [`MAX_STREAK`](super::MAX_STREAK)
    /// pairs.
    #[serde(serialize_with = "json::pairs", skip_serializing_if = "json::no_pairs")]
    pub(crate) failures: Vec<(At, u64)>,
}

impl<At> Streak<At> {
    /// The number of failures.
    pub(crate) fn len(&self) -> u64 {
        self.failures.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count)).min(MAX_COUNT)
    }

    /// Merges the oldest pairs until there are at most this many. They get the latest of their times, so that
    /// a success between them erases none.
    pub(crate) fn bound(&mut self, pairs: usize) {
        let beyond = self.failures.len().saturating_sub(pairs);
        let older: u64 = self.failures.drain(..beyond).map(|(_, count)| count).sum();
        if let Some((_, oldest)) = self.failures.first_mut() {
            *oldest = oldest.saturating_add(older).min(MAX_COUNT);
        }
    }
}
