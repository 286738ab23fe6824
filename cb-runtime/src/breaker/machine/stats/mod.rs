//! What has been counted: by the fleet as of the last exchange, and by this instance since.

pub(crate) mod count_window;
pub(crate) mod delta;
mod previous;
pub(crate) mod time_window;

use std::collections::BTreeMap;
use std::time::Duration;

use super::policy::TripInput;
use crate::clock::Moment;
use crate::config::{Settings, WindowKind};
use crate::store::{Counts, Delta, Entry, LastAsk, View, WindowAsk};
use crate::strategy::Bucket;
use count_window::CountWindowTotals;
use delta::{PendingDelta, Shape};
use previous::PreviousWindows;
use time_window::TimeWindow;

pub(super) struct CallStats {
    /// Totals of the epoch and failures in a row, as of the last exchange.
    fleet: Counts,
    streak: u64,
    /// The fleet's latest success, and other instances' latest failures.
    success_at: Option<Moment>,
    failing: Vec<Moment>,
    time: Option<TimeWindow>,
    last: Option<CountWindowTotals>,
    /// PendingDelta of the batch that is under way, or whose fate is unknown, and what it asked.
    flight: Option<PendingDelta>,
    /// From before a reload.
    carried: PreviousWindows,
    asked: (Option<WindowAsk>, Option<LastAsk>),
    pub(super) pending: PendingDelta,
    /// All that this instance has seen in this epoch, told or not; kept where it matters who saw what.
    own: Option<PendingDelta>,
}

impl CallStats {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut account = CallStats {
            fleet: Counts::default(),
            streak: 0,
            success_at: None,
            failing: Vec::new(),
            time: None,
            last: None,
            flight: None,
            carried: PreviousWindows::default(),
            asked: (None, None),
            pending: PendingDelta::default(),
            own: None,
        };
        account.look_at(settings.window);
        account.keep_own(settings);
        account
    }

    /// What has been counted goes on to count, as far as a window of the same kind looks at it.
    pub(super) fn configure(&mut self, before: &Settings, settings: &Settings, now: Moment, skew: u64) {
        if before.window != settings.window {
            self.carry(now, skew);
            self.look_at(settings.window);
        }
        self.keep_own(settings);
    }

    fn carry(&mut self, now: Moment, skew: u64) {
        if let Some(time) = &self.time {
            self.carried.add_time(time, self.flight.as_ref(), now, skew);
        }
        if let Some(last) = &self.last {
            self.carried.add_calls(last, self.flight.as_ref());
        }
        // Its answer, if there is one, will be about the window before.
        if let Some(flight) = &mut self.flight {
            *flight = std::mem::take(flight).without_windows();
        }
    }

    fn look_at(&mut self, window: Option<WindowKind>) {
        (self.time, self.last) = match window {
            Some(WindowKind::Time(span)) => (Some(TimeWindow::new(span)), None),
            Some(WindowKind::Calls(calls)) => (None, Some(CountWindowTotals::new(calls))),
            None => (None, None),
        };
        self.asked = (None, None);
        self.pending = std::mem::take(&mut self.pending).reshaped(self.shape());
    }

    fn keep_own(&mut self, settings: &Settings) {
        let shape = self.shape();
        let own = self.own.take().filter(|_| keeps_own(settings));
        self.own =
            keeps_own(settings).then(|| own.unwrap_or_else(|| PendingDelta::new(shape)).reshaped(shape));
    }

    fn shape(&self) -> Shape {
        Shape {
            bucket_us: self.time.as_ref().map_or(0, TimeWindow::width),
            last: self.last.as_ref().map_or(0, CountWindowTotals::calls),
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

    /// Totals of the epoch: the fleet's and this instance's since.
    pub(super) fn totals(&self) -> Counts {
        self.unconfirmed().fold(self.fleet, |sum, evidence| sum.plus(evidence.counts))
    }

    /// What of this instance's evidence is not in the fleet's counts yet, oldest first.
    fn unconfirmed(&self) -> impl DoubleEndedIterator<Item = &PendingDelta> {
        self.flight.iter().chain([&self.pending])
    }

    /// The store knows all of it, and has said so.
    pub(super) fn is_told(&self) -> bool {
        self.flight.is_none() && !self.has_news()
    }

    pub(super) fn has_streak(&self) -> bool {
        self.streak > 0
    }

    /// What a closed breaker is judged by. `skew`: the store's clock minus this instance's, in µs.
    pub(super) fn trip_input(&self, now: Moment, skew: u64, with_buckets: bool) -> TripInput {
        let streak = self.unconfirmed().fold(self.streak, |before, evidence| evidence.run_after(before));
        let mut input = TripInput { streak, streak_instances: self.failing_in_run(), ..TripInput::default() };
        if let Some(time) = &self.time {
            let start = Moment(now.0.saturating_sub(time.length()));
            input.window = self.unconfirmed().fold(time.sum(now.0.wrapping_add(skew)), |sum, evidence| {
                sum.plus(evidence.window_since(start))
            });
            input.window = input.window.plus(self.carried.window_since(start));
            input.window_instances = self.failing_since(start);
            if with_buckets {
                input.buckets = self.buckets(time, now, skew);
            }
        }
        if let Some(last) = &self.last {
            let told = self.carried.calls().chain([&last.outcomes]);
            let parts = told.chain(self.unconfirmed().map(PendingDelta::calls));
            input.window = count_window::latest(last.calls(), parts);
            let more = self.unconfirmed().map(|evidence| evidence.calls().len()).sum();
            let fails = self.unconfirmed().any(|evidence| evidence.calls().since_failure().is_some());
            input.window_instances = last.failing(more, fails);
        }
        input
    }

    /// The same for what this instance has seen itself, where that is kept.
    pub(super) fn own_trip_input(&self, now: Moment) -> Option<TripInput> {
        let own = self.own.as_ref()?;
        let window = match (&self.time, &self.last) {
            (Some(time), _) => own.window_since(Moment(now.0.saturating_sub(time.length()))),
            (None, Some(last)) => count_window::latest(last.calls(), std::iter::once(own.calls())),
            (None, None) => Counts::default(),
        };
        Some(TripInput {
            streak: own.run_after(0),
            window,
            streak_instances: 1,
            window_instances: 1,
            buckets: Vec::new(),
        })
    }

    /// How many instances have failed since the fleet's latest success.
    fn failing_in_run(&self) -> u32 {
        let success_at = self.unconfirmed().filter_map(PendingDelta::success_at).chain(self.success_at).max();
        let after = |at: &Moment| success_at.is_none_or(|success| *at >= success);
        let others = self.failing.iter().filter(|at| after(at)).count();
        let own = self.own.as_ref().and_then(PendingDelta::latest_failure).is_some_and(|at| after(&at));
        number(others + usize::from(own))
    }

    fn failing_since(&self, start: Moment) -> u32 {
        let others = self.failing.iter().filter(|at| **at >= start).count();
        let own = self.own.as_ref().is_some_and(|own| own.window_since(start).failures > 0);
        number(others + usize::from(own))
    }

    fn buckets(&self, time: &TimeWindow, now: Moment, skew: u64) -> Vec<Bucket> {
        let store_now = now.0.wrapping_add(skew);
        let mut all: BTreeMap<u64, Counts> = time.buckets(store_now).collect();
        for (middle, counts) in
            self.carried.buckets().chain(self.unconfirmed().flat_map(PendingDelta::buckets))
        {
            if middle.0.saturating_add(time.length()) > now.0 {
                let sum = all.entry(middle.0.wrapping_add(skew) / time.width()).or_default();
                *sum = sum.plus(counts);
            }
        }
        let age = |number: u64| store_now.saturating_sub((number + 1) * time.width());
        all.into_iter()
            .map(|(number, counts)| Bucket { age: Duration::from_micros(age(number)), calls: counts.into() })
            .collect()
    }

    // ---- the exchange

    pub(super) fn has_news(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes what is to be told into an entry; `meant` = it says something about the confirmed state. With `retry`, what
    /// was told in the batch whose fate is unknown.
    pub(super) fn tell(&mut self, entry: &mut Entry, now: Moment, skew: u64, retry: bool, meant: bool) {
        if !retry {
            let fresh = PendingDelta::new(self.shape());
            self.flight = Some(std::mem::replace(&mut self.pending, fresh));
        }
        let told = self.flight.as_ref();
        entry.delta = told.filter(|_| meant).map_or_else(Delta::default, |told| told.delta(now));
        entry.window = self.time.as_ref().map(|time| {
            let oldest = told.and_then(PendingDelta::oldest_bucket);
            time.ask(oldest.map(|at| at.0.wrapping_add(skew)))
        });
        entry.failing = self.own.is_some();
        entry.last = self.last.as_ref().map(CountWindowTotals::ask);
        self.asked = (entry.window, entry.last);
    }

    /// The store has answered, but of an epoch that is over.
    pub(super) fn told(&mut self) -> Option<PendingDelta> {
        self.flight.take()
    }

    /// The store's answer to what was told as `flight`.
    pub(super) fn update(&mut self, flight: Option<&PendingDelta>, view: &View, store_now: u64, now: Moment) {
        let ago = |age: u64| Moment(now.0.saturating_sub(age));
        self.fleet = view.counts;
        self.streak = view.streak;
        self.success_at = view.success_age_us.map(ago);
        self.failing = view.failing.iter().map(|age| ago(*age)).collect();
        let (window, last) = std::mem::take(&mut self.asked);
        if let (Some(time), Some(ask), Some(seen)) = (&mut self.time, window, &view.window) {
            time.update(ask, seen, store_now);
            self.carried.forget_time(time);
        }
        if let (Some(mine), Some(ask), Some(seen)) = (&mut self.last, last, &view.last)
            && u64::from(ask.calls) == mine.calls()
        {
            mine.update(seen, flight.map(PendingDelta::calls));
            self.carried.forget_calls(mine);
        }
    }

    /// The store cannot use what was told: it is kept.
    pub(super) fn keep(&mut self) {
        if let Some(flight) = self.flight.take() {
            let later = std::mem::take(&mut self.pending);
            self.pending = flight.then(later);
        }
    }

    // ---- beginnings

    /// Another state begins, with nothing counted in it.
    pub(super) fn begin(&mut self) {
        self.forget_totals();
        self.streak = 0;
        self.success_at = None;
        self.failing.clear();
        self.asked = (None, None);
        self.carried = PreviousWindows::default();
        if let Some(time) = &mut self.time {
            time.clear();
        }
        if let Some(last) = &mut self.last {
            last.clear();
        }
        self.forget_own();
    }

    /// Probes of this instance alone begin: they are counted by themselves, and no evidence for the fleet.
    pub(super) fn forget_totals(&mut self) {
        self.fleet = Counts::default();
        self.flight = None;
        self.pending = PendingDelta::new(self.shape());
    }

    /// This instance has recovered by its own probes. For the fleet that is a success which ends whatever was before.
    pub(super) fn recovered(&mut self, now: Moment) {
        self.begin();
        self.pending.recovered(now);
    }

    pub(super) fn forget_own(&mut self) {
        let shape = self.shape();
        if let Some(own) = &mut self.own {
            *own = PendingDelta::new(shape);
        }
    }
}

/// It matters who saw what.
fn keeps_own(settings: &Settings) -> bool {
    settings.min_failing_instances > 1 || settings.strategy.is_some()
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
