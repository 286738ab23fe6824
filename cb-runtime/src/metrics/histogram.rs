//! Histograms of durations in bounded memory.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::micros;

/// Durations rounded to six binary digits. There are fewer than two thousand such values, so memory is
/// bounded; the error is at most 2 %.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram(BTreeMap<u64, u64>);

const DIGITS: u32 = 6;

impl Histogram {
    pub(crate) fn add(&mut self, span: Duration) {
        *self.0.entry(rounded(micros(span))).or_default() += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn absorb(&mut self, other: &Histogram) {
        for (value, count) in &other.0 {
            *self.0.entry(*value).or_default() += count;
        }
    }

    /// The durations with their counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Duration, usize)> {
        let times = |count| usize::try_from(count).unwrap_or(usize::MAX);
        self.0.iter().map(move |(value, count)| (Duration::from_micros(*value), times(*count)))
    }
}

/// The middle of all values that share the first digits.
fn rounded(value: u64) -> u64 {
    let dropped = (u64::BITS - value.leading_zeros()).saturating_sub(DIGITS);
    (value >> dropped << dropped) + (1 << dropped >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_at_most_two_percent_in_bounded_memory() {
        let mut spread = Histogram::default();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200_000 {
            let span = random.u64(..) >> random.u32(..64);
            let known = rounded(span);
            assert!(known.abs_diff(span) <= span / 50, "{span} is taken for {known}");
            spread.add(Duration::from_micros(span));
        }
        spread.add(Duration::ZERO);
        spread.add(Duration::MAX);
        assert!(spread.0.len() < 2000, "{}", spread.0.len());
        assert_eq!(spread.iter().map(|(_, count)| count).sum::<usize>(), 200_002);
    }

    #[test]
    fn short_durations_are_exact() {
        for span in 0..64 {
            assert_eq!(rounded(span), span);
        }
    }
}
