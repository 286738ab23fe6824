//! The fleet's figures from the latest reading, and the rates and trends computed from successive readings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::{InstanceInfo, State, Transition, WindowSnapshot};
use serde::Serialize;

use crate::fleet::{Instances, Reading};
use crate::settings::{FleetSettings, Limits};

/// The number of points of a trend, one per reading.
const TREND: usize = 40;

/// Instances report rejected calls only while a reader is connected, and start to do so at different moments.
/// Until all have started, a first report with older calls in it would look like the calls of one second.
const UNSETTLED: Duration = Duration::from_secs(8);
/// After a pause of this length between readings, instances have stopped reporting them.
const PAUSE: Duration = Duration::from_secs(9);

/// All breakers of the namespace.
#[derive(Default)]
pub(crate) struct Figures {
    entries: BTreeMap<Arc<str>, Entry>,
    /// When the store was last read successfully, on both clocks.
    taken: Option<(Instant, SystemTime)>,
    /// The beginning of the readings without a pause.
    watched: Option<Instant>,
    /// The settings of all instances.
    settings: Arc<FleetSettings>,
    /// Breakers whose settings differ between instances.
    drifting: HashSet<String>,
    /// Each instance's node.
    nodes: HashMap<String, String>,
}

struct Entry {
    reading: Reading,
    /// The moment to which the reading's `retry_after` refers.
    read_at: Instant,
    rates: Rates,
    trend: VecDeque<Option<f32>>,
}

/// Calls per second between the last two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) calls: f64,
    pub(crate) failures: f64,
    /// Calls that were rejected. This rate and the next two are unknown in the first seconds after the first
    /// reader has connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rejected: Option<f64>,
    /// Failed and rejected calls that were answered by a cached result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cached: Option<f64>,
    /// Failed and rejected calls that were answered by a fallback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<f64>,
}

/// One breaker in an answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: Arc<str>,
    pub(crate) state: State,
    pub(crate) epoch: u64,
    pub(crate) failure_count: u64,
    pub(crate) success_count: u64,
    pub(crate) consecutive_failures: u64,
    /// Seconds since 1970, like all other times.
    pub(crate) last_failure_time: Option<f64>,
    pub(crate) last_state_change: Option<f64>,
    pub(crate) reason: String,
    pub(crate) actor: String,
    pub(crate) originator: String,
    /// Seconds until a probe is due, or until a manual override expires.
    pub(crate) retry_after: Option<f64>,
    /// The share of failures among the calls between the last two readings.
    pub(crate) failure_rate: Option<f64>,
    pub(crate) per_second: Rates,
    /// Calls since the last change of state that took longer than `slow_call_duration`.
    pub(crate) slow_count: u64,
    /// The fleet's window.
    pub(crate) window: Option<WindowSnapshot>,
    /// Probes that are under way.
    pub(crate) probes: u32,
    /// The number of consecutive openings without a close.
    pub(crate) openings: u32,
    /// The instance that runs the health checks.
    pub(crate) leader: Option<String>,
    /// How often a metrics-only breaker would have opened, and when it last would have.
    pub(crate) would_have_opened: u64,
    pub(crate) would_have_opened_at: Option<f64>,
    /// Instances that have opened the circuit locally only.
    pub(crate) isolated: Vec<String>,
    /// Whether instances have different settings for this breaker.
    pub(crate) drift: bool,
    /// Whether this process has decided on this state locally, because the store does not answer.
    pub(crate) local: bool,
    /// The failure rates of the latest readings, oldest first; `null` where there was no call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) trend: Vec<Option<f32>>,
    /// The limits at which the breaker trips, as far as instances have reported them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Limits>,
}

/// Selects and sorts rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Empty: all states.
    pub(crate) states: Vec<State>,
    /// A part of the name; case does not matter.
    pub(crate) search: String,
    pub(crate) sort: Sort,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
    pub(crate) with_trend: bool,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Breakers that need attention first.
    #[default]
    Worst,
    Name,
    Failures,
    Calls,
}

impl Sort {
    pub(crate) const ALL: [(&'static str, Sort); 4] =
        [("worst", Sort::Worst), ("name", Sort::Name), ("failures", Sort::Failures), ("calls", Sort::Calls)];
}

impl Figures {
    /// Replaces the figures by a reading of the whole namespace.
    pub(crate) fn update(&mut self, readings: Vec<Reading>, now: Instant, wall: SystemTime) {
        let span = self.taken.map(|(taken, _)| now.duration_since(taken));
        let names: HashSet<_> = readings.iter().map(|reading| reading.name.clone()).collect();
        self.entries.retain(|name, _| names.contains(name));
        let watched = match (self.watched, span) {
            (Some(watched), Some(span)) if span < PAUSE => watched,
            _ => now,
        };
        self.watched = Some(watched);
        let settled = now.duration_since(watched) > UNSETTLED;
        for reading in readings {
            match self.entries.get_mut(&reading.name) {
                Some(entry) => entry.update(reading, now, span, settled),
                None => {
                    self.entries.insert(reading.name.clone(), Entry::new(reading, now));
                }
            }
        }
        self.taken = Some((now, wall));
    }

    /// Replaces single figures by this process' local states, while the store does not answer.
    pub(crate) fn overlay(&mut self, readings: Vec<Reading>, now: Instant) {
        for reading in readings {
            let name = reading.name.clone();
            match self.entries.get_mut(&name) {
                Some(entry) => (entry.reading, entry.read_at) = (reading, now),
                None => drop(self.entries.insert(name, Entry::new(reading, now))),
            }
        }
    }

    /// Applies a transition that arrived between two readings.
    pub(crate) fn apply(&mut self, transition: &Transition, local: bool, now: Instant) {
        let entry = self.entries.entry(transition.breaker.clone());
        let entry = entry.or_insert_with(|| Entry::new(Reading::of(transition), now));
        if entry.reading.epoch <= transition.epoch {
            let Reading { rejected, cached, fallback, would_have_opened, would_have_opened_at, .. } =
                entry.reading;
            entry.reading = Reading {
                since: Some(transition.at),
                local,
                rejected,
                cached,
                fallback,
                would_have_opened,
                would_have_opened_at,
                ..Reading::of(transition)
            };
            entry.read_at = now;
        }
    }

    /// Takes the settings and nodes that instances have reported.
    pub(crate) fn set_instances(&mut self, instances: &Instances) {
        self.settings = instances.settings.clone();
        self.drifting = instances.drifting.iter().cloned().collect();
        let node = |instance: &InstanceInfo| (instance.id.clone(), instance.node.clone());
        self.nodes = instances.list.iter().map(node).collect();
    }

    pub(crate) fn state(&self, name: &str) -> Option<State> {
        self.entries.get(name).map(|entry| entry.reading.state)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of breakers in each state.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<_, _> = State::ALL.iter().map(|state| (state.as_str(), 0)).collect();
        for entry in self.entries.values() {
            *counts.entry(entry.reading.state.as_str()).or_default() += 1;
        }
        counts
    }

    /// The sum of all breakers' rates.
    pub(crate) fn rates(&self) -> Rates {
        self.entries.values().fold(Rates::default(), |mut sum, Entry { rates, .. }| {
            sum.calls += rates.calls;
            sum.failures += rates.failures;
            let Rates { rejected, cached, fallback, .. } = *rates;
            let sums =
                [(&mut sum.rejected, rejected), (&mut sum.cached, cached), (&mut sum.fallback, fallback)];
            for (sum, rate) in sums {
                if let Some(rate) = rate {
                    *sum.get_or_insert_default() += rate;
                }
            }
            sum
        })
    }

    /// The number of instances that have opened a circuit locally only.
    pub(crate) fn isolated(&self) -> usize {
        let isolated = self.entries.values().flat_map(|entry| &entry.reading.isolated);
        isolated.collect::<HashSet<_>>().len()
    }

    /// The names of breakers that are open or forced open.
    pub(crate) fn open(&self) -> Vec<Arc<str>> {
        let open = |entry: &&Entry| matches!(entry.reading.state, State::Open | State::ForcedOpen);
        self.entries.values().filter(open).map(|entry| entry.reading.name.clone()).collect()
    }

    /// When the store was last read.
    pub(crate) fn as_of(&self) -> Option<SystemTime> {
        self.taken.map(|(_, wall)| wall)
    }

    pub(crate) fn row(&self, name: &str, now: Instant) -> Option<Row> {
        self.entries.get(name).map(|entry| self.marked(entry.row(now, true)))
    }

    /// Adds to a row what instances have reported of their settings and nodes.
    fn marked(&self, mut row: Row) -> Row {
        row.drift = self.drifting.contains(&*row.name);
        row.limits = self.settings.limits(&row.name);
        for instance in &mut row.isolated {
            if let Some(node) = self.nodes.get(instance) {
                instance.clone_from(node);
            }
        }
        row
    }

    pub(crate) fn rows(&self, now: Instant) -> impl Iterator<Item = Row> + '_ {
        self.entries.values().map(move |entry| entry.row(now, false))
    }

    /// The rows that match the filter, and their number without `offset` and `limit`.
    pub(crate) fn page(&self, filter: &Filter, now: Instant) -> (Vec<Row>, usize) {
        let search = filter.search.to_lowercase();
        let mut found: Vec<&Entry> = self
            .entries
            .values()
            .filter(|entry| filter.states.is_empty() || filter.states.contains(&entry.reading.state))
            .filter(|entry| search.is_empty() || entry.reading.name.to_lowercase().contains(&search))
            .collect();
        // The rows are sorted by name, and each sort below is stable.
        match filter.sort {
            Sort::Name => {}
            Sort::Worst => found.sort_by_cached_key(|entry| entry.urgency()),
            Sort::Failures => found.sort_by(|a, b| b.rates.failures.total_cmp(&a.rates.failures)),
            Sort::Calls => found.sort_by(|a, b| b.rates.calls.total_cmp(&a.rates.calls)),
        }
        let total = found.len();
        let page = found.into_iter().skip(filter.offset).take(filter.limit);
        let row = |entry: &Entry| self.marked(entry.row(now, filter.with_trend));
        (page.map(row).collect(), total)
    }

    /// The most similar known name, if any is similar.
    pub(crate) fn similar(&self, name: &str) -> Option<Arc<str>> {
        let likeness = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase());
        let known = self.entries.keys().map(|known| (likeness(known), known));
        let (likeness, known) = known.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (likeness > 0.8).then(|| known.clone())
    }
}

impl Entry {
    fn new(reading: Reading, now: Instant) -> Entry {
        Entry { reading, read_at: now, rates: Rates::default(), trend: VecDeque::new() }
    }

    fn update(&mut self, reading: Reading, now: Instant, span: Option<Duration>, settled: bool) {
        if let Some(seconds) = span.map(|span| span.as_secs_f64()).filter(|seconds| *seconds > 0.0) {
            let old = &self.reading;
            // Counts restart at zero with every epoch, and after the store has lost them.
            let continues = old.epoch == reading.epoch && !old.local;
            let more = |new: u64, old: u64| {
                let before = if continues && new >= old { old } else { 0 };
                (new - before) as f64
            };
            let failures = more(reading.failures, old.failures);
            let calls = failures + more(reading.successes, old.successes);
            let reported = |new: u64, old: u64| settled.then(|| new.saturating_sub(old) as f64 / seconds);
            self.rates = Rates {
                calls: calls / seconds,
                failures: failures / seconds,
                rejected: reported(reading.rejected, old.rejected),
                cached: reported(reading.cached, old.cached),
                fallback: reported(reading.fallback, old.fallback),
            };
            if self.trend.len() == TREND {
                self.trend.pop_front();
            }
            self.trend.push_back(self.failure_rate().map(|rate| rate as f32));
        }
        self.reading = reading;
        self.read_at = now;
    }

    fn failure_rate(&self) -> Option<f64> {
        (self.rates.calls > 0.0).then(|| self.rates.failures / self.rates.calls)
    }

    /// The sort key of [`Sort::Worst`]: the smallest comes first. Failure rates count in steps of a tenth, so
    /// that rows do not swap places at every reading.
    fn urgency(&self) -> (u8, Reverse<u64>, Reverse<bool>) {
        let rank = match self.reading.state {
            State::Open => 0,
            State::ForcedOpen => 1,
            State::HalfOpen => 2,
            State::MetricsOnly => 3,
            State::Disabled => 4,
            _ => 5,
        };
        let step = (self.failure_rate().unwrap_or(0.0) * 10.0).ceil() as u64;
        (rank, Reverse(step), Reverse(self.reading.consecutive_failures > 0))
    }

    fn row(&self, now: Instant, with_trend: bool) -> Row {
        let Reading { retry_after, since, last_failure_at, .. } = &self.reading;
        let elapsed = now.duration_since(self.read_at);
        Row {
            name: self.reading.name.clone(),
            state: self.reading.state,
            epoch: self.reading.epoch,
            failure_count: self.reading.failures,
            success_count: self.reading.successes,
            consecutive_failures: self.reading.consecutive_failures,
            last_failure_time: last_failure_at.map(seconds),
            last_state_change: since.map(seconds),
            reason: self.reading.reason.clone(),
            actor: self.reading.actor.clone(),
            originator: self.reading.originator.clone(),
            retry_after: retry_after.map(|span| span.saturating_sub(elapsed).as_secs_f64()),
            failure_rate: self.failure_rate(),
            per_second: self.rates,
            slow_count: self.reading.slow,
            window: self.reading.window,
            probes: self.reading.probes,
            openings: self.reading.openings,
            leader: self.reading.leader.clone(),
            would_have_opened: self.reading.would_have_opened,
            would_have_opened_at: self.reading.would_have_opened_at.map(seconds),
            isolated: self.reading.isolated.clone(),
            drift: false,
            local: self.reading.local,
            trend: if with_trend { self.trend.iter().copied().collect() } else { Vec::new() },
            limits: None,
        }
    }
}

impl Reading {
    fn of(transition: &Transition) -> Reading {
        Reading {
            name: transition.breaker.clone(),
            state: transition.to,
            epoch: transition.epoch,
            reason: transition.reason.clone(),
            actor: transition.actor.clone(),
            originator: transition.originator.clone(),
            retry_after: transition.open_for,
            failures: 0,
            successes: 0,
            consecutive_failures: 0,
            slow: 0,
            rejected: 0,
            cached: 0,
            fallback: 0,
            would_have_opened: 0,
            would_have_opened_at: None,
            isolated: Vec::new(),
            window: None,
            probes: 0,
            openings: 0,
            leader: None,
            since: None,
            last_failure_at: None,
            local: false,
        }
    }
}

/// Seconds since 1970, to the millisecond.
pub(crate) fn seconds(time: SystemTime) -> f64 {
    let span = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    span.as_millis() as f64 / 1000.0
}
