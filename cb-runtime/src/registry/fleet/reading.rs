//! One reading of the fleet: names, the states of breakers that are not closed, and instances' posts.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::rank;
use crate::breaker::Figures;
use crate::clock::micros;
use crate::error::{Error, ErrorKind};
use crate::registry::Registry;
use crate::registry::presence::{read_figures, read_settings};
use crate::snapshot::State;
use crate::store::{Counts, Detail, FleetRow, Record, Topic};
use crate::sync::lock;

/// After a reading of the fleet, instances publish their calls for this long.
const WATCHED_FOR: Duration = Duration::from_secs(10);
/// Pages that are requested within this time use the names of the first page's reading.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Instances tell of what they have registered at this pace; it is not read more often.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// The time limit of a reading, which consists of many small requests.
const PATIENCE: Duration = Duration::from_secs(20);
const DOING: &str = "reading the fleet";

type Names = Arc<[Arc<str>]>;

/// What this process has read.
#[derive(Default)]
pub(in crate::registry) struct Readings {
    /// The latest reading, for concurrent requests and for later pages.
    latest: tokio::sync::Mutex<Option<Arc<Reading>>>,
    /// The breakers that instances have registered, and when that was read.
    registered: Mutex<Option<(Instant, Names)>>,
}

/// The result of one reading.
pub(super) struct Reading {
    begun: Instant,
    ended: Instant,
    /// The worst first.
    entries: Vec<ListedBreaker>,
    figures: HashMap<String, (Figures, Vec<String>)>,
}

/// A breaker in the order of pages.
pub(super) struct ListedBreaker {
    pub(super) state: State,
    pub(super) name: Arc<str>,
    /// The row, if it is known without another request.
    pub(super) row: Option<(FleetRow, Detail)>,
}

impl ListedBreaker {
    pub(super) fn compare(&self, other_rank: u8, name: &str) -> Ordering {
        (rank(self.state), &*self.name).cmp(&(other_rank, name))
    }

    pub(super) fn cursor(&self) -> String {
        format!("{}:{}", rank(self.state), self.name)
    }
}

impl Reading {
    pub(super) fn entries(&self) -> &[ListedBreaker] {
        &self.entries
    }

    /// The sum of all instances' figures, and the ids of instances that have opened locally.
    pub(super) fn figures(&self, name: &str) -> (Figures, Vec<String>) {
        self.figures.get(name).cloned().unwrap_or_default()
    }

    /// A row of this reading as it reads now.
    pub(super) fn aged(&self, FleetRow { name, view }: &FleetRow) -> FleetRow {
        let age_us = micros(self.ended.elapsed());
        let aged = |(record, counts, streak): (Record, Counts, u64)| (record.aged(age_us), counts, streak);
        FleetRow { name: name.clone(), view: view.clone().map(aged) }
    }
}

impl Registry {
    /// A reading that has begun since this was called.
    pub(super) async fn read_fleet(&self) -> Result<Arc<Reading>, Error> {
        self.shared_reading(Instant::now()).await
    }

    /// The reading that the page before came from, if it is recent.
    pub(super) async fn continued_reading(&self) -> Result<Arc<Reading>, Error> {
        let now = Instant::now();
        self.shared_reading(now.checked_sub(KEPT_FOR).unwrap_or(now)).await
    }

    async fn shared_reading(&self, begun_after: Instant) -> Result<Arc<Reading>, Error> {
        // One at a time: callers that have waited for a reading that began after they had asked share it.
        let mut latest = self.shared.readings.latest.lock().await;
        if let Some(reading) = latest.as_ref().filter(|reading| reading.begun >= begun_after) {
            return Ok(reading.clone());
        }
        let reading = Arc::new(self.new_reading().await?);
        *latest = Some(reading.clone());
        Ok(reading)
    }

    async fn new_reading(&self) -> Result<Reading, Error> {
        let begun = Instant::now();
        let overview = self.shared.overview.clone();
        let requests = async move {
            // A server without memory refuses this, and can be read nevertheless.
            let watching = overview.watch_fleet(WATCHED_FOR).await;
            let roll = overview.roll().await?;
            let held = overview.read(roll.held.clone()).await?;
            Ok((watching, roll, held, overview.posts(Topic::Figures).await?))
        };
        let (watching, roll, held, posts) = self.in_background_within(PATIENCE, DOING, requests).await?;
        if let Err(error) = watching {
            self.report(error);
        }
        for problem in roll.warnings {
            self.report(Error::new(ErrorKind::Data { what: "a key".into(), problem }));
        }
        let registered = self.registered_by_instances().await?;
        let complete = roll.complete.iter().map(|(row, _)| &row.name);
        let listed: HashSet<Arc<str>> =
            roll.held.iter().chain(&roll.closed).chain(complete).cloned().collect();
        let read = held.into_iter().chain(roll.complete).filter_map(|(row, detail)| match &row.view {
            Ok((record, ..)) => {
                Some(ListedBreaker { state: record.state, name: row.name.clone(), row: Some((row, detail)) })
            }
            Err(problem) => {
                self.report_unreadable(&row.name, problem.clone());
                None
            }
        });
        let closed =
            roll.closed.into_iter().map(|name| ListedBreaker { state: State::Closed, name, row: None });
        let mut entries: Vec<_> = read.chain(closed).collect();
        entries.extend(self.uncalled(&registered, &listed));
        entries.sort_unstable_by(|a, b| a.compare(rank(b.state), &b.name));
        Ok(Reading { begun, ended: Instant::now(), entries, figures: self.sum_of_figures(&posts) })
    }

    /// Registered breakers that nobody has called: the store does not list them.
    fn uncalled(
        &self,
        registered: &Names,
        listed: &HashSet<Arc<str>>,
    ) -> impl Iterator<Item = ListedBreaker> {
        let own = self.breakers.pinned();
        let mut uncalled: Vec<Arc<str>> = own.iter().map(|core| core.name().clone()).collect();
        uncalled.extend(registered.iter().cloned());
        uncalled.sort_unstable();
        uncalled.dedup();
        let has_history = |name: &str| self.breakers.get(name).is_some_and(|core| core.has_history());
        uncalled.retain(|name| !listed.contains(name) && !has_history(name));
        uncalled.into_iter().map(|name| {
            let row = FleetRow { name: name.clone(), view: Ok((Record::closed(), Counts::default(), 0)) };
            ListedBreaker { state: State::Closed, name, row: Some((row, Detail::default())) }
        })
    }

    /// The breakers that instances have registered, keyed ones aside.
    async fn registered_by_instances(&self) -> Result<Names, Error> {
        let known = lock(&self.shared.readings.registered).clone();
        if let Some((_, names)) = known.filter(|(read_at, _)| read_at.elapsed() < KNOWN_FOR) {
            return Ok(names);
        }
        let posts = self.posts(Topic::Settings).await?;
        let reported = posts.iter().flat_map(|(_, text)| read_settings(text));
        let names = reported.filter(|(_, settings)| !settings.is_keyed).map(|(name, _)| name.into());
        let names: Names = names.collect();
        *lock(&self.shared.readings.registered) = Some((Instant::now(), names.clone()));
        Ok(names)
    }

    /// A breaker that cannot be read is left out.
    pub(super) fn report_unreadable(&self, name: &str, problem: String) {
        self.report(Error::new(ErrorKind::Data { what: format!("breaker \"{name}\""), problem }));
    }

    /// The last page has been read.
    pub(super) fn forget_reading(&self) {
        if let Ok(mut latest) = self.shared.readings.latest.try_lock() {
            *latest = None;
        }
    }

    pub(super) async fn read_rows(&self, names: Vec<Arc<str>>) -> Result<Vec<(FleetRow, Detail)>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let overview = self.shared.overview.clone();
        self.in_background_within(PATIENCE, DOING, async move { overview.read(names).await }).await
    }

    /// All instances' figures, by breaker. This instance's are those of this moment.
    fn sum_of_figures(&self, posts: &[(Arc<str>, String)]) -> HashMap<String, (Figures, Vec<String>)> {
        let others = posts.iter().filter(|(instance, _)| **instance != *self.context.instance);
        let others = others.flat_map(|(instance, text)| {
            read_figures(text).into_iter().map(move |(breaker, figures)| (&**instance, breaker, figures))
        });
        let own = self.breakers.registered().into_iter();
        let own = own.map(|core| (self.instance(), core.name().to_string(), core.figures()));
        let mut sums: HashMap<String, (Figures, Vec<String>)> = HashMap::new();
        for (instance, breaker, figures) in others.chain(own) {
            let (sum, isolated) = sums.entry(breaker).or_default();
            *sum = sum.plus(figures);
            if figures.is_isolated {
                isolated.push(instance.to_owned());
            }
        }
        sums
    }
}
