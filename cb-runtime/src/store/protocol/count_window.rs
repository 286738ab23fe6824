//! The latest outcomes in their order.

use std::collections::VecDeque;

use super::OutcomeKind;

/// The latest outcomes, oldest first, run-length encoded; at most `most` of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CountWindow {
    runs: VecDeque<(OutcomeKind, u64)>,
    len: u64,
    most: u64,
}

impl CountWindow {
    pub(crate) fn new(most: u64) -> Self {
        CountWindow { most, ..CountWindow::default() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The largest number of outcomes that it holds.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    pub(crate) fn push(&mut self, kind: OutcomeKind, n: u64) {
        let n = n.min(self.most);
        if n == 0 {
            return;
        }
        match self.runs.back_mut() {
            Some((last, sum)) if *last == kind => *sum += n,
            _ => self.runs.push_back((kind, n)),
        }
        self.len += n;
        while self.len > self.most
            && let Some((_, oldest)) = self.runs.front_mut()
        {
            let beyond = (self.len - self.most).min(*oldest);
            *oldest -= beyond;
            self.len -= beyond;
            if *oldest == 0 {
                self.runs.pop_front();
            }
        }
    }

    pub(crate) fn extend(&mut self, later: &CountWindow) {
        for &(kind, n) in &later.runs {
            self.push(kind, n);
        }
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = (OutcomeKind, u64)> + '_ {
        self.runs.iter().copied()
    }

    /// The latest `n` outcomes, newest first.
    pub(crate) fn newest(&self, n: u64) -> impl Iterator<Item = (OutcomeKind, u64)> + '_ {
        let mut left = n;
        self.runs.iter().rev().map_while(move |&(kind, count)| {
            let seen = count.min(left);
            left -= seen;
            (seen > 0).then_some((kind, seen))
        })
    }

    /// The number of outcomes after the latest failure; `None` without a failure.
    pub(crate) fn since_failure(&self) -> Option<u64> {
        let failure = self.runs.iter().rposition(|(kind, _)| kind.failed)?;
        Some(self.runs.range(failure + 1..).map(|(_, n)| n).sum())
    }
}

/// The runs as they are, even where two of one kind follow each other.
#[cfg(test)]
impl FromIterator<(OutcomeKind, u64)> for CountWindow {
    fn from_iter<T: IntoIterator<Item = (OutcomeKind, u64)>>(runs: T) -> Self {
        let runs: VecDeque<_> = runs.into_iter().collect();
        let len = runs.iter().fold(0, |sum: u64, (_, n)| sum.saturating_add(*n));
        CountWindow { runs, len, most: u64::MAX }
    }
}
