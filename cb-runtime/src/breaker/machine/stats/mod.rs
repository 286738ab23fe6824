//! The counts: the fleet's at the last exchange, and this instance's since.

pub(crate) mod count_window;
pub(crate) mod delta;
mod previous;
pub(crate) mod time_window;

use std::collections::BTreeMap;
use std::time::Duration;

use super::Now;
use super::policy::TripInput;
use crate::clock::Moment;
use crate::config::{Settings, WindowKind};
use crate::store::{CountWindowRequest, Counts, Delta, Entry, View, WindowRequest};
use crate::strategy::Bucket;
use count_window::FleetCountWindow;
use delta::{PendingDelta, Shape};
use previous::PreviousWindows;
use time_window::TimeWindow;

/// The successes that a breaker's counters hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Successes {
    pub(crate) count: u64,
    /// A lower bound of the latest success's time since the previous drain. `None`: unknown.
    pub(crate) latest: Option<Moment>,
}

/// The counts of an entry in flight, and the parts of the fleet's windows that it requests.
#[derive(Clone, Debug, Default)]
pub(super) struct SentDelta {
    pub(super) delta: PendingDelta,
    pub(super) window: Option<WindowRequest>,
    last: Option<CountWindowRequest>,
}

pub(super) struct CallStats {
    /// Totals of the epoch, and the failure streak, as of the last exchange.
    fleet: Counts,
    streak: u64,
    /// The fleet's latest success, and other instances' latest failures.
    success_at: Option<Moment>,
    failing: Vec<Moment>,
    time: Option<TimeWindow>,
    last: Option<FleetCountWindow>,
    /// The outcomes of windows that a reload has replaced.
    previous: PreviousWindows,
    /// Outcomes of the confirmed epoch that were set aside when this instance decided to close.
    before: PendingDelta,
    /// Whether `pending` has outcomes of calls that were admitted by that decision.
    decided: bool,
    pub(super) pending: PendingDelta,
    /// All outcomes of this instance in this epoch, reported or not, if a decision needs them.
    own: Option<PendingDelta>,
    /// Whether a decision needs the number of failing instances.
    counts_instances: bool,
}

impl CallStats {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut stats = CallStats {
            fleet: Counts::default(),
            streak: 0,
            success_at: None,
            failing: Vec::new(),
            time: None,
            last: None,
            previous: PreviousWindows::default(),
            before: PendingDelta::default(),
            decided: false,
            pending: PendingDelta::default(),
            own: None,
            counts_instances: false,
        };
        stats.set_window(settings);
        stats.keep_own(settings);
        stats
    }

    /// Applies new settings. Outcomes stay if the new window is of the same kind as the old one.
    pub(super) fn configure(
        &mut self,
        before: &Settings,
        settings: &Settings,
        sent: Option<&mut SentDelta>,
        now: Now,
    ) {
        let buckets = |settings: &Settings| (settings.window, settings.strategy.is_some());
        if buckets(before) != buckets(settings) {
            self.keep_previous(sent, now);
            self.set_window(settings);
        }
        self.keep_own(settings);
    }

    fn keep_previous(&mut self, sent: Option<&mut SentDelta>, now: Now) {
        let delta = sent.as_ref().map(|sent| &sent.delta);
        if let Some(time) = &self.time {
            self.previous.add_time(time, delta, now);
        }
        if let Some(last) = &self.last {
            self.previous.add_calls(last, delta);
        }
        // The answer, if there is one, will be about the window before.
        if let Some(sent) = sent {
            *sent = SentDelta {
                delta: std::mem::take(&mut sent.delta).without_windows(),
                ..SentDelta::default()
            };
        }
    }

    fn set_window(&mut self, settings: &Settings) {
        // A strategy may look at a part of the window.
        let buckets = if settings.strategy.is_some() { 60 } else { 10 };
        (self.time, self.last) = match settings.window {
            Some(WindowKind::Time(span)) => (Some(TimeWindow::new(span, buckets)), None),
            Some(WindowKind::Calls(calls)) => (None, Some(FleetCountWindow::new(calls))),
            None => (None, None),
        };
        self.before = std::mem::take(&mut self.before).reshaped(self.shape());
        self.pending = std::mem::take(&mut self.pending).reshaped(self.shape());
    }

    fn keep_own(&mut self, settings: &Settings) {
        self.counts_instances = counts_instances(settings);
        let shape = self.shape();
        let own = self.own.take().filter(|_| keeps_own(settings));
        self.own =
            keeps_own(settings).then(|| own.unwrap_or_else(|| PendingDelta::new(shape)).reshaped(shape));
    }

    fn shape(&self) -> Shape {
        Shape {
            bucket_us: self.time.as_ref().map_or(0, TimeWindow::width),
            last: self.last.as_ref().map_or(0, FleetCountWindow::calls),
        }
    }

    // ---- what happens here

    pub(super) fn successes(&mut self, n: u64, latest: Moment, now: Moment) {
        self.pending.successes(n, latest, now);
        if let Some(own) = &mut self.own {
            own.successes(n, latest, now);
        }
    }

    pub(super) fn slow_success(&mut self, now: Moment) {
        self.pending.slow_success(now);
        if let Some(own) = &mut self.own {
            own.slow_success(now);
        }
    }

    pub(super) fn failure(&mut self, slow: bool, now: Moment) {
        self.pending.failure(slow, now);
        if let Some(own) = &mut self.own {
            own.failure(slow, now);
        }
    }

    // ---- what it amounts to

    /// Totals of the epoch: the fleet's, and this instance's since. `sent`: the outcomes in the entry under
    /// way.
    pub(super) fn totals(&self, sent: Option<&PendingDelta>) -> Counts {
        self.unconfirmed(sent).fold(self.fleet, |sum, delta| sum.plus(delta.counts))
    }

    /// This instance's outcomes that the fleet's counts do not include yet, oldest first.
    fn unconfirmed<'a>(
        &'a self,
        sent: Option<&'a PendingDelta>,
    ) -> impl DoubleEndedIterator<Item = &'a PendingDelta> {
        sent.into_iter().chain([&self.before, &self.pending])
    }

    pub(super) fn has_streak(&self) -> bool {
        self.streak > 0
    }

    /// The input of a closed breaker's rules.
    pub(super) fn trip_input(&self, sent: Option<&PendingDelta>, now: Now, with_buckets: bool) -> TripInput {
        let streak = self.unconfirmed(sent).fold(self.streak, |before, delta| delta.streak_after(before));
        let streak_instances = if self.counts_instances { self.failing_in_streak(sent) } else { 0 };
        let mut input = TripInput { streak, streak_instances, ..TripInput::default() };
        if let Some(time) = &self.time {
            let start = Moment(now.at.0.saturating_sub(time.length()));
            input.window = self
                .unconfirmed(sent)
                .fold(time.sum(now.store_time()), |sum, delta| sum.plus(delta.window_since(start)));
            input.window = input.window.plus(self.previous.window_since(start));
            if self.counts_instances {
                input.window_instances = self.failing_since(start);
            }
            if with_buckets {
                input.buckets = self.buckets(time, sent, now);
            }
        }
        if let Some(last) = &self.last {
            let confirmed = self.previous.calls().chain([&last.outcomes]);
            let parts = confirmed.chain(self.unconfirmed(sent).map(PendingDelta::calls));
            input.window = count_window::latest(last.calls(), parts);
            if self.counts_instances {
                let more = self.unconfirmed(sent).map(|delta| delta.calls().len()).sum();
                let fails = self.unconfirmed(sent).any(|delta| delta.calls().since_failure().is_some());
                input.window_instances = last.failing(more, fails);
            }
        }
        input
    }

    /// The input from this instance's outcomes alone, if they are kept.
    pub(super) fn own_trip_input(&self, now: Now, with_buckets: bool) -> Option<TripInput> {
        let own = self.own.as_ref()?;
        let window = match (&self.time, &self.last) {
            (Some(time), _) => own.window_since(Moment(now.at.0.saturating_sub(time.length()))),
            (None, Some(last)) => count_window::latest(last.calls(), std::iter::once(own.calls())),
            (None, None) => Counts::default(),
        };
        Some(TripInput {
            streak: own.streak_after(0),
            window,
            streak_instances: 1,
            window_instances: 1,
            buckets: match &self.time {
                Some(time) if with_buckets => by_age(time, BTreeMap::new(), own.buckets(), now),
                _ => Vec::new(),
            },
        })
    }

    /// The number of instances with failures since the fleet's latest success.
    fn failing_in_streak(&self, sent: Option<&PendingDelta>) -> u32 {
        let success_at =
            self.unconfirmed(sent).filter_map(PendingDelta::success_at).chain(self.success_at).max();
        let after = |at: &Moment| success_at.is_none_or(|success| *at >= success);
        let others = self.failing.iter().filter(|at| after(at)).count();
        let own = self.own.as_ref().and_then(PendingDelta::latest_failure).is_some_and(|at| after(&at));
        number(others + usize::from(own))
    }

    fn failing_since(&self, start: Moment) -> u32 {
        let own = self.own.as_ref().is_some_and(|own| own.window_since(start).failures > 0);
        self.others_failing_since(start).saturating_add(u32::from(own))
    }

    /// The number of other instances with failures since `start`; known only for a quorum or a strategy.
    pub(super) fn others_failing_since(&self, start: Moment) -> u32 {
        number(self.failing.iter().filter(|at| **at >= start).count())
    }

    fn buckets(&self, time: &TimeWindow, sent: Option<&PendingDelta>, now: Now) -> Vec<Bucket> {
        let unconfirmed = self.unconfirmed(sent).flat_map(PendingDelta::buckets);
        let here = self.previous.buckets().chain(unconfirmed);
        by_age(time, time.buckets(now.store_time()).collect(), here, now)
    }

    // ---- the exchange

    pub(super) fn has_news(&self) -> bool {
        !self.before.is_empty() || !self.pending.is_empty()
    }

    /// Moves unreported outcomes into an entry. `retry`: the outcomes of an entry whose fate is unknown.
    /// `leaving`: this instance has decided to leave the confirmed epoch; outcomes since then do not belong
    /// to that epoch, and stay here. `of_epoch`: whether outcomes count in the confirmed state; otherwise
    /// they are dropped.
    pub(super) fn encode(
        &mut self,
        entry: &mut Entry,
        retry: Option<SentDelta>,
        leaving: bool,
        of_epoch: bool,
        now: Now,
    ) -> SentDelta {
        let delta = retry.map_or_else(|| self.take_unsent(leaving), |sent| sent.delta);
        entry.delta = if of_epoch { delta.aged(now.at) } else { Delta::default() };
        entry.window = self.time.as_ref().map(|time| {
            let oldest = delta.oldest_bucket();
            time.ask(oldest.map(|at| at.0.wrapping_add(now.skew)))
        });
        entry.failing = self.counts_instances;
        entry.last = self.last.as_ref().map(FleetCountWindow::ask);
        SentDelta { delta, window: entry.window, last: entry.last }
    }

    fn take_unsent(&mut self, leaving: bool) -> PendingDelta {
        if !leaving {
            self.set_aside();
        }
        let fresh = PendingDelta::new(self.shape());
        std::mem::replace(&mut self.before, fresh)
    }

    /// Adopts the fleet's counts from the answer to the entry that contained `sent`.
    pub(super) fn receive(&mut self, sent: &SentDelta, view: &View, store_now: u64, now: Moment) {
        let ago = |age: u64| Moment(now.0.saturating_sub(age));
        self.fleet = view.counts;
        self.streak = view.streak;
        self.success_at = view.success_age_us.map(ago);
        self.failing = view.failing.iter().map(|age| ago(*age)).collect();
        if let (Some(time), Some(ask), Some(window)) = (&mut self.time, sent.window, &view.window) {
            time.update(ask, window, store_now);
            self.previous.forget_time(time);
        }
        if let (Some(last), Some(ask), Some(calls)) = (&mut self.last, sent.last, &view.last)
            && u64::from(ask.calls) == last.calls()
        {
            last.update(calls, sent.delta.calls());
            self.previous.forget_calls(last);
        }
    }

    /// Takes outcomes back that the store could not merge, to report them later.
    pub(super) fn restore(&mut self, sent: SentDelta) {
        let later = std::mem::take(&mut self.before);
        self.before = sent.delta.reshaped(self.shape()).then(later);
    }

    // ---- the report

    pub(super) fn has_unsent_failures(&self) -> bool {
        self.before.counts.failures + self.pending.counts.failures > 0
    }

    /// The store may list this instance's node as a failing one.
    pub(super) fn is_among_failing(&self) -> bool {
        let has_failed = |own: &PendingDelta| own.latest_failure().is_some();
        self.counts_instances && self.own.as_ref().is_some_and(has_failed)
    }

    pub(super) fn has_time_window(&self) -> bool {
        self.time.is_some()
    }

    /// Whether a report can carry the unreported outcomes. A report has no order of calls, and can carry
    /// failures only if no rule needs their streak or their instances.
    pub(super) fn can_be_reported(&self, settings: &Settings) -> bool {
        let by_streak = settings.failure_threshold.is_some();
        self.last.is_none()
            && !(by_streak && self.has_streak())
            && !((by_streak || self.counts_instances) && self.has_unsent_failures())
    }

    pub(super) fn take_for_report(&mut self) -> SentDelta {
        let delta = self.take_unsent(false);
        SentDelta { delta, window: self.time.as_ref().map(|time| time.ask(None)), last: None }
    }

    /// Handles the merge of a report: the fleet's counts have grown by at least its counts.
    pub(super) fn receive_report(&mut self, sent: &SentDelta, now: Now) {
        self.fleet = self.fleet.plus(sent.delta.counts);
        self.streak = sent.delta.streak_after(self.streak);
        self.success_at = self.success_at.max(sent.delta.success_at());
        if let Some(time) = self.time.as_mut().filter(|_| sent.window.is_some()) {
            for (middle, counts) in sent.delta.buckets() {
                time.add(middle.0.wrapping_add(now.skew), counts);
            }
        }
    }

    // ---- beginnings

    /// Begins a new epoch. Outcomes since this instance's own decision for that state stay.
    pub(super) fn begin_epoch(&mut self) {
        self.forget_fleet();
        if !std::mem::take(&mut self.decided) {
            self.forget_pending();
            self.forget_own();
        }
    }

    fn forget_fleet(&mut self) {
        self.fleet = Counts::default();
        self.before = PendingDelta::new(self.shape());
        self.streak = 0;
        self.success_at = None;
        self.failing.clear();
        self.previous = PreviousWindows::default();
        if let Some(time) = &mut self.time {
            time.clear();
        }
        if let Some(last) = &mut self.last {
            last.clear();
        }
    }

    /// Notes this instance's decision to close: later outcomes belong to the epoch that it begins.
    pub(super) fn decide(&mut self) {
        self.set_aside();
        self.decided = true;
    }

    fn set_aside(&mut self) {
        let fresh = PendingDelta::new(self.shape());
        let pending = std::mem::replace(&mut self.pending, fresh);
        let before = std::mem::take(&mut self.before);
        self.before = if before.is_empty() { pending } else { before.then(pending) };
    }

    /// Drops a refused decision, and the outcomes of the calls that it admitted.
    pub(super) fn forget_decided(&mut self) {
        if std::mem::take(&mut self.decided) {
            self.forget_pending();
            self.forget_own();
        }
    }

    fn forget_pending(&mut self) {
        self.pending = PendingDelta::new(self.shape());
    }

    /// Begins local probes, which are counted separately and not reported.
    pub(super) fn forget_totals(&mut self) {
        self.fleet = Counts::default();
        self.before = PendingDelta::new(self.shape());
        self.decided = false;
        self.forget_pending();
    }

    /// Handles a recovery by local probes: for the fleet, a success that ends the failure streak.
    pub(super) fn recovered(&mut self, now: Moment) {
        self.decided = false;
        self.begin_epoch();
        self.pending.recovered(now);
    }

    pub(super) fn forget_own(&mut self) {
        let shape = self.shape();
        if let Some(own) = &mut self.own {
            *own = PendingDelta::new(shape);
        }
    }
}

/// Whether a rule needs the number of failing instances.
fn counts_instances(settings: &Settings) -> bool {
    settings.min_failing_instances > 1 || settings.strategy.is_some()
}

/// Whether this instance's own counts are needed: for a quorum, or for their distance to a limit.
fn keeps_own(settings: &Settings) -> bool {
    counts_instances(settings) || matches!(settings.window, Some(WindowKind::Time(_)))
}

/// The store's buckets, and those counted here (by the middle of each), by their age.
fn by_age(
    time: &TimeWindow,
    mut all: BTreeMap<u64, Counts>,
    here: impl Iterator<Item = (Moment, Counts)>,
    now: Now,
) -> Vec<Bucket> {
    for (middle, counts) in here {
        if middle.0.saturating_add(time.length()) > now.at.0 {
            let sum = all.entry(middle.0.wrapping_add(now.skew) / time.width()).or_default();
            *sum = sum.plus(counts);
        }
    }
    let age = |number: u64| now.store_time().saturating_sub((number + 1) * time.width());
    all.into_iter()
        .map(|(number, counts)| Bucket { age: Duration::from_micros(age(number)), calls: counts.into() })
        .collect()
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
