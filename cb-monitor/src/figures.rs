//! The fleet's figures from the latest reading, and the rates and trends computed from successive readings.

mod entry;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cb_runtime::{InstanceInfo, State, Transition};
use entry::Entry;
pub(crate) use entry::{Rates, Row, seconds};

use crate::fleet::{Instances, Reading};
use crate::settings::FleetSettings;

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

impl FromStr for Sort {
    type Err = String;

    fn from_str(name: &str) -> Result<Sort, String> {
        match name {
            "worst" => Ok(Sort::Worst),
            "name" => Ok(Sort::Name),
            "failures" => Ok(Sort::Failures),
            "calls" => Ok(Sort::Calls),
            _ => Err("must be one of worst, name, failures, calls".into()),
        }
    }
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
        let entry = entry.or_insert_with(|| Entry::new(transition.into(), now));
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
                ..transition.into()
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
