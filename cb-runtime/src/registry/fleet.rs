//! The fleet, as the store has it: breakers, instances, settings.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Registry;
use super::presence::{About, Figures, read_figures, read_settings};
use crate::config::drift;
use crate::coordinator::Command;
use crate::deadline::{ANSWER, within};
use crate::error::{Error, ErrorKind};
use crate::snapshot::{
    FleetBreaker, FleetPage, FleetQuery, InstanceInfo, InstanceSettings, State, StateCounts,
};
use crate::store::{Detail, FleetRow, Topic};

/// After a look at the fleet, instances tell of their calls for this long.
const WATCHED_FOR: Duration = Duration::from_secs(10);
/// An instance that has been silent for longer is no longer listed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

impl Registry {
    /// Every breaker of the fleet as the store has it, by name, after this instance has sent the store all
    /// that it has counted.
    ///
    /// Of a fleet with thousands of breakers, [`fleet_page`](Self::fleet_page) reads a part.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn fleet(&self) -> Result<Vec<FleetBreaker>, Error> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::new(ErrorKind::ShutDown);
        self.shared.requests.send(Command::Fleet(answer)).map_err(|_| gone())?;
        let Some(rows) = within(ANSWER, answered).await else {
            let problem = format!("the coordinator has not answered within {ANSWER:?}");
            return Err(Error::store("reading the fleet", problem));
        };
        let rows = rows.map_err(|_| gone())??;
        let mut fleet = self.described(rows).await?;
        fleet.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(fleet)
    }

    /// A part of the fleet's breakers: those that are not closed first, open ones at the top, and in each
    /// state by name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), cb_runtime::Error> {
    /// use cb_runtime::{FleetQuery, Registry, State};
    ///
    /// let registry = Registry::builder().build()?;
    /// for name in ["orders", "user-profile", "user-service"] {
    ///     registry.control(name).disable("example").await?;
    /// }
    /// registry.control("user-service").force_open("example").await?;
    ///
    /// let query = FleetQuery::default().search("user").limit(1);
    /// let first = registry.fleet_page(&query).await?;
    /// assert_eq!((&*first.breakers[0].name, first.total), ("user-service", 2));
    /// let rest = registry.fleet_page(&query.after(first.next.unwrap())).await?;
    /// assert_eq!((&*rest.breakers[0].name, rest.next), ("user-profile", None));
    /// assert_eq!(rest.by_state[State::ForcedOpen], 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn fleet_page(&self, query: &FleetQuery) -> Result<FleetPage, Error> {
        let overview = self.shared.overview.clone();
        let reading = "reading the fleet";
        let (names, held) = self
            .in_background(reading, async move {
                let names = overview.names().await?;
                let held = overview.read(names.held.clone()).await?;
                Ok((names, held))
            })
            .await?;
        let matches = |name: &str| query.matches(name);
        let mut by_state = StateCounts::default();
        let mut places: Vec<PageEntry> = Vec::new();
        let mut rows: HashMap<Arc<str>, FleetRow> = HashMap::new();
        for row in held.into_iter().filter(|row| matches(&row.name)) {
            let Ok((record, ..)) = &row.view else { continue };
            by_state.add(record.state);
            places.push(PageEntry::of(record.state, &row.name));
            rows.insert(row.name.clone(), row);
        }
        for name in names.closed.iter().filter(|name| matches(name)) {
            by_state.add(State::Closed);
            places.push(PageEntry::of(State::Closed, name));
        }
        places.retain(|place| query.wants(place.state));
        places.sort_unstable();
        let total = places.len();
        let begun = query.place().map_or(0, |(rank, name)| {
            places.partition_point(|place| place.compare(rank, name) != Ordering::Greater)
        });
        let end = begun.saturating_add(query.size()).min(total);
        let next = places[begun..end].last().filter(|_| end < total).map(PageEntry::cursor);
        let missing = places[begun..end].iter().filter(|place| !rows.contains_key(&place.name));
        let missing: Vec<_> = missing.map(|place| place.name.clone()).collect();
        let overview = self.shared.overview.clone();
        let more = self.in_background(reading, async move { overview.read(missing).await }).await?;
        rows.extend(more.into_iter().map(|row| (row.name.clone(), row)));
        let page = places[begun..end].iter().filter_map(|place| rows.remove(&place.name)).collect();
        let mut breakers = self.described(page).await?;
        breakers.sort_by(|a, b| (rank(a.state), &a.name).cmp(&(rank(b.state), &b.name)));
        Ok(FleetPage { breakers, next, total, by_state })
    }

    /// All instances of the namespace that have been alive within the last hour, by node and id.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn instances(&self) -> Result<Vec<InstanceInfo>, Error> {
        let (posts, now_us) =
            (self.posts(Topic::About).await?, self.context.unix_us(self.context.store_now()));
        let mut instances = Vec::with_capacity(posts.len());
        let mut gone = Vec::new();
        for (id, text) in posts {
            match serde_json::from_str::<About>(&text) {
                Ok(about) if now_us.saturating_sub(about.seen_us) < crate::clock::micros(FORGOTTEN_AFTER) => {
                    instances.push(about.info(&id, now_us, self.instance()));
                }
                _ => gone.push(id),
            }
        }
        if !gone.is_empty() {
            let overview = self.shared.overview.clone();
            self.in_background("forgetting instances", async move { overview.forget(gone).await }).await?;
        }
        instances.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
        Ok(instances)
    }

    /// What each instance judges a breaker by, and which of them differ from the others. A [keyed
    /// breaker](macro@crate::circuit_breaker#name) goes by the name in its attribute: `"tenant-{id}"`.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn settings(&self, breaker: &str) -> Result<Vec<InstanceSettings>, Error> {
        let nodes: HashMap<_, _> =
            self.instances().await?.into_iter().map(|instance| (instance.id, instance.node)).collect();
        let mut lines = Vec::new();
        for (id, text) in self.posts(Topic::Settings).await? {
            if let (Some(node), Some(line)) = (nodes.get(&*id), read_settings(&text).remove(breaker)) {
                lines.push((id.to_string(), node.clone(), line));
            }
        }
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for (.., line) in &lines {
            *votes.entry(line).or_default() += 1;
        }
        let usual = votes.iter().max_by_key(|(_, votes)| **votes).map(|(line, _)| (*line).to_owned());
        let mut all: Vec<_> = lines
            .into_iter()
            .map(|(instance, node, line)| InstanceSettings {
                drift: usual.as_deref() != Some(&*line),
                settings: drift::parsed(&line),
                instance,
                node,
            })
            .collect();
        all.sort_by(|a, b| (&a.node, &a.instance).cmp(&(&b.node, &b.instance)));
        Ok(all)
    }

    /// The breakers that not all instances judge by the same settings, by name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn drifting(&self) -> Result<Vec<String>, Error> {
        let alive = self.instances().await?;
        let mut lines: BTreeMap<String, (String, bool)> = BTreeMap::new();
        for (id, text) in self.posts(Topic::Settings).await? {
            if !alive.iter().any(|instance| *instance.id == *id) {
                continue;
            }
            for (breaker, line) in read_settings(&text) {
                let (first, differs) = lines.entry(breaker).or_insert_with(|| (line.clone(), false));
                *differs |= *first != line;
            }
        }
        Ok(lines.into_iter().filter(|(_, (_, differs))| *differs).map(|(breaker, _)| breaker).collect())
    }

    async fn posts(&self, topic: Topic) -> Result<Vec<(Arc<str>, String)>, Error> {
        let overview = self.shared.overview.clone();
        self.in_background("reading the fleet's instances", async move { overview.posts(topic).await }).await
    }

    /// Rows with all that people want to know of them. A breaker that cannot be read is reported and left
    /// out.
    async fn described(&self, rows: Vec<FleetRow>) -> Result<Vec<FleetBreaker>, Error> {
        let overview = self.shared.overview.clone();
        let names: Vec<_> = rows.iter().filter(|row| row.view.is_ok()).map(|row| row.name.clone()).collect();
        let now_us = self.context.store_now();
        let (details, posts) = self
            .in_background("reading the fleet", async move {
                overview.watch_fleet(WATCHED_FOR).await?;
                Ok((overview.details(names, now_us).await?, overview.posts(Topic::Figures).await?))
            })
            .await?;
        let figures = self.figures(posts);
        let mut details = details.into_iter();
        let mut breakers = Vec::with_capacity(rows.len());
        for FleetRow { name, view } in rows {
            match view {
                Ok((record, counts, streak)) => {
                    let detail = details.next().unwrap_or_default();
                    let figures = figures.get(&*name).copied().unwrap_or_default();
                    breakers.push(self.breaker_of(name, record, counts, streak, detail, figures, now_us));
                }
                Err(problem) => {
                    let what = format!("breaker \"{name}\"");
                    self.report(Error::new(ErrorKind::Data { what, problem }));
                }
            }
        }
        Ok(breakers)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one row, from four places")]
    fn breaker_of(
        &self,
        name: Arc<str>,
        record: crate::store::Record,
        counts: crate::store::Counts,
        streak: u64,
        detail: Detail,
        figures: Figures,
        now_us: u64,
    ) -> FleetBreaker {
        let wall = |at_us: u64| self.context.wall_of_store(at_us);
        FleetBreaker {
            name: name.to_string(),
            state: record.state,
            epoch: record.epoch,
            since: (record.epoch > 0).then(|| wall(now_us.saturating_sub(record.since_us))),
            opened_at: detail.opened_at_us.map(wall),
            last_failure_at: detail.last_failure_at_us.map(wall),
            reason: record.reason,
            actor: record.actor,
            originator: record.originator,
            retry_after: record.remaining_us.map(Duration::from_micros),
            failures: counts.failures,
            successes: counts.successes,
            slow: counts.slow,
            consecutive_failures: streak,
            window: figures.window(),
            outcomes: figures.outcomes,
            openings: record.attempt,
            probes: detail.probes,
            leader: detail.leader,
        }
    }

    /// All instances' figures, by breaker. This instance's are those of this moment.
    fn figures(&self, posts: Vec<(Arc<str>, String)>) -> HashMap<String, Figures> {
        let mut sums: HashMap<String, Figures> = HashMap::new();
        let others = posts.iter().filter(|(instance, _)| **instance != *self.context.instance);
        let others = others.flat_map(|(_, text)| read_figures(text));
        let own = self.breakers.registered().into_iter().map(|core| {
            (core.name().to_string(), Figures { outcomes: core.outcomes(), window: core.window() })
        });
        for (breaker, figures) in others.chain(own) {
            let sum = sums.entry(breaker).or_default();
            *sum = sum.plus(figures);
        }
        sums
    }
}

/// Where a breaker stands in the order of pages.
#[derive(PartialEq, Eq)]
struct PageEntry {
    state: State,
    name: Arc<str>,
}

impl PageEntry {
    fn of(state: State, name: &Arc<str>) -> Self {
        PageEntry { state, name: name.clone() }
    }

    fn compare(&self, other_rank: u8, name: &str) -> Ordering {
        (rank(self.state), &*self.name).cmp(&(other_rank, name))
    }

    fn cursor(&self) -> String {
        format!("{}:{}", rank(self.state), self.name)
    }
}

impl Ord for PageEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare(rank(other.state), &other.name)
    }
}

impl PartialOrd for PageEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The worst first.
fn rank(state: State) -> u8 {
    match state {
        State::Open => 0,
        State::HalfOpen => 1,
        State::ForcedOpen => 2,
        State::MetricsOnly => 3,
        State::Disabled => 4,
        State::Closed => 5,
    }
}
