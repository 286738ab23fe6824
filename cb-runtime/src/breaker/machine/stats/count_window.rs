//! The fleet's count window at the last exchange.

use crate::store::{CountWindow, CountWindowRequest, CountWindowView, Counts};

/// The counts of the latest `n` outcomes in `parts`, which follow each other.
pub(crate) fn latest<'a>(n: u64, parts: impl DoubleEndedIterator<Item = &'a CountWindow>) -> Counts {
    let mut left = n;
    let mut counts = Counts::default();
    for part in parts.rev() {
        for (kind, n) in part.newest(left) {
            left -= n;
            *if kind.failed { &mut counts.failures } else { &mut counts.successes } += n;
            counts.slow += if kind.slow { n } else { 0 };
        }
    }
    counts
}

/// The fleet's count window at the last exchange.
#[derive(Clone, Debug)]
pub(crate) struct FleetCountWindow {
    pub(crate) outcomes: CountWindow,
    /// The place of the latest of them; see [`CountWindowView::place`].
    pub(crate) place: u64,
    /// The places of other instances' latest failures.
    failing: Vec<u64>,
    /// The place of this instance's own latest failure.
    failed: Option<u64>,
}

impl FleetCountWindow {
    pub(crate) fn new(calls: u32) -> Self {
        let outcomes = CountWindow::new(u64::from(calls));
        FleetCountWindow { outcomes, place: 0, failing: Vec::new(), failed: None }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.outcomes.most()
    }

    /// Empties the window for a new epoch.
    pub(crate) fn clear(&mut self) {
        *self = FleetCountWindow {
            outcomes: CountWindow::new(self.outcomes.most()),
            place: 0,
            failing: Vec::new(),
            failed: None,
        };
    }

    pub(crate) fn request(&self) -> CountWindowRequest {
        let calls = u32::try_from(self.outcomes.most()).unwrap_or(u32::MAX);
        CountWindowRequest { calls, since: self.place }
    }

    /// Adopts the answer. `sent`: the outcomes that this instance has reported in that exchange.
    pub(crate) fn update(&mut self, view: &CountWindowView, sent: &CountWindow) {
        let new: u64 = view.outcomes.iter().map(|(_, n)| n).sum();
        if view.place.saturating_sub(new) != self.place {
            self.clear();
        }
        for &(kind, n) in &view.outcomes {
            self.outcomes.push(kind, n);
        }
        self.place = view.place;
        self.failing.clone_from(&view.failing);
        // The store appends reported outcomes at the end.
        let failed = sent.since_failure().map(|after| view.place.saturating_sub(after));
        self.failed = failed.or(self.failed);
    }

    /// The number of instances with failures in the window, after this instance has added `more` outcomes,
    /// with (`fails`) or without a failure.
    pub(crate) fn failing(&self, more: u64, fails: bool) -> u32 {
        let begin = (self.place + more).saturating_sub(self.outcomes.most());
        let others = self.failing.iter().filter(|place| **place > begin).count();
        let own = fails || self.failed.is_some_and(|place| place > begin);
        u32::try_from(others).unwrap_or(u32::MAX).saturating_add(u32::from(own))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::OutcomeKind;

    fn kind(number: u8) -> OutcomeKind {
        OutcomeKind { failed: number & 1 == 1, slow: number & 2 == 2 }
    }

    fn counted(kinds: &[OutcomeKind]) -> Counts {
        let count =
            |wanted: fn(&OutcomeKind) -> bool| kinds.iter().filter(|kind| wanted(kind)).count() as u64;
        Counts {
            successes: count(|kind| !kind.failed),
            failures: count(|kind| kind.failed),
            slow: count(|kind| kind.slow),
        }
    }

    proptest! {
        /// Against a plain list of all outcomes.
        #[test]
        fn count_window_equals_a_plain_list(
            pushes in prop::collection::vec((0_u8..4, 0_u64..20), 0..40), most in 1_u64..30, split in 0_usize..40, n in 0_u64..60,
        ) {
            let mut all = Vec::new();
            let (mut first, mut second) = (CountWindow::new(most), CountWindow::new(most));
            for (at, (number, times)) in pushes.into_iter().enumerate() {
                if at < split { &mut first } else { &mut second }.push(kind(number), times);
                all.extend((0..times).map(|_| kind(number)));
            }
            let n = n.min(most);
            let newest = |n: u64| counted(&all[all.len() - usize::try_from(n).unwrap().min(all.len())..]);
            prop_assert_eq!(latest(n, [&first, &second].into_iter()), newest(n));
            first.extend(&second);
            prop_assert_eq!(first.len(), most.min(all.len() as u64));
            prop_assert_eq!(latest(n, std::iter::once(&first)), newest(n));
            let since = all.iter().rev().take(usize::try_from(most).unwrap()).position(|kind| kind.failed);
            prop_assert_eq!(first.since_failure(), since.map(|n| n as u64));
        }
    }

    #[test]
    fn answer_continues_the_last_one_or_starts_over() {
        let mut last = FleetCountWindow::new(4);
        let view = |place, outcomes: &[(u8, u64)]| CountWindowView {
            place,
            outcomes: outcomes.iter().map(|&(number, n)| (kind(number), n)).collect(),
            failing: Vec::new(),
        };
        last.update(&view(3, &[(1, 3)]), &CountWindow::default());
        last.update(&view(5, &[(0, 2)]), &CountWindow::default());
        assert_eq!(latest(4, std::iter::once(&last.outcomes)), Counts { successes: 2, failures: 2, slow: 0 });
        assert_eq!(last.request(), CountWindowRequest { calls: 4, since: 5 });
        // More has happened than is kept, or the store has begun anew.
        last.update(&view(100, &[(0, 4)]), &CountWindow::default());
        assert_eq!(latest(4, std::iter::once(&last.outcomes)), Counts { successes: 4, failures: 0, slow: 0 });
        last.update(&view(1, &[(1, 1)]), &CountWindow::default());
        assert_eq!(latest(4, std::iter::once(&last.outcomes)), Counts { successes: 0, failures: 1, slow: 0 });
    }

    #[test]
    fn failing_instances_are_those_among_the_last_calls() {
        let mut last = FleetCountWindow::new(10);
        let mut sent = CountWindow::new(10);
        sent.push(kind(1), 1);
        sent.push(kind(0), 2);
        last.update(
            &CountWindowView { place: 20, outcomes: vec![(kind(0), 10)], failing: vec![17, 11] },
            &sent,
        );
        // Its own is at place 18.
        assert_eq!(last.failing(0, false), 3);
        assert_eq!(last.failing(1, false), 2, "place 11 has been pushed out");
        assert_eq!(last.failing(8, false), 0);
        assert_eq!(last.failing(8, true), 1);
    }
}
