//! The counts: the fleet's at the last exchange, and this instance's since.

pub(crate) mod count_window;
pub(crate) mod delta;
mod input;
mod previous;
pub(crate) mod time_window;

use super::Now;
use crate::clock::Moment;
use crate::config::{Settings, WindowKind};
use crate::store::{CountWindowRequest, Counts, Delta, Entry, View, WindowRequest};
use count_window::FleetCountWindow;
use delta::Shape;
use previous::PreviousWindows;
use time_window::TimeWindow;

/// The successes that a breaker's counters hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Successes {
    pub(crate) count: u64,
    /// A lower bound of the latest success's time since the previous drain. `None`: unknown.
    pub(crate) latest: Option<Moment>,
}

/// Failures that were counted without being judged, because they could not trip the circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unjudged {
    pub(crate) failures: u64,
    /// The number of the latest of these failures that no success of their threads separates.
    pub(crate) streak: u64,
    /// The successes of these failures' threads before the latest of them.
    pub(crate) successes: u64,
    /// The time of the latest of them.
    pub(crate) latest: Moment,
}

/// The counts of an entry in flight, and the parts of the fleet's windows that it requests.
#[derive(Clone, Debug, Default)]
pub(super) struct SentDelta {
    pub(super) delta: Delta<Moment>,
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
    /// This instance's outcomes in the confirmed epoch that are not sent yet.
    unsent: Delta<Moment>,
    /// While this instance has decided to close: the outcomes of calls that this decision admitted. They
    /// belong to the epoch that it begins.
    next: Option<Delta<Moment>>,
    /// All outcomes of this instance in this epoch, reported or not, if a decision needs them.
    own: Option<Delta<Moment>>,
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
            unsent: Delta::default(),
            next: None,
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
        let shape = self.shape();
        self.unsent = std::mem::take(&mut self.unsent).reshaped(shape);
        self.next = self.next.take().map(|next| next.reshaped(shape));
    }

    fn keep_own(&mut self, settings: &Settings) {
        self.counts_instances = counts_instances(settings);
        let shape = self.shape();
        let own = self.own.take().unwrap_or_default();
        self.own = keeps_own(settings).then(|| own.reshaped(shape));
    }

    fn shape(&self) -> Shape {
        Shape {
            bucket_us: self.time.as_ref().map_or(0, TimeWindow::width),
            last: self.last.as_ref().map_or(0, FleetCountWindow::calls),
        }
    }

    // ---- what happens here

    pub(super) fn successes(&mut self, n: u64, latest: Moment, now: Moment) {
        self.count(|delta, shape| delta.successes(n, latest, now, shape));
    }

    pub(super) fn slow_success(&mut self, now: Moment) {
        self.count(|delta, shape| delta.slow_success(now, shape));
    }

    pub(super) fn failure(&mut self, slow: bool, now: Moment) {
        self.count(|delta, shape| delta.failure(slow, now, shape));
    }

    /// Failures that were not judged, the last `streak` of them in a row, and the successes before those.
    /// `latest`: see [`Delta::successes`].
    pub(super) fn unjudged(&mut self, unjudged: Unjudged, latest: Moment, now: Moment) {
        let Unjudged { failures, streak, successes, .. } = unjudged;
        let streak = if successes > 0 { streak.min(failures) } else { failures };
        self.count(|delta, shape| {
            if failures > streak {
                delta.failures(failures - streak, false, now, shape);
            }
            if successes > 0 {
                delta.successes(successes, latest, now, shape);
            }
            if streak > 0 {
                delta.failures(streak, false, now, shape);
            }
        });
    }

    fn count(&mut self, count: impl Fn(&mut Delta<Moment>, Shape)) {
        let shape = self.shape();
        count(self.next.as_mut().unwrap_or(&mut self.unsent), shape);
        if let Some(own) = &mut self.own {
            count(own, shape);
        }
    }

    /// Adds a probe's outcome: to the totals only.
    pub(super) fn count_probe(&mut self, probe: Counts) {
        let delta = self.next.as_mut().unwrap_or(&mut self.unsent);
        delta.counts = delta.counts.plus(probe);
    }

    // ---- what it amounts to

    /// Totals of the epoch: the fleet's, and this instance's since. `sent`: the outcomes in the entry under
    /// way.
    pub(super) fn totals(&self, sent: Option<&Delta<Moment>>) -> Counts {
        self.unconfirmed(sent).fold(self.fleet, |sum, delta| sum.plus(delta.counts))
    }

    /// This instance's outcomes that the fleet's counts do not include yet, oldest first.
    fn unconfirmed<'a>(
        &'a self,
        sent: Option<&'a Delta<Moment>>,
    ) -> impl DoubleEndedIterator<Item = &'a Delta<Moment>> {
        sent.into_iter().chain([&self.unsent]).chain(&self.next)
    }

    pub(super) fn has_streak(&self) -> bool {
        self.streak > 0
    }

    // ---- the exchange

    pub(super) fn has_news(&self) -> bool {
        self.unconfirmed(None).any(|delta| !delta.is_empty())
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
            let oldest = delta.buckets.first();
            time.request(oldest.map(|(middle, _)| middle.0.wrapping_add(now.skew)))
        });
        entry.failing = self.counts_instances;
        entry.last = self.last.as_ref().map(FleetCountWindow::request);
        SentDelta { delta, window: entry.window, last: entry.last }
    }

    fn take_unsent(&mut self, leaving: bool) -> Delta<Moment> {
        let shape = self.shape();
        let unsent = std::mem::replace(&mut self.unsent, Delta::new(shape));
        match self.next.as_mut().filter(|_| !leaving) {
            Some(next) => unsent.then(std::mem::replace(next, Delta::new(shape))),
            None => unsent,
        }
    }

    /// Adopts the fleet's counts from the answer to the entry that contained `sent`.
    pub(super) fn receive(&mut self, sent: &SentDelta, view: &View, store_now: u64, now: Moment) {
        let ago = |age: u64| Moment(now.0.saturating_sub(age));
        self.fleet = view.counts;
        self.streak = view.streak;
        self.success_at = view.success_age_us.map(ago);
        self.failing = view.failing.iter().map(|age| ago(*age)).collect();
        if let (Some(time), Some(request), Some(window)) = (&mut self.time, sent.window, &view.window) {
            time.update(request, window, store_now);
            self.previous.forget_time(time);
        }
        if let (Some(last), Some(request), Some(calls)) = (&mut self.last, sent.last, &view.last)
            && u64::from(request.calls) == last.calls()
        {
            last.update(calls, &sent.delta.calls);
            self.previous.forget_calls(last);
        }
    }

    /// Takes outcomes back that the store could not merge, to report them later.
    pub(super) fn restore(&mut self, sent: SentDelta) {
        let later = std::mem::take(&mut self.unsent);
        self.unsent = sent.delta.reshaped(self.shape()).then(later);
    }

    // ---- the report

    fn has_unsent_failures(&self) -> bool {
        self.unconfirmed(None).any(|delta| delta.counts.failures > 0)
    }

    /// The store may list this instance's node as a failing one.
    pub(super) fn is_among_failing(&self) -> bool {
        self.counts_instances && self.own.as_ref().and_then(Delta::latest_failure).is_some()
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
        SentDelta { delta, window: self.time.as_ref().map(|time| time.request(None)), last: None }
    }

    /// Handles the merge of a report: the fleet's counts have grown by at least its counts.
    pub(super) fn receive_report(&mut self, sent: &SentDelta, now: Now) {
        self.fleet = self.fleet.plus(sent.delta.counts);
        self.streak = sent.delta.streak_after(self.streak);
        self.success_at = self.success_at.max(sent.delta.streak.success);
        if let Some(time) = self.time.as_mut().filter(|_| sent.window.is_some()) {
            let dated = |(middle, counts): &(Moment, Counts)| (middle.0.wrapping_add(now.skew), *counts);
            time.add(sent.delta.buckets.iter().map(dated), now.store_time());
        }
    }

    // ---- beginnings

    /// Begins a new epoch. Outcomes since this instance's own decision for that state stay.
    pub(super) fn begin_epoch(&mut self) {
        let next = self.next.take();
        if next.is_none() {
            self.forget_own();
        }
        self.unsent = next.unwrap_or_else(|| self.empty());
        self.fleet = Counts::default();
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
        self.unsent = self.take_unsent(false);
        self.next = Some(self.empty());
    }

    fn empty(&self) -> Delta<Moment> {
        Delta::new(self.shape())
    }

    /// Drops a refused decision, and the outcomes of the calls that it admitted.
    pub(super) fn forget_decided(&mut self) {
        if self.next.take().is_some() {
            self.forget_own();
        }
    }

    /// Begins local probes, which are counted separately and not reported.
    pub(super) fn forget_totals(&mut self) {
        self.fleet = Counts::default();
        self.unsent = self.empty();
        self.next = None;
    }

    /// Handles a recovery by local probes: for the fleet, a success that ends the failure streak.
    pub(super) fn recovered(&mut self, now: Moment) {
        self.next = None;
        self.begin_epoch();
        self.unsent = Delta::recovered(now, self.shape());
    }

    pub(super) fn forget_own(&mut self) {
        self.own = self.own.take().map(|_| self.empty());
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
